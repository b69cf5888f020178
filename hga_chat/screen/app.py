"""The application: puts the parts together and passes the engine's reports to them."""

import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.theme import Theme
from textual.widgets import Footer

from hga_chat.documents.clean import displayable
from hga_chat.screen.heat import ReadMap, where
from hga_chat.screen.messages import (
    Answered,
    Failed,
    Loading,
    MemoryReport,
    Note,
    Opened,
    Reading,
    ReadingQuestion,
    Ready,
    Report,
    Streamed,
)
from hga_chat.screen.terminal import LastingOutput
from hga_chat.screen.widgets.block_map import BlockMap
from hga_chat.screen.widgets.documents import DocumentTree
from hga_chat.screen.widgets.memory import MemoryPanel, SpeedLine
from hga_chat.screen.widgets.opening import Opening
from hga_chat.screen.widgets.prompt import Prompt
from hga_chat.screen.widgets.status import StatusLine, TitleLine
from hga_chat.screen.widgets.transcript import Transcript, Turn
from hga_chat.screen.worker import EngineThread, Progress

if TYPE_CHECKING:
    from hga_chat.conversation import Answer, Conversation
    from hga_engine.config import SamplingParams

TICK_S = 1 / 10
"""How often what the engine reported is shown; typing goes on in between."""
PATIENCE_S = 15.0
"""How long to wait for the engine to let go when the screen is closed."""

NIGHT = Theme(
    name="hga-night",
    primary="#4fa3d1",
    secondary="#7aa2f7",
    accent="#f2b84b",
    success="#8fc97a",
    warning="#e8a15a",
    error="#ef6f6c",
    foreground="#d7dde5",
    background="#12161c",
    surface="#1a2028",
    panel="#262e39",
    dark=True,
)


