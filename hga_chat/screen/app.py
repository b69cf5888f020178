"""The application: puts the parts together, and acts on keys, commands and the mouse."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from hga_chat.display import displayable
from hga_chat.screen import clipboard
from hga_chat.screen.commands import Command, PaletteCommands, is_command, parse
from hga_chat.screen.drawing.themes import NIGHT, SIXTEEN, THEMES, PlainSigns, is_plain, theme_for
from hga_chat.screen.engine.thread import EngineThread, Progress
from hga_chat.screen.flow import Flow
from hga_chat.screen.keys import key_name
from hga_chat.screen.trace.map_view import MODES
from hga_chat.screen.transcript.finder import Finder
from hga_chat.screen.transcript.widget import Transcript
from hga_chat.screen.widgets.block_map import BlockMap
from hga_chat.screen.widgets.documents import DocumentTree
from hga_chat.screen.widgets.help import Help
from hga_chat.screen.widgets.key_line import KeyLine
from hga_chat.screen.widgets.memory import MemoryPanel, SpeedLine, has_device
from hga_chat.screen.widgets.prompt import Prompt
from hga_chat.screen.widgets.status import StatusLine, TitleLine
from hga_chat.screen.widgets.viewer import Viewer

if TYPE_CHECKING:
    from hga_chat.conversation.conversation import Conversation
    from hga_chat.documents import DocumentTokens
    from hga_engine.config import SamplingParams
    from hga_engine.memory.figures import MemoryFigures
from typing import TYPE_CHECKING

TICK_S = 1 / 10
"""How often what the engine reported is shown; typing goes on in between."""
PANELS_S = 1 / 2
"""How often the panels are drawn; more often would slow an answer that is computed on the CPU."""
APART_S = TICK_S / 2
"""Between words and panels: what one frame draws is one rectangle, with all that lies in it."""
NO_LAYERS = "Layers are known of the latest answers only."
TWICE_S = 2.0
"""Within this time a second Ctrl+C leaves."""


class ChatApp(App[None]):
    """Documents at the left, the transcript in the middle, the prompt below."""

    TITLE = "hga-chat"
    CSS_PATH = "app.tcss"
    COMMANDS: ClassVar = {PaletteCommands}
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (160, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (30, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "help", "Help", priority=True),
        Binding("escape", "leave_off", "Stop"),
        Binding("escape", "to_prompt", "Prompt", show=False),
        Binding("ctrl+f", "find", "Find", priority=True),
        Binding("ctrl+o", "sources", "Sources", priority=True),
        Binding("ctrl+r", "retry", "Ask again", priority=True, show=False),
        Binding("f2", "panel('documents')", "Documents", priority=True, show=False),
        Binding("f3", "panel('map')", "Map", priority=True, show=False),
        Binding("f4", "panel('memory')", "Memory", priority=True, show=False),
        Binding("f5", "map_mode", "What the map shows", show=False),
        Binding("f6", "next_theme", "Theme", priority=True, show=False),
        Binding("f7", "edit", "Edit the last question", priority=True, show=False),
        Binding("f8", "copy", "Copy the answer", priority=True, show=False),
        Binding("ctrl+q", "quit", "Quit", priority=True),
        Binding("ctrl+c", "interrupt", "Quit", show=False, system=True),
    ]

    def __init__(
        self,
        make_conversation: "Callable[[Progress], Conversation]",
        sampling: "SamplingParams",
        theme: str = "auto",
        plain: bool | None = None,
    ) -> None:
        """Set up; nothing is loaded before the screen is there.

        Args:
            make_conversation: see ``run_screen``.
            sampling: how answers are drawn.
            theme: a name, or ``auto``.
            plain: draw with ASCII alone; None: if the terminal asks for it.
        """
        self._environment = dict(os.environ)
        chosen = theme_for(theme, self._environment)
        # Where no colours are wanted, the terminal's own are the ones Textual can leave out.
        super().__init__(ansi_color=True if "NO_COLOR" in self._environment else None)
        self._first_theme = SIXTEEN if "NO_COLOR" in self._environment else chosen
        self._is_plain = is_plain(self._environment) if plain is None else plain
        if self._is_plain:
            self._filters.append(PlainSigns())
        self.engine = EngineThread(make_conversation, sampling)
        self.title_line, self.status_line = TitleLine(), StatusLine()
        self.document_tree, self.map = DocumentTree(), BlockMap(id="map")
        self.memory, self.speed = MemoryPanel(), SpeedLine()
        self.transcript, self.prompt = Transcript(), Prompt()
        self.finder = Finder(self.transcript)
        panels = (self.document_tree, self.map, self.memory, self.speed)
        self.side = Vertical(*panels, id="side")
        self.flow = Flow(self, self.engine)
        self._maps = (self.map, self.status_line.map)
        self._panelled = time.monotonic()
        self._figures: MemoryFigures | None = None
        self._interrupted = -TWICE_S

    def compose(self) -> ComposeResult:
        """The layout; the style sheet says what a small screen leaves out."""
        yield self.title_line
        with Horizontal(id="body"):
            yield self.side
            with Vertical(id="main"):
                yield self.transcript
                yield self.finder
        yield self.status_line
        yield self.prompt.offered
        yield self.prompt
        yield KeyLine()

    def on_mount(self) -> None:
        """Show the first screen, then let the engine load."""
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = self._first_theme.name
        for block_map in self._maps:
            block_map.is_plain = self._is_plain
        self.flow.start()
        self.prompt.focus()
        self.prompt.placeholder = "Ask about the documents; / for commands, @ for files"
        self.set_interval(TICK_S, self._tick)
        self.set_timer(APART_S, lambda: self.set_interval(PANELS_S, self._tick_panels))
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

    # What the flow of questions and answers shows

    def _tick(self) -> None:
        for report in self.engine.take():
            self.flow.show(report)
        self.transcript.refine()

    def _tick_panels(self) -> None:
        now = time.monotonic()
        for block_map in self._maps:
            block_map.fade(now - self._panelled, draw=not self.flow.has_progress)
        self._panelled = now
        self.flow.show_progress()
        self._draw_memory()

    def _draw_memory(self) -> None:
        figures, self._figures = self._figures, None
        if figures is not None:
            self.memory.figures = figures
            self.status_line.show_memory(figures)
            self.speed.tell_device(has_gpu=has_device(figures))

    def lay_out(self, layout: "DocumentTokens | None") -> None:
        """Show the documents."""
        self.document_tree.lay_out(layout)
        for block_map in self._maps:
            block_map.lay_out(self.flow.view.grid.documents)
        self.map.set_class(not self.flow.view.grid.blocks, "-empty")
        if layout is None:
            self.prompt.placeholder = "Ask about anything; / for commands"
        else:
            self.prompt.paths = [span.document.path for span in layout.documents]

    def fill(self, fraction: float) -> None:
        """Show how much of the documents has been read in."""
        for block_map in self._maps:
            block_map.fill(fraction)
        self._entitle()

    def redraw_trace(self) -> None:
        """Show what is to be shown with nothing left glowing of what was before."""
        for block_map in self._maps:
            block_map.clear()
        self.show_trace()

    def show_trace(self, newest: Sequence[float] | None = None) -> None:
        """Show what was read; ``newest`` [groups] by the latest tokens glows."""
        view = self.flow.view
        totals = view.levels()
        is_lit = view.mode == "answer" and view.is_whole
        now = view.grid.block_levels(newest) if newest and is_lit else None
        sources, window = view.source_blocks, view.window
        for block_map in self._maps:
            block_map.light(now, totals, sources, window)
        self._entitle()
        self.document_tree.show_shares(view.document_shares())

    def _entitle(self) -> None:
        """Say what the map shows."""
        if self.map.filled < 1:
            self.map.entitle("Reading the documents", "filling")
        else:
            self.map.entitle(self.flow.view.title(), self.flow.view.legend)

    def show_memory(self, figures: "MemoryFigures") -> None:
        """Show where the memory is; while an answer is written, with the panels' next frame."""
        self._figures = figures
        if self.flow.turn is None:
            self._draw_memory()

    def show_speed(self, tokens_per_s: float, ttft_s: float, sparsity: float) -> None:
        """Show how fast the answer comes."""
        self.speed.show(tokens_per_s, ttft_s, sparsity)
        self.status_line.show_speed(tokens_per_s)

    # What is typed

    def on_prompt_sent(self, message: Prompt.Sent) -> None:
        """Carry a command out, or ask."""
        text = message.question
        if is_command(text):
            self._command(text)
            return
        refusal = self.flow.refusal()
        if refusal:
            self.notify(refusal, severity="warning")
            return
        self.prompt.clear()
        self.prompt.remember(text)
        self.flow.send(text)

    def _command(self, text: str) -> None:
        found = parse(text)
        if found is None:
            word = displayable(text.split()[0])
            self.notify(f"There is no command {word}. /help lists them.", severity="warning")
            return
        self.prompt.clear()
        self.carry_out(*found)

    def carry_out(self, command: Command, argument: str = "") -> None:
        """Do what a command says, or say why it cannot be."""
        if "(" in command.action:
            self.call_later(self.run_action, command.action)
            return
        action = getattr(self, f"action_{command.action}")
        self.call_later(action, *([argument] if command.argument else []))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """Whether a key does something now; the footer leaves others out."""
        return is_of_use(self, action)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Colours of this application, before its themes are there."""
        return NIGHT.variables

    def get_key_display(self, binding: Binding) -> str:
        """How a key is called in the footer."""
        return key_name(binding)

    def action_to_prompt(self) -> None:
        """Leave what was chosen, or go to the prompt."""
        self.action_leave_off()

    def action_leave_off(self) -> None:
        """Leave what was chosen, stop the answer, or go to the prompt, whichever is there."""
        if self.transcript.has_focus and self.transcript.leave_token():
            return
        if not self.flow.cancel():
            self.screen.clear_selection()
        self.prompt.focus()

    def action_interrupt(self) -> None:
        """Copy, stop the answer or empty the prompt; a second time leave."""
        now = time.monotonic()
        is_second = now - self._interrupted < TWICE_S
        self._interrupted = now
        if not is_second and self.screen.get_selected_text():
            self._interrupted = -TWICE_S
            self.action_copy()
            self.screen.clear_selection()
        elif is_second:
            self.exit()
        elif self.flow.turn and self.flow.state != "stopping":
            self.flow.cancel()
        else:
            self.prompt.clear()
            self.notify("Ctrl+C again quits.", timeout=TWICE_S)

    async def action_quit(self) -> None:
        """Leave."""
        self.engine.stop()
        self.exit()

    def action_help(self) -> None:
        """List keys and commands."""
        if not isinstance(self.screen, Help):
            self.push_screen(Help())

    def action_find(self, text: str = "") -> None:
        """Find text in the transcript."""
        self.finder.open(text)

    def action_find_next(self, by: int) -> None:
        """Go to another match."""
        self.transcript.find_next(by)

    def action_page_transcript(self, pages: int) -> None:
        """Scroll the transcript without leaving the prompt."""
        if pages < 0:
            self.transcript.scroll_page_up(animate=False)
        else:
            self.transcript.scroll_page_down(animate=False)

    def action_edit(self) -> None:
        """Take the last question back into the prompt."""
        question = self.flow.take_back()
        if question is None:
            self.notify("There is no question to take back now.", severity="warning")
        else:
            self.prompt.fill(question)

    def action_retry(self, _argument: str = "") -> None:
        """Ask the last question again."""
        said = self.flow.retry()
        if said is None:
            self.notify("There is nothing to ask again now.", severity="warning")
        elif said:
            self.notify(said)

    def action_verify(self) -> None:
        """Measure whether the last answer depends on the passages it read."""
        refusal = self.flow.verify()
        if refusal:
            self.notify(refusal, severity="warning")

    def action_clear(self) -> None:
        """Forget all turns."""
        if not self.flow.clear():
            self.notify("Not while something is being read or answered.", severity="warning")

    def action_export(self, name: str = "") -> None:
        """Write the conversation to a file of the current directory."""
        if not self.transcript.turns:
            self.notify("There is nothing to export yet.", severity="warning")
            return
        self.flow.export(Path(name or "conversation.md").expanduser())

    # Copying

    def action_copy(self, what: str = "answer") -> None:
        """Copy the selection, the chosen piece, or an answer, as it was written."""
        selected = self.screen.get_selected_text()
        piece, chosen = self.transcript.cursor, self.transcript.chosen_turn
        turns = self.transcript.turns
        if selected:
            self.copy_text(self.transcript.selected_source() or selected)
        elif what == "block" and piece is not None:
            self.copy_text(piece.source)
        elif chosen is not None and chosen.text:
            self.copy_text(chosen.text)
        elif turns and turns[-1].text:
            self.copy_text(turns[-1].text)
        else:
            self.notify("There is no answer to copy yet.", severity="warning")

    def copy_text(self, text: str) -> None:
        """Copy a text and say what is known about it."""
        self.notify(self._copy(text))

    def copy_to_clipboard(self, text: str) -> None:
        """What Textual's own widgets copy goes the same way."""
        self._copy(text)

    def _copy(self, text: str) -> str:
        self._clipboard = text
        driver = self._driver
        write = driver.write if driver is not None else lambda _: None
        return clipboard.copy(text, write, self._environment)

    # Panels

    def action_panel(self, name: str) -> None:
        """Fold a panel away or show it; on a small screen show it alone beside the transcript."""
        small = self.screen.has_class("-narrow") or self.screen.has_class("-low")
        if not small:
            self.side.toggle_class(f"-no-{name}")
            return
        is_shown = self.side.has_class(f"-only-{name}")
        self.side.remove_class("-only-documents", "-only-map", "-only-memory")
        self.side.set_class(not is_shown, "-asked", f"-only-{name}")
        panel = {"documents": self.document_tree, "map": self.map}.get(name)
        if is_shown or panel is None:
            self.prompt.focus()
        else:
            self.call_after_refresh(panel.focus)

    def action_next_theme(self, name: str = "") -> None:
        """Change the colours."""
        names = [theme.name for theme in THEMES]
        if name and name not in names:
            self.notify(f"Themes: {', '.join(names)}.", severity="warning")
            return
        here = names.index(self.theme) if self.theme in names else -1
        self.theme = name or names[(here + 1) % len(names)]
        self.map.refresh(layout=True)

    # Reading

    def action_map_mode(self) -> None:
        """Show what the answer read, what all answers read, or what was hardly read."""
        if not is_of_use(self, "map_mode"):
            self.notify("There is no answer yet.", severity="warning")
            return
        view = self.flow.view
        view.mode = MODES[(MODES.index(view.mode) + 1) % len(MODES)]
        self.redraw_trace()

    def action_step_layer(self, by: int) -> None:
        """Show what the next layer of the model read, or the one before."""
        view = self.flow.view
        if not view.num_layers:
            self.notify(NO_LAYERS, severity="warning")
            return
        view.step_layer(by)
        self.redraw_trace()

    def action_layer(self, number: str = "") -> None:
        """Show what one layer of the model read; without a number all of them together."""
        view = self.flow.view
        if number and not (number.isdecimal() and 0 < int(number) <= view.num_layers):
            known = f"Layers: 1 to {view.num_layers}." if view.num_layers else NO_LAYERS
            self.notify(known, severity="warning")
            return
        view.show_layer(int(number or 0))
        self.redraw_trace()

    def on_transcript_pointed(self, message: Transcript.Pointed) -> None:
        """Show what an answer or one of its words read."""
        turns = self.transcript.turns
        view = self.flow.view
        view.turn = message.turn or (turns[-1] if turns else None)
        view.token = message.token if message.turn else None
        self.redraw_trace()

    def on_block_map_pointed(self, message: BlockMap.Pointed) -> None:
        """Name the block under the mouse or the cursor."""
        found = None if message.block is None else self.flow.view.grid.passage(message.block)
        if found is None:
            self.map.point("")
            return
        name = found.path.rsplit("/", 1)[-1]
        place = replace(found, path=name).place
        self.map.point(displayable(place).replace("\n", "␤"))

    def on_block_map_opened(self, message: BlockMap.Opened) -> None:
        """Show the passage of a block."""
        grid = self.flow.view.grid
        found = grid.passage(message.block)
        if found is not None:
            self._view([(*grid.tokens_of(message.block), found.place)], 0)

    def on_transcript_source_opened(self, message: Transcript.SourceOpened) -> None:
        """Show a passage an answer read."""
        places = [(s.start_token, s.end_token, s.place) for s in message.turn.sources]
        self._view(places, message.number)

    def on_document_tree_opened(self, message: DocumentTree.Opened) -> None:
        """Show a document from its beginning."""
        if self.flow.layout is not None:
            span = self.flow.layout.documents[message.number]
            self._view([(span.start, span.start, span.document.path)], 0)

    def action_sources(self, number: str = "") -> None:
        """Open a source of the chosen answer, or of the last one."""
        chosen = self.transcript.chosen_turn
        turns = [chosen] if chosen else self.transcript.turns[::-1]
        turn = next((turn for turn in turns if turn.sources), None)
        if turn is None:
            self.notify("No answer has sources yet.", severity="warning")
            return
        at = int(number) - 1 if number.isdecimal() else 0
        places = [(s.start_token, s.end_token, s.place) for s in turn.sources]
        self._view(places, min(max(at, 0), len(places) - 1))

    def _view(self, places: Sequence[tuple[int, int, str]], number: int) -> None:
        layout, view = self.flow.layout, self.flow.view
        if layout is None or isinstance(self.screen, Viewer):
            return
        brightness = view.grid.brightness(view.mass)
        readers = view.readers_text
        self.push_screen(
            Viewer(layout, places, number, brightness, readers, is_plain=self._is_plain)
        )


def is_of_use(app: "ChatApp", action: str) -> bool:
    """Whether an action of the application would do something now."""
    turns = app.transcript.turns
    match action:
        case "leave_off":
            return app.flow.is_stoppable
        case "find":
            return bool(turns)
        case "sources":
            return any(turn.sources for turn in turns)
        case "copy":
            is_selected = bool(app.screen.get_selected_text())
            return is_selected or any(turn.text for turn in turns)
        case "map_mode":
            return any(turn.trace.total for turn in turns)
        case "step_layer":
            return app.flow.view.num_layers > 0
    return True
