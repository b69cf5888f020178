"""The transcript: an opening card and the turns."""

from typing import TYPE_CHECKING, Literal

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from hga_chat.documents.clean import displayable
from hga_chat.screen.heat import where
from hga_chat.screen.markdown import BlockSplitter, Line, Part, render
from hga_chat.screen.widgets.bars import QUIET, bar
from hga_chat.screen.widgets.markdown_text import MarkdownText
from hga_chat.screen.widgets.memory import speed

if TYPE_CHECKING:
    from hga_chat.conversation import Answer
    from hga_chat.sources import Source

State = Literal["waiting", "reading", "streaming", "done"]


class AnswerText(Vertical):
    """Streamed Markdown. Finished blocks are frozen; only the block under way changes."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self._splitter = BlockSplitter()
        self._parts: list[Part] = []
        self._frozen = MarkdownText("frozen")
        self._tail = MarkdownText("tail")

    def compose(self) -> ComposeResult:
        """Frozen blocks above the one under way."""
        yield self._frozen
        yield self._tail

    def push(self, text: str) -> None:
        """Add streamed text."""
        text = displayable(text)
        self.text += text
        blocks = self._splitter.push(text)
        for block in blocks:
            self._freeze(block.text, block.gap)
        if blocks:
            self._frozen.show(self._parts)
        tail = self._splitter.tail
        parts = render(tail.text, colours=False) if tail.text.strip() else []
        if parts and tail.gap and self._parts:
            parts.insert(0, Line(Content("")))
        self._tail.show(parts)

    def finish(self) -> None:
        """No more text will come."""
        for block in self._splitter.finish():
            self._freeze(block.text, block.gap)
        self._frozen.show(self._parts)
        self._tail.show([])

    def _freeze(self, text: str, gap: bool) -> None:
        if gap and self._parts:
            self._parts.append(Line(Content("")))
        self._parts += render(text)


class Turn(Vertical):
    """A question, its answer, what the answer read, and its figures."""

    def __init__(self, question: str) -> None:
        super().__init__(classes="turn")
        self.question = question
        self.state: State = "waiting"
        self._question = Static(displayable(question), markup=False, classes="question")
        self._answer = AnswerText()
        self._note = Static("", markup=False, classes="note")
        self._sources = Static("", markup=False, classes="sources")

    @property
    def text(self) -> str:
        """The answer so far, as Markdown."""
        return self._answer.text

    @property
    def note(self) -> str:
        """The line under the answer."""
        return str(self._note.content)

    @property
    def sources(self) -> str:
        """The passages listed under the answer."""
        return str(self._sources.content)

    def compose(self) -> ComposeResult:
        """From question to sources."""
        yield self._question
        yield self._answer
        yield self._note
        yield self._sources

    def wait(self, until: str) -> None:
        """Say what the question waits for."""
        self._note.update(Content.styled(f"waiting until {until}", QUIET))

    def read_question(self, fraction: float) -> None:
        """Show how much of the question has been read."""
        self.state = "reading"
        self._note.update(
            Content.assemble(
                ("reading the question  ", QUIET), bar(fraction, 16), f" {fraction:4.0%}"
            )
        )

    def stream(self, text: str) -> None:
        """Add to the answer."""
        if self.state != "streaming":
            self.state = "streaming"
            self._note.update("")
        self._answer.push(text)

    def complete(self, answer: "Answer") -> None:
        """Show the finished answer's figures and sources."""
        if self.state != "streaming" and answer.text:
            self._answer.push(answer.text)
        self.state = "done"
        self._answer.finish()
        self._note.update(_figures(answer))
        if answer.sources:
            self._sources.update(_listing(answer.sources))
            self._sources.add_class("-filled")

    def cancel(self, why: str) -> None:
        """The question was withdrawn before it was read."""
        self.state = "done"
        self._note.update(Content.styled(why, "$text-warning"))

    def fail(self, text: str) -> None:
        """Show what went wrong; what has been answered stays."""
        self.state = "done"
        self._answer.finish()
        self._note.update(Content(displayable(text)))
        self._note.add_class("-error")


def _figures(answer: "Answer") -> Content:
    finished = answer.finished
    if finished.reason == "cancelled" and not finished.completion_tokens:
        return Content.styled("cancelled before the answer began", "$text-warning")
    ends = {"cancelled": "cancelled after ", "length": "cut off after "}
    return Content.assemble(
        (ends.get(finished.reason, ""), "$text-warning"),
        (f"{finished.completion_tokens:,} tokens · ", QUIET),
        speed(finished.decode_tokens_per_s, finished.ttft_s, finished.sparsity),
    )


def _listing(sources: "tuple[Source, ...]") -> Content:
    """A line for each passage: its share, where it stands, how it begins."""
    lines = [Content.styled("read for this answer", QUIET)]
    for source in sources:
        place = where(source.path, source.start_line, source.end_line, source.page, source.label)
        begins = " ".join(source.text.split())[:200]
        lines.append(
            Content.assemble(
                (f"{source.score:>4.0%} ", "bold"),
                bar(source.score, 5),
                "  ",
                (displayable(place).replace("\n", "␤"), "$text-accent"),
                (f"  {displayable(begins)}", QUIET),
            )
        )
    return Content("\n").join(lines)


class Transcript(VerticalScroll):
    """Turns, oldest first; follows its end unless it is scrolled up."""

    def __init__(self) -> None:
        super().__init__(id="transcript")
        self._goes_to_end = False
        self._last_end = 0
        self._noted = ""

    @property
    def turns(self) -> list[Turn]:
        """All turns."""
        return list(self.query_children(Turn).results(Turn))

    def add(self, turn: Turn) -> Turn:
        """Append a turn and go to it."""
        self._goes_to_end = True
        self.mount(turn)
        return turn

    def note(self, text: str) -> None:
        """Append a line that stays in sight; the same again only after something else."""
        if text != self._noted:
            self._noted = text
            line = Static(displayable(text), markup=False, classes="notice")
            self.mount(line)

    # Not Textual's own anchor: it pushes a transcript shorter than the screen to the bottom, and
    # may leave it scrolled beyond its end.

    def watch_virtual_size(self) -> None:
        """The transcript has grown."""
        self._keep_end()

    def on_resize(self) -> None:
        """The screen has changed."""
        self._keep_end()

    def _keep_end(self) -> None:
        """Go to the new end from the old one; after a shrinkage that is where we are already."""
        end = self.max_scroll_y
        if self._goes_to_end or self.scroll_y >= min(self._last_end, end):
            self.scroll_end(animate=False, immediate=True)
            # There is no way to scroll before the scrollbar has been laid out.
            self._goes_to_end = self.scroll_y < end
            if self._goes_to_end:
                self.call_after_refresh(self._keep_end)
        self._last_end = end