class ChatApp(App[None]):
    """Documents at the left, the transcript in the middle, the prompt below."""

    TITLE = "hga-chat"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (160, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (30, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel"),
        Binding("ctrl+q", "quit", "Quit", priority=True, key_display="^q"),
        Binding("ctrl+c", "interrupt", "Quit", show=False, system=True),
    ]

    def __init__(
        self,
        make_conversation: "Callable[[Progress], Conversation]",
        sampling: "SamplingParams",
    ) -> None:
        super().__init__()
        self.engine = EngineThread(make_conversation, sampling)
        self._read_map = ReadMap(None, 0, 64, 16)
        self._state = "starting"
        self._turn: Turn | None = None
        self._waiting: Turn | None = None
        self._ticked = time.monotonic()

    def compose(self) -> ComposeResult:
        """The layout; the style sheet says what a small screen leaves out."""
        yield TitleLine()
        with Horizontal(id="body"):
            with Vertical(id="side"):
                yield DocumentTree()
                yield BlockMap(id="map")
                yield MemoryPanel()
                yield SpeedLine()
            with Vertical(id="main"), Transcript():
                yield Opening()
        yield StatusLine()
        yield Prompt()
        yield Footer()

    def on_mount(self) -> None:
        """Show the first screen, then let the engine load."""
        self.register_theme(NIGHT)
        self.theme = NIGHT.name
        self.query_one(Prompt).focus()
        self.query_one(Prompt).placeholder = "Ask about the documents"
        self.set_interval(TICK_S, self._tick)
        self.call_after_refresh(self.engine.start)
        self._quit_on_signals()

    def on_unmount(self) -> None:
        """However the screen ends, the engine is told."""
        self.engine.stop()

    def _quit_on_signals(self) -> None:
        """Leave the terminal clean when the process is told to end."""
        assert self._loop is not None
        for name in ("SIGTERM", "SIGHUP"):
            try:
                self._loop.add_signal_handler(getattr(signal, name), self.exit)
            except (AttributeError, NotImplementedError, RuntimeError, ValueError):
                return

    # Reports of the engine

    def _tick(self) -> None:
        now = time.monotonic()
        for block_map in self.query(BlockMap):
            block_map.fade(now - self._ticked)
        self._ticked = now
        for report in self.engine.take():
            self._show(report)

    def _show(self, report: Report) -> None:
        match report:
            case Loading():
                self._set_state("loading")
                self.query_one(Opening).load(report)
            case Opened():
                self._open(report)
            case Reading():
                self._set_state(f"reading {report.fraction:.0%}")
                self.query_one(Opening).read(report)
                self._fill(report.fraction)
            case Ready():
                self.query_one(Opening).ready(report)
                self.query_one(TitleLine).tokens = report.tokens
                self._fill(1.0)
                self._next()
            case ReadingQuestion():
                if self._turn:
                    self._turn.read_question(report.fraction)
            case Streamed():
                self._stream(report)
            case Answered():
                self._complete(report)
            case MemoryReport():
                self.query_one(MemoryPanel).figures = report.figures
                self.query_one(StatusLine).show_memory(report.figures)
            case Note():
                self.query_one(Transcript).note(report.text)
            case Failed():
                self._fail(report)

    def _open(self, report: Opened) -> None:
        title = self.query_one(TitleLine)
        title.model, title.context = report.model_name, report.context
        self._read_map = ReadMap(
            report.layout, report.document_start, report.chunk_size, report.group_size
        )
        self.query_one(Opening).open(report)
        self.query_one(DocumentTree).lay_out(report.layout)
        for block_map in self.query(BlockMap):
            block_map.lay_out(self._read_map.documents)
        self.query_one("#map").display = bool(self._read_map.blocks)
        if report.layout is None:
            self.query_one(Prompt).placeholder = "Ask about anything"
        for answer in report.turns:
            self.query_one(Transcript).add(Turn(answer.question)).complete(answer)
            self.query_one(Prompt).remember(answer.question)

    def _fill(self, fraction: float) -> None:
        for block_map in self.query(BlockMap):
            block_map.fill(fraction)

    def _stream(self, report: Streamed) -> None:
        if self._turn:
            self._turn.stream(report.text)
        self._show_speed(report.tokens_per_s, report.ttft_s, report.sparsity)
        mass = report.mass.tolist()
        self._read_map.add(mass)
        self._light(mass)

    def _light(self, newest: list[float] | None) -> None:
        totals = self._read_map.block_levels(self._read_map.mass)
        now = self._read_map.block_levels(newest) if newest is not None else None
        for block_map in self.query(BlockMap):
            block_map.light(now, totals)
        self.query_one(DocumentTree).show_shares(self._read_map.document_shares())

    def _show_speed(self, tokens_per_s: float, ttft_s: float, sparsity: float) -> None:
        line = self.query_one(SpeedLine)
        line.tokens_per_s, line.ttft_s, line.sparsity = tokens_per_s, ttft_s, sparsity
        self.query_one(StatusLine).show_speed(tokens_per_s)

    def _complete(self, report: Answered) -> None:
        answer: Answer = report.answer
        if self._turn:
            self._turn.complete(answer)
        if answer.finished.completion_tokens:
            finished = answer.finished
            self._show_speed(finished.decode_tokens_per_s, finished.ttft_s, finished.sparsity)
        self.query_one(TitleLine).tokens = report.tokens
        self._next()

    def _fail(self, report: Failed) -> None:
        if report.fatal:
            self.query_one(Opening).fail(report.text)
            self._set_state("failed")
            if self._waiting:
                self._waiting.cancel("never asked")
                self._waiting = None
            return
        if self._turn:
            self._turn.fail(report.text)
        self._next()

    # Questions

    def _next(self) -> None:
        """Ask what waits, or wait for a question."""
        self._turn, self._waiting = self._waiting, None
        if self._turn is None:
            self._set_state("ready")
            return
        self._read_map.clear()
        for block_map in self.query(BlockMap):
            block_map.clear()
        self._set_state("answering")
        self._turn.read_question(0.0)
        self.engine.ask(self._turn.question)

    def on_prompt_sent(self, message: Prompt.Sent) -> None:
        """Ask now, or as soon as the engine is free; one question may wait."""
        if self._state == "failed":
            self.notify("Nothing can be asked. Ctrl+Q leaves.", severity="error")
            return
        if self._waiting:
            self.notify("One question waits already. Esc withdraws it.", severity="warning")
            return
        prompt = self.query_one(Prompt)
        prompt.clear()
        prompt.remember(message.question)
        turn = self.query_one(Transcript).add(Turn(message.question))
        self._waiting = turn
        if self._state == "ready":
            self._next()
        else:
            turn.wait("this answer is complete" if self._turn else "the documents are read")

    def action_cancel(self) -> None:
        """Withdraw the question that waits, or cancel the answer and keep its part."""
        if self._waiting:
            self._waiting.cancel("withdrawn")
            self._waiting = None
        elif self._turn:
            self._set_state("stopping")
            self.engine.cancel()

    def action_interrupt(self) -> None:
        """Cancel while answering; otherwise, or a second time, leave."""
        if self._turn and self._state != "stopping":
            self.action_cancel()
        else:
            self.exit()

    async def action_quit(self) -> None:
        """Leave."""
        self.engine.stop()
        self.exit()

    def action_page_transcript(self, pages: int) -> None:
        """Scroll the transcript without leaving the prompt."""
        transcript = self.query_one(Transcript)
        if pages < 0:
            transcript.scroll_page_up(animate=False)
        else:
            transcript.scroll_page_down(animate=False)

    def on_block_map_pointed(self, message: BlockMap.Pointed) -> None:
        """Name the block under the mouse."""
        found = self._read_map.passage(message.block) if message.block is not None else None
        block_map = self.query_one("#map", BlockMap)
        if found is None:
            block_map.point("")
            return
        name = found.path.rsplit("/", 1)[-1]
        place = where(name, found.start_line, found.end_line, found.page, found.label)
        block_map.point(displayable(place).replace("\n", "␤"))

    def _set_state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self.query_one(TitleLine).state = state


def run_screen(
    make_conversation: "Callable[[Progress], Conversation]", sampling: "SamplingParams"
) -> None:
    """Open the screen and stay until the user leaves; the engine is closed afterwards.

    Args:
        make_conversation: called in the engine's thread with a function that takes what is being
            loaded and which share of it is done; the conversation's documents are read next.
        sampling: how answers are drawn.

    Raises:
        Exception: what kept the model from loading or the documents from being read, after the
            screen has shown it.
        SystemExit: the screen itself failed; the terminal is restored and shows why.
    """
    terminal = sys.__stderr__
    sys.__stderr__ = LastingOutput(terminal)  # type: ignore[assignment, arg-type, misc]
    app = ChatApp(make_conversation, sampling)
    try:
        app.run()
    finally:
        sys.__stderr__ = terminal  # type: ignore[misc]
        app.engine.stop()
        app.engine.join(PATIENCE_S)
    if app.engine.error is not None:
        raise app.engine.error
    if app.return_code:
        raise SystemExit(app.return_code)
