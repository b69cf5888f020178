"""The card at the top of the transcript: loading, prefill, and a summary of the documents."""

from typing import TYPE_CHECKING

from textual.content import Content
from textual.style import Style

from hga_chat.display import displayable
from hga_chat.documents.left_out import left_out_note
from hga_chat.screen.drawing.bars import QUIET, bar
from hga_chat.screen.drawing.figures import count, duration
from hga_chat.screen.engine.reports import Loading, Opened, Prefilling, Ready

if TYPE_CHECKING:
    from hga_chat.conversation.first_message import FirstMessage
    from hga_chat.documents import Skipped

_BAR = 30
_SHOWN_SKIPPED = 5


class Opening:
    """The texts of the card, in the order in which they are shown."""

    def __init__(self) -> None:
        self._ready = Content("")
        self._documents = 0
        self._document_tokens = 0
        self._left_out: str | None = None
        self._skipped: tuple[Skipped, ...] = ()
        self._notes: tuple[str, ...] = ()

    def start(self) -> Content:
        """Return the text before anything is loaded."""
        return Content.styled("Starting …", QUIET)

    def load(self, report: Loading) -> Content:
        """Return how much of the model is loaded."""
        return _progress(displayable(report.what), report.fraction, "")

    def open(self, report: Opened) -> None:
        """Remember the documents for the texts that follow."""
        self._documents = len(report.layout.documents) if report.layout else 0
        self._document_tokens = len(report.layout.token_ids) if report.layout else 0
        if report.layout is not None:
            self._left_out = left_out_note(span.document for span in report.layout.documents)
        self._skipped = report.skipped
        self._notes = report.notes

    def prefill(self, report: Prefilling) -> Content:
        """Return how much of the documents is prefilled."""
        left = report.seconds * (1 / report.fraction - 1) if report.fraction > 0 else 0.0
        done = report.fraction * report.tokens
        pace = f"{done / report.seconds:,.0f} tok/s · " if report.seconds > 0 else ""
        remaining = f"{pace}{duration(left)} left" if report.fraction > 0.02 else ""
        return _progress(
            f"Reading {count(min(report.tokens, self._document_tokens), 'token')} in "
            f"{count(self._documents, 'document')}",
            report.fraction,
            remaining,
        )

    def introduce(self) -> Content:
        """Return the summary of the documents while the first message is written."""
        waiting = Content.styled("\n\nWriting a summary and three questions …", QUIET)
        return Content.assemble(self._ready, waiting)

    def introduced(self, message: "FirstMessage | None") -> Content:
        """Return the summary of the documents with the first message."""
        if message is None:
            return self._ready
        lines = [self._ready, Content(""), Content(displayable(message.summary)), Content("")]
        for number, question in enumerate(message.questions, 1):
            press = Style.from_meta({"@click": f"app.suggested({number})"})
            line = Content.assemble((f"  {number}  ", "$text-accent"), displayable(question))
            lines.append(line.stylize(press))
        if message.questions:
            lines.append(Content.styled("A number and Enter asks one of them.", QUIET))
        return Content("\n").join(lines)

    def ready(self, report: Ready) -> Content:
        """Return the summary of the documents."""
        self._ready = self._summary(report)
        return self._ready

    def _summary(self, report: Ready) -> Content:
        notes = [Content.styled(displayable(note), QUIET) for note in self._notes]
        if not self._documents:
            first = Content("No documents are open. Ask about anything.")
            how = "'hga-chat ingest PATH…' reads documents. F1 lists keys and commands."
            return Content("\n").join([first, *notes, Content.styled(how, QUIET)])
        how = ""
        if report.prefilled_tokens:
            pace = report.prefilled_tokens / report.seconds if report.seconds > 0 else 0.0
            how = f" · {duration(report.seconds)} · {pace:,.0f} tok/s"
        lines = [
            Content.assemble(
                ("Read " if report.prefilled_tokens else "Open: ", QUIET),
                (count(self._document_tokens, "token"), "bold"),
                (f" in {count(self._documents, 'document')}", ""),
                (how, QUIET),
            )
        ]
        lines += notes
        if self._left_out is not None:
            lines.append(Content.styled(displayable(self._left_out).replace("\n", "␤"), QUIET))
        if self._skipped:
            lines.append(
                Content.styled(f"{count(len(self._skipped), 'file')} skipped:", "$text-warning")
            )
            lines += [
                Content.styled(
                    displayable(f"  {entry.path}: {entry.reason}").replace("\n", "␤"),
                    QUIET,
                )
                for entry in self._skipped[:_SHOWN_SKIPPED]
            ]
            if len(self._skipped) > _SHOWN_SKIPPED:
                more = len(self._skipped) - _SHOWN_SKIPPED
                lines.append(Content.styled(f"  and {more:,} more", QUIET))
        lines.append(
            Content.styled("Ask below; the map shows what each answer reads. F1: help", QUIET)
        )
        return Content("\n").join(lines)

    def fail(self, text: str) -> Content:
        """Return an error after which nothing can be asked."""
        return Content.assemble(
            displayable(text), ("\nNo questions can be asked. Ctrl+Q quits.", QUIET)
        )


def _progress(what: str, fraction: float, remaining: str) -> Content:
    line = Content.assemble(bar(fraction, _BAR), f" {fraction:4.0%}  ", (remaining, QUIET))
    return Content.assemble(what, "\n", line)
