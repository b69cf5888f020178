"""A question with its answer, as pieces of the transcript."""

from functools import partial
from typing import TYPE_CHECKING, Literal

from textual.content import Content

from hga_chat.display import displayable
from hga_chat.excerpt import excerpt
from hga_chat.screen.drawing.bars import QUIET, bar
from hga_chat.screen.drawing.figures import count, percent, speed
from hga_chat.screen.trace.answer_trace import AnswerTrace
from hga_chat.screen.transcript.highlight import Colouring
from hga_chat.screen.transcript.markdown import (
    Block,
    BlockSplitter,
    Line,
    open_table,
    plain_fence,
    render,
)
from hga_chat.screen.transcript.pieces import Piece
from hga_chat.screen.transcript.rows import Row, TextRow, rows_of, text_rows

if TYPE_CHECKING:
    from hga_chat.conversation.answer import Answer
    from hga_chat.conversation.verify import Verification
    from hga_chat.sources import Source

State = Literal["waiting", "prefill", "streaming", "done"]

_INDENT = Content(" " * 5)
"""Indent of a source's excerpt."""
NO_SOURCE = "No clear source."
FROM_THE_CONVERSATION = "No clear source: mostly earlier turns."


class Turn:
    """A question, its answer with sources and figures, and the answer's trace.

    Finished blocks of the answer are frozen; only the last block changes.

    Attributes:
        number: counted from 1.
        question: as typed.
        state: progress of the answer.
        text: the answer so far, as Markdown that is safe to show.
        thought: what the model thought before it answered, safe to show.
        sources: the passages listed under the answer.
        trace: what the answer attended to.
        in_session: whether question and answer are in the session.
    """

    def __init__(self, number: int, question: str, colouring: Colouring) -> None:
        self.number = number
        self.question = question
        self.state: State = "waiting"
        self.text = ""
        self.sources: tuple[Source, ...] = ()
        self.trace = AnswerTrace()
        self.in_session = False
        self._splitter = BlockSplitter()
        make = partial(_plain_rows, question)
        self._question = Piece("question", make(), question, gap=True, make=make)
        self.thought = ""
        self._thought: Piece | None = None
        self._is_unfolded = False
        self._blocks: list[Piece] = []
        self._tail: Piece | None = None
        self._end: list[Piece] = []
        self._placed = 0
        self._colouring = colouring

    @property
    def pieces(self) -> list[Piece]:
        """The present pieces, from question to sources."""
        thought = [self._thought] if self._thought else []
        tail = [self._tail] if self._tail else []
        return [self._question, *thought, *self._blocks, *tail, *self._end]

    @property
    def note(self) -> str:
        """Text of the lines between the answer and its sources."""
        found = [piece for piece in self._end if piece.kind in ("note", "error")]
        return "\n".join(row.plain for piece in found for row in piece.rows)

    @property
    def listing(self) -> str:
        """Text of the listed sources."""
        found = [piece for piece in self._end if piece.kind == "source"]
        return "\n".join(row.plain for piece in found for row in piece.rows)

    def wait(self, until: str) -> None:
        """Show what the question waits for."""
        self._end = [self._note(Content.styled(f"waiting until {until}", QUIET))]

    def show_prefill(self, fraction: float) -> None:
        """Show how much of the question is prefilled."""
        self.state = "prefill"
        progress = Content.assemble(
            ("reading the question  ", QUIET), bar(fraction, 16), f" {fraction:4.0%}"
        )
        self._end = [self._note(progress)]

    def think(self, text: str) -> None:
        """Add to the thought."""
        self._begin()
        self._show_thought(self.thought + displayable(text))

    def stream(self, text: str) -> None:
        """Add to the answer."""
        self._begin()
        if text:
            is_first = not self.text
            self._push(text)
            if is_first and self._thought:
                self._show_thought(self.thought)

    def _begin(self) -> None:
        if self.state != "streaming":
            self.state = "streaming"
            self._end = []

    def unfold_thought(self) -> Piece:
        """Show the whole thought, or again one line for it; return its piece."""
        self._is_unfolded = not self._is_unfolded
        return self._show_thought(self.thought)

    def _show_thought(self, thought: str) -> Piece:
        self.thought = thought
        is_going_on = self.state == "streaming" and not self.text
        make = partial(_thought_rows, thought, is_going_on, self._is_unfolded)
        self._thought = Piece("thought", make(), thought, gap=True, make=make)
        return self._thought

    def complete(
        self, answer: "Answer", *, has_documents: bool = False, room_note: str | None = None
    ) -> None:
        """Show the finished answer's figures and sources.

        Args:
            answer: the finished answer.
            has_documents: whether it could have sources.
            room_note: what to say where little room is left in the session.
        """
        if self.state != "streaming" and answer.text:
            self._push(answer.text)
        self.state = "done"
        if answer.thought:
            self._show_thought(displayable(answer.thought))
        self._finish()
        self.sources = answer.sources
        finished = answer.finished
        self.in_session = finished.reason != "cancelled" or finished.completion_tokens > 0
        lines = [_figures(answer)]
        if answer.scope_note:
            lines.append(Content.styled(displayable(answer.scope_note), QUIET))
        if answer.from_conversation:
            lines.append(Content.styled(FROM_THE_CONVERSATION, QUIET))
        elif has_documents and not answer.sources and self.in_session:
            lines.append(Content.styled(NO_SOURCE, QUIET))
        if room_note is not None:
            lines.append(Content.styled(room_note, "$text-warning"))
        self._end = [self._note(Content("\n").join(lines))]
        best = max((source.score for source in self.sources), default=1.0)
        self._end += [
            self._source(number, source, best) for number, source in enumerate(self.sources)
        ]

    def cancel(self, why: str) -> None:
        """Show why the question was not asked."""
        self.state = "done"
        self._end = [self._note(Content.styled(why, "$text-warning"))]

    def fail(self, text: str) -> None:
        """Show an error; the answer so far stays."""
        self.state = "done"
        self._finish()
        self._end = [Piece("error", _plain_rows(text), text, gap=True)]

    def verify(self, found: "Verification") -> None:
        """Show for each source how much the answer depends on it, and a summary below."""
        self._end = [piece for piece in self._end if piece.kind != "note" or piece.gap]
        for effect in found.effects:
            at = self.sources.index(effect.source)
            sign, style = ("●", "$text-success") if effect.counts else ("○", QUIET)
            mark = Content.assemble((f"{sign}{effect.drop:>5.1f} ", style))
            place = next(
                n for n, p in enumerate(self._end) if p.kind == "source" and p.number == at
            )
            best = max(source.score for source in self.sources)
            self._end[place] = self._source(at, effect.source, best, mark)
        self._end.append(self._note(Content.styled(found.as_text(), QUIET), gap=False))

    def add_note(self, text: str) -> None:
        """Add a line at the end, replacing the one added before."""
        self._end = [piece for piece in self._end if piece.kind != "note" or piece.gap]
        self._end.append(self._note(Content.styled(displayable(text), QUIET), gap=False))

    def _push(self, text: str) -> None:
        text = displayable(text)
        self.text += text
        for block in self._splitter.push(text):
            self._freeze(block)
        tail = self._splitter.tail
        if not tail.text.strip():
            self._tail = None
            return
        parts = plain_fence(tail.text) if self._splitter.in_fence else open_table(tail.text)
        if parts is None:
            parts = render(tail.text, colours=False)
        former, self._tail = self._tail, self._piece(tail, rows_of(parts))
        if former is not None and former.begin == self._tail.begin:
            self._tail.take_over(former)

    def _finish(self) -> None:
        for block in self._splitter.finish():
            self._freeze(block)
        self._tail = None

    def _freeze(self, block: Block) -> None:
        code = plain_fence(block.text)
        parts = code or open_table(block.text) or render(block.text)
        piece = self._piece(block, rows_of(parts))
        self._blocks.append(piece)
        self._placed = piece.begin + len(block.text)
        if code is not None:
            self._colouring.queue(piece)

    def _piece(self, block: Block, rows: tuple[Row, ...]) -> Piece:
        found = self.text.find(block.text, self._placed)
        begin = self._placed if found < 0 else found
        gap = block.gap or not self._blocks
        piece = Piece("answer", rows, block.text, gap=gap, begin=begin)
        piece.make = partial(_block_rows, block.text)
        return piece

    def fold(self) -> None:
        """Drop what is only needed for drawing."""
        for piece in self.pieces:
            piece.fold()

    def _note(self, content: Content, *, gap: bool = True) -> Piece:
        return Piece("note", text_rows(content), content.plain, gap=gap)

    def _source(
        self, number: int, source: "Source", best: float, mark: Content | None = None
    ) -> Piece:
        """Return the piece of a source: share and place, with an excerpt below."""
        shown = displayable(excerpt(source.text, self.text))
        make = partial(_source_rows, source, best, shown, mark)
        text = f"{source.place}\n\n{source.text}"
        return Piece("source", make(), text, number=number, make=make)


