"""Writes the lines of rendered HTML: blank lines, indents, list markers, table rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hga_chat.documents.plain.numerals import html_numeral

_MAX_INDENTS = 8
_MAX_CELL_CHARS = 400


@dataclass
class Numbering:
    """The state of an open list."""

    kind: str | None
    """``1``, ``a``, ``A``, ``i`` or ``I``; None if its items have no numbers."""
    number: int = 1
    """The number of its next item."""
    step: int = 1

    def next(self, value: int | None, kind: str | None) -> str:
        """Return the marker of the next item, which may have a number and kind of its own."""
        if self.kind is None:
            return "- "
        number = self.number if value is None else value
        self.number = number + self.step
        return f"{html_numeral(number, kind or self.kind)}. "


@dataclass
class LineWriter:
    """The lines of a page, or of one table cell."""

    lines: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """For each line, its line in the source."""
    headings: list[tuple[int, int, str]] = field(default_factory=list)
    """Line index, level and title of each heading."""
    anchors: dict[str, int] = field(default_factory=dict)
    """Line index of each anchor, by name."""
    lists: list[Numbering] = field(default_factory=list)
    quotes: int = 0
    marker: str = ""
    """Prefix of the next line: the marker of a list item."""
    needs_blank: bool = False
    has_blocks: bool = False
    """Whether the lines contain a heading, table or preformatted text."""

    def write(self, text: str, number: int) -> None:
        """Add a line from line ``number`` of the source, after a blank line if one is due."""
        if self.needs_blank and self.lines and self.lines[-1]:
            self.lines.append("")
            self.numbers.append(self.numbers[-1])
        self.needs_blank = False
        depth = min(max(len(self.lists) - bool(self.marker), 0), _MAX_INDENTS)
        prefix = "> " * min(self.quotes, _MAX_INDENTS) + "  " * depth + self.marker
        self.marker = ""
        self.lines.append((prefix + text).rstrip())
        self.numbers.append(number)

    def text(self) -> str:
        """Return the lines in one."""
        return " ".join(line.strip() for line in self.lines if line)

    def write_row(self, columns: Sequence["LineWriter | str"]) -> None:
        """Add a table row as one line, or cell after cell if cells are long or contain blocks."""
        cells = [column for column in columns if isinstance(column, LineWriter)]
        if not any(cell.lines for cell in cells):
            return
        texts = [c.text() if isinstance(c, LineWriter) else c for c in columns]
        if not any(cell.has_blocks for cell in cells) and max(map(len, texts)) <= _MAX_CELL_CHARS:
            number = next(cell.numbers[0] for cell in cells if cell.lines)
            self.write(" | ".join(texts).strip(), number)
            for cell in cells:
                self.anchors.update(dict.fromkeys(cell.anchors, len(self.lines) - 1))
            return
        self.has_blocks = True
        for cell in cells:
            offset = len(self.lines)
            self.lines += cell.lines
            self.numbers += cell.numbers
            self.headings += ((i + offset, level, title) for i, level, title in cell.headings)
            self.anchors.update((name, index + offset) for name, index in cell.anchors.items())
