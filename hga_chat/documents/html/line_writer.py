"""Writes the lines of rendered HTML: blank lines, indents, list markers, table rows."""

from dataclasses import dataclass, field

_MAX_INDENTS = 8
_MAX_CELL_CHARS = 400


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
    lists: list[int | None] = field(default_factory=list)
    """For each open list, the number of its next item; None if its items have no numbers."""
    quotes: int = 0
    marker: str = ""
    """Prefix of the next line: the marker of a list item."""
    needs_blank: bool = False
    has_blocks: bool = False
    """Whether the lines contain a heading, list, table or preformatted text."""

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

    def write_row(self, cells: list["LineWriter"]) -> None:
        """Add a table row as one line, or cell after cell if cells are long or contain blocks."""
        texts = [" ".join(line.strip() for line in cell.lines if line) for cell in cells]
        if not any(texts):
            return
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


@dataclass
class Row:
    """An open table row."""

    level: int
    """How many writers were open when the row began."""
    cells: list[LineWriter] = field(default_factory=list)