def _plain_rows(text: str) -> tuple[Row, ...]:
    return text_rows(Content(displayable(text)))


def _thought_rows(thought: str, is_going_on: bool, is_unfolded: bool) -> tuple[Row, ...]:
    sign, what = "▾" if is_unfolded else "▸", "thinking" if is_going_on else "thought"
    head = Content.styled(f"{sign} {what} · {count(len(thought.split()), 'word')}", QUIET)
    lines = [head, Content.styled(thought.strip(), QUIET)] if is_unfolded else [head]
    return text_rows(Content("\n").join(lines))


def _block_rows(text: str) -> tuple[Row, ...]:
    return rows_of(render(text))


def _source_rows(
    source: "Source", best: float, shown: str, mark: Content | None
) -> tuple[Row, ...]:
    line = Content.assemble(
        (f"{percent(source.score):>4} ", "bold"),
        bar(source.score / best if best > 0 else 0.0, 6),
        "  ",
        mark or "",
        (displayable(source.place).replace("\n", "␤"), "$source"),
    )
    below = TextRow(Line(Content.styled(shown, QUIET), _INDENT, _INDENT))
    return (*text_rows(line, wrapped=False), below)


def _figures(answer: "Answer") -> Content:
    finished = answer.finished
    if finished.reason == "cancelled" and not finished.completion_tokens:
        return Content.styled("stopped before the answer began", "$text-warning")
    ends = {"cancelled": "stopped after ", "length": "cut off after "}
    return Content.assemble(
        (ends.get(finished.reason, ""), "$text-warning"),
        (f"{finished.completion_tokens:,} tokens · ", QUIET),
        speed(finished.decode_tokens_per_s, finished.ttft_s, finished.sparsity, in_full=True),
    )
