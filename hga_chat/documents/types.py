"""What documents consist of."""

from dataclasses import dataclass


class DocumentError(Exception):
    """Nothing that was asked for can be read; the text is one line for the user."""


class UnreadableError(Exception):
    """One source cannot be read; the text is the reason given for skipping it."""


@dataclass(frozen=True)
class Section:
    """An addressable piece of a document.

    The sections of a text file hold all of it: joined they are the file with Unix line ends.
    Lines count from 1 and ``end_line`` is inclusive; a PDF page has ``page`` instead; formats
    with neither are addressed by the label.
    """

    path: str
    label: str
    text: str
    start_line: int | None
    end_line: int | None
    page: str | None
    lines: tuple[int, ...] | None = None
    """Line of the file in which each line of ``text`` begins, where they do not just count on."""

    def line_at(self, index: int) -> int | None:
        """Return the line of the file for the character ``index`` of ``text``, if it has lines."""
        if self.start_line is None:
            return None
        row = self.text.count("\n", 0, index)
        return self.lines[row] if self.lines else self.start_line + row


@dataclass(frozen=True)
class Document:
    """A loaded source. ``format`` is the name of one of the formats that can be read."""

    path: str
    format: str
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Reading:
    """What a format's reader makes of one source: its sections, and notes on what it lacks."""

    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    format: str | None = None
    """The format's name, where it takes the whole file to tell."""


@dataclass(frozen=True)
class Skipped:
    """A source, or a part of one that the reason names, that was not read."""

    path: str
    reason: str


@dataclass(frozen=True)
class LoadedDocuments:
    """What was read, in reading order, and what was not."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]


def where(
    path: str, start_line: int | None, end_line: int | None, page: str | None, label: str = ""
) -> str:
    """A place for people: ``app.py:10-24``, ``a.pdf, page iv``, ``b.epub, Part One``."""
    if page is not None:
        return f"{path}, page {page}"
    if start_line is None:
        return f"{path}, {label}" if label and label != path else path
    return f"{path}:{start_line}" + (f"-{end_line}" if end_line != start_line else "")


@dataclass(frozen=True)
class Passage:
    """Where a range of tokens stands.

    ``start_line`` to ``end_line`` (inclusive, from 1) are exactly the lines the tokens touch, or
    ``page`` is the page, or the format has neither. ``text`` holds the text of the tokens and
    what surrounds it on these lines, shortened where a line is very long.
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
