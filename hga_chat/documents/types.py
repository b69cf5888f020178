"""Documents, their sections, and the places that passages come from."""

from dataclasses import dataclass, field

STANDARD_INPUT = "-"
"""The path that stands for standard input."""
HEADING_JOINT = " > "
"""Between the headings that make up a section's label."""


class DocumentError(Exception):
    """Nothing the user asked for can be loaded; the text is one line for the user."""


class UnreadableError(Exception):
    """One source cannot be loaded; the text is the reason for skipping it."""


def failure_reason(error: BaseException) -> str:
    """Return the reason for skipping a source with which a part of the program failed.

    Raises:
        BaseException: It is no failure but an interrupt.
    """
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    if isinstance(error, UnreadableError):
        return str(error)
    if isinstance(error, MemoryError):
        return "takes too much memory"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    return f"cannot be loaded: {cause[:200]}"


@dataclass(frozen=True)
class Section:
    """An addressable piece of a document.

    Joined, the sections of a text file are the whole file with Unix line ends. Lines count from 1
    and ``end_line`` is inclusive. A PDF page has ``page`` instead of lines; a section of a format
    with neither is addressed by its label.
    """

    path: str
    label: str
    text: str
    start_line: int | None
    end_line: int | None
    page: str | None
    lines: tuple[int, ...] | None = None
    """For each line of ``text``, its line in the file; None if they are consecutive."""

    def line_at(self, index: int) -> int | None:
        """Return the file's line of character ``index`` of ``text``; None without lines."""
        if self.start_line is None:
            return None
        row = self.text.count("\n", 0, index)
        return self.lines[row] if self.lines else self.start_line + row


@dataclass(frozen=True)
class Document:
    """A loaded source. ``format`` is the name of its format, such as ``pdf``."""

    path: str
    format: str
    sections: tuple[Section, ...]
    left_out: tuple[str, ...] = field(default=(), compare=False)
    """In a few words each, what of the source is not in the sections, such as ``images (3)``."""
    title: str = field(default="", compare=False)
    """As a book or page gives it itself; empty if it gives none, or once it has been saved."""


@dataclass(frozen=True)
class LoadedFile:
    """The sections of one source, and notes on the parts that could not be loaded."""

    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    format: str | None = None
    """The format's name, where only the whole file reveals it."""
    left_out: tuple[str, ...] = ()
    """In a few words each, what of the source is not in the sections, such as ``images (3)``."""
    title: str = ""
    """As the source gives it itself; empty if it gives none."""


@dataclass(frozen=True)
class Skipped:
    """A source that was not loaded, or the part of one that the reason names."""

    path: str
    reason: str


@dataclass(frozen=True)
class LoadedDocuments:
    """The loaded documents, in order, and the sources that were skipped."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]


def where(
    path: str, start_line: int | None, end_line: int | None, page: str | None, label: str = ""
) -> str:
    """Return a place for people: ``app.py:10-24``, ``a.pdf, page iv``, ``b.epub, Part One``."""
    if path == STANDARD_INPUT:
        path = "standard input"
    if page is not None:
        return f"{path}, page {page}"
    if start_line is None:
        return f"{path}, {label}" if label and label != path else path
    return f"{path}:{start_line}" + (f"-{end_line}" if end_line != start_line else "")


@dataclass(frozen=True)
class Passage:
    """The place and text of a range of tokens.

    ``start_line`` to ``end_line`` (inclusive, from 1) are exactly the lines the tokens touch; a
    PDF has ``page`` instead, and some formats have neither. ``text`` holds the tokens' text and
    the rest of those lines, shortened where a line is very long.
    """

    path: str
    label: str
    start_line: int | None
    end_line: int | None
    page: str | None
    text: str

    @property
    def place(self) -> str:
        """Path with lines, page or label."""
        return where(self.path, self.start_line, self.end_line, self.page, self.label)
