"""The flow of questions to the engine and of its reports to the screen."""

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from hga_chat.screen.engine.reports import (
    Answered,
    Failed,
    Forgotten,
    Introduced,
    Introducing,
    Loading,
    MemoryReport,
    Note,
    Offered,
    Opened,
    Prefilling,
    PrefillingQuestion,
    Ready,
    Renamed,
    Report,
    Restored,
    Restoring,
    Streamed,
    Thinking,
    Ticked,
    TraceReport,
    Verified,
)
from hga_chat.screen.opening import Opening
from hga_chat.screen.trace.block_grid import BlockGrid
from hga_chat.screen.trace.map_view import MapView
from hga_chat.screen.transcript.turn import Turn
from hga_chat.screen.view import View
from hga_chat.sources import add_mass

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from hga_chat.conversation.answer import Answer
    from hga_chat.documents import DocumentTokens
    from hga_chat.screen.changes import Change
    from hga_chat.screen.engine.thread import EngineThread

LIVELY = 0.8
"""Temperature for asking a question again if the session's is 0."""


class Flow:
    """One question at a time, one that may wait, and the reports of the engine.

    Attributes:
        state: the state of the engine, as the title line shows it.
        layout: the documents, or None.
        given: the paths that the user named, with where they are.
        can_think: whether the model thinks before it answers if it is asked to.
        view: the selected trace.
        turn: the turn being answered, or None.
        suggested: the questions of the first message.
    """

    def __init__(self, screen: View, engine: "EngineThread") -> None:
        self.state = "starting"
        self.layout: DocumentTokens | None = None
        self.given: Mapping[str, Path] = {}
        self.can_think = False
        self.turn: Turn | None = None
        self.suggested: tuple[str, ...] = ()
        self.view = MapView(BlockGrid(None, 0, 64, 16), lambda: screen.transcript.turns)
        self._screen = screen
        self._engine = engine
        self._opening = Opening()
        self._waiting: Turn | None = None
        self._is_introducing = False
        self._temperature: float | None = None
        self._before: list[Turn] | None = None
        """The turns before the last change that ``undo`` takes back."""
        self._streamed: Streamed | None = None
        """The latest report that the panels do not show yet."""
        self._newest: torch.Tensor | None = None
        """[bins] the mass of tokens that the panels do not show yet."""

    @property
    def is_free(self) -> bool:
        """Whether the next question would be asked at once."""
        return self.state == "ready"

    @property
    def is_stoppable(self) -> bool:
        """Whether there is something to cancel."""
        is_busy = self.turn is not None or self.state == "verifying"
        is_busy = is_busy and self.state != "stopping"
        return self._waiting is not None or is_busy or self._is_introducing

    @property
    def has_progress(self) -> bool:
        """Whether the panels lag behind the answer."""
        return self._streamed is not None

    def start(self) -> None:
        """Show the first screen."""
        self._screen.transcript.show_card(self._opening.start())

    # Reports

    def show(self, report: Report) -> None:
        """Show a report of the engine."""
        transcript = self._screen.transcript
        match report:
            case Loading():
                self._set_state("loading")
                transcript.show_card(self._opening.load(report))
            case Opened():
                self._open(report)
            case Prefilling():
                self._set_state(f"reading {report.read:.0%}")
                if self.layout is not None:
                    tokens = len(self.layout)
                    self._screen.title_line.prefill = (round(report.read * tokens), tokens)
                    transcript.show_card(self._opening.prefill(report))
                self._screen.fill(report.read)
            case Ready():
                transcript.show_card(self._opening.ready(report))
                self._screen.title_line.prefill = None
                self._screen.title_line.tokens = report.tokens
                self._screen.fill(1.0)
                self._screen.alert("The documents are read.", report.seconds)
                self._next()
                if self.is_free and self.layout is not None and not transcript.turns:
                    self._engine.introduce()
            case Introducing():
                self._is_introducing = True
                transcript.show_card(self._opening.introduce())
                self._screen.refresh_bindings()
            case Introduced():
                self._is_introducing = False
                self.suggested = report.message.questions if report.message else ()
                transcript.show_card(self._opening.introduced(report.message))
                self._screen.refresh_bindings()
            case PrefillingQuestion():
                if self.turn:
                    self.turn.show_prefill(report.fraction)
                    transcript.changed(self.turn)
            case Thinking():
                if self.turn:
                    self.turn.think(report.text)
                    transcript.changed(self.turn)
            case Streamed():
                self._stream(report)
            case TraceReport():
                self._trace(report)
            case Answered():
                self._complete(report)
            case Verified():
                self._verified(report)
            case Forgotten():
                self._screen.title_line.tokens = report.tokens
            case Restoring():
                self._set_state(f"restoring {report.fraction:.0%}")
            case Restored():
                self._screen.title_line.tokens = report.tokens
                self._next()
            case MemoryReport():
                self._screen.show_memory(report.figures)
            case Renamed():
                self._screen.title_line.session = report.title
            case Offered():
                self._screen.offer(report.offer)
                self._next()
            case Ticked():
                self._screen.show_ticks(report.dropped)
            case Note():
                transcript.note(report.text)
            case Failed():
                self._fail(report)

    def _open(self, report: Opened) -> None:
        screen = self._screen
        screen.title_line.model = report.model_name
        screen.title_line.context = report.context
        screen.title_line.session = report.title
        self.layout, self.given = report.layout, report.given
        self.can_think, self._engine.thinks = report.can_think, report.thinks
        self.view.grid = BlockGrid(
            report.layout, report.document_start, report.chunk_size, report.trace_bin_tokens
        )
        self._opening.open(report)
        screen.lay_out(report.layout)
        screen.show_ticks(report.dropped)
        for answer in report.turns:
            turn = screen.transcript.add(answer.question)
            self._restore(turn, answer)
            screen.transcript.changed(turn)
            screen.prompt.remember(answer.question)
        if report.turns:
            self.view.turn = screen.transcript.turns[-1]
            screen.show_trace()
            screen.refresh_bindings()

    def _restore(self, turn: Turn, answer: "Answer") -> None:
        """Show a saved answer; of its trace only the sources were saved."""
        self.view.restore(turn, answer.sources)
        turn.complete(answer)

    def _stream(self, report: Streamed) -> None:
        if self.turn is None:
            return
        self.turn.stream(report.text)
        self.turn.trace.extend(report.lengths)
        self._screen.transcript.changed(self.turn)
        self._streamed = report

    def show_progress(self) -> None:
        """Show the progress of the answer in the panels."""
        if self._streamed is None:
            return
        streamed, newest = self._streamed, self._newest
        self._streamed, self._newest = None, None
        self._screen.show_speed(streamed.tokens_per_s, streamed.ttft_s, streamed.sparsity)
        if newest is not None and self.view.turn is self.turn:
            self._screen.show_trace(newest.tolist())
        else:
            self._screen.show_trace()

    def _trace(self, report: TraceReport) -> None:
        if self.turn is None:
            return
        self.view.update(self.turn, report)
        newest, self._newest = self._newest, report.newest
        if newest is not None:
            self._newest = add_mass(newest, report.newest)

    def _complete(self, report: Answered) -> None:
        answer, turn = report.answer, self.turn
        if turn:
            turn.complete(answer, has_documents=self.layout is not None, room_note=report.room_note)
            if report.trace is not None:
                self._trace(report.trace)
        self.show_progress()
        if turn:
            self._screen.transcript.changed(turn)
            if self.view.turn is turn:
                self._screen.show_trace()
        finished = answer.finished
        if finished.completion_tokens:
            self._screen.show_speed(
                finished.decode_tokens_per_s, finished.ttft_s, finished.sparsity
            )
        self._screen.title_line.tokens = report.tokens
        if finished.reason != "cancelled":
            decode_s = finished.completion_tokens / max(finished.decode_tokens_per_s, 1e-9)
            self._screen.alert("The answer is complete.", finished.ttft_s + decode_s)
        self.view.trim()
        self._next()

    def _fail(self, report: Failed) -> None:
        transcript = self._screen.transcript
        if report.fatal:
            transcript.show_card(self._opening.fail(report.text), is_error=True)
            self._set_state("failed")
            self._withdraw("never asked")
            return
        if self.turn:
            self.turn.fail(report.text)
            transcript.changed(self.turn)
        self._next()

    def _set_state(self, state: str) -> None:
        if state != self.state:
            is_other = state.split()[0] != self.state.split()[0]
            self.state = state
            self._screen.title_line.state = state
            if is_other:
                self._screen.refresh_bindings()

    # Questions

    def _next(self) -> None:
        """Ask the waiting question, or become ready."""
        self.turn, self._waiting = self._waiting, None
        self._newest = None
        if self.turn is None:
            self._set_state("ready")
            return
        self.view.turn, self.view.token = self.turn, None
        self._screen.redraw_trace()
        self._set_state("answering")
        self.turn.show_prefill(0.0)
        self._screen.transcript.changed(self.turn)
        self._engine.ask(self.turn.question, temperature=self._temperature)
        self._temperature = None

    def suggestion(self, number: str) -> str | None:
        """Return the question of the first message that a number stands for, if it does."""
        counted = {f"{n}": question for n, question in enumerate(self.suggested, 1)}
        return counted.get(number.strip())

    def refusal(self) -> str:
        """Return why no question can be taken now; empty if one can."""
        if self.state == "failed":
            return "The engine has failed; no questions can be asked. Ctrl+Q quits."
        if self._waiting:
            return "A question is already queued. Esc removes it."
        return ""

    def send(self, question: str) -> None:
        """Ask now, or as soon as the engine is ready; one question may wait."""
        turn = self._screen.transcript.add(question)
        self._waiting = turn
        if self.is_free:
            self._next()
        else:
            turn.wait(
                "the documents are read" if self.state.startswith("reading") else "this is done"
            )
            self._screen.transcript.changed(turn)
        self._screen.refresh_bindings()

    def cancel(self) -> bool:
        """Withdraw the waiting question or stop the answer; return whether there was either."""
        if self._withdraw("withdrawn"):
            return True
        if self.turn is None and self.state != "verifying":
            self._engine.stop_introduction()
            return self._is_introducing
        self._set_state("stopping")
        self._engine.cancel()
        return True

    def _withdraw(self, why: str) -> bool:
        turn, self._waiting = self._waiting, None
        if turn is not None:
            turn.cancel(why)
            self._screen.transcript.changed(turn)
            self._screen.refresh_bindings()
        return turn is not None

    def take_back(self) -> str | None:
        """Remove the last turn; return its question, or None if that is not possible now."""
        turns = self._screen.transcript.turns
        if not self.is_free or not turns:
            return None
        turn = turns[-1]
        self._before = list(turns)
        self._engine.forget(int(turn.in_session))
        self._screen.transcript.take_out(turn)
        self._select_last()
        return turn.question

    def _select_last(self) -> None:
        """Show the trace of the last turn after turns have come or gone."""
        turns = self._screen.transcript.turns
        self.view.turn = turns[-1] if turns else None
        self.view.token = None
        self._screen.redraw_trace()
        self._screen.refresh_bindings()

    def retry(self) -> str | None:
        """Ask the last question again; return a remark, or None if that is not possible now."""
        question = self.take_back()
        if question is None:
            return None
        is_fixed = self._engine.sampling.temperature == 0
        self._temperature = LIVELY if is_fixed else None
        self.send(question)
        remark = (
            f"Retried at temperature {LIVELY}; at 0 the answer would not change. "
            if is_fixed
            else ""
        )
        return f"{remark}/undo brings the old answer back."

    def clear(self) -> bool:
        """Remove all turns; return whether that was possible now."""
        if not self.is_free:
            return False
        self._before = list(self._screen.transcript.turns)
        self._engine.forget()
        self._screen.transcript.clear()
        self._select_last()
        return True

    def undo(self) -> bool:
        """Bring back the turns before the last ``take_back``, ``clear`` or ``undo``.

        Returns:
            Whether that was possible now.
        """
        transcript, before = self._screen.transcript, self._before
        if not self.is_free or before is None:
            return False
        self._before = list(transcript.turns)
        pairs = zip(transcript.turns, before, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], pairs))
        for turn in self._before[same:]:
            transcript.take_out(turn)
        for turn in before[same:]:
            transcript.bring_back(turn)
        self._set_state("restoring")
        self._engine.undo()
        self._select_last()
        return True

    def verify(self) -> str:
        """Measure how the last answer depends on its sources; return a refusal, or nothing."""
        turns = [turn for turn in self._screen.transcript.turns if turn.in_session]
        if not self.is_free:
            return "Wait until the engine is ready."
        if not turns or not turns[-1].sources:
            return "The last answer has no sources to verify."
        turns[-1].add_note("scoring the answer without each source …")
        self._screen.transcript.changed(turns[-1])
        self._set_state("verifying")
        self._engine.verify(len(turns) - 1)
        return ""

    def _verified(self, report: Verified) -> None:
        turn = [turn for turn in self._screen.transcript.turns if turn.in_session][report.number]
        if isinstance(report.found, str):
            turn.add_note(report.found)
        else:
            turn.verify(report.found)
        self._screen.transcript.changed(turn)
        self._next()

    def consider(self, change: "Change") -> bool:
        """Find out what a change of the session costs; return whether that is possible now."""
        if not self.is_free:
            return False
        self._set_state("estimating")
        self._engine.consider(change)
        return True

    def export(self, path: Path) -> None:
        """Write the conversation to a file."""
        self._engine.export(path)
