"""Blocks of text on lines, as they come out of HTML."""

from dataclasses import dataclass, field

_MAX_INDENTS = 8
_MAX_CELL_CHARS = 400


@dataclass
class Flow:
    """A run of blocks: the page, or a cell of a table."""

    lines: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """Line of the source in which each line begins."""
    headings: list[tuple[int, int, str]] = field(default_factory=list)
    """Index of the line, level and title."""
    anchors: dict[str, int] = field(default_factory=dict)
    """Index of the line that each name stands for."""
    lists: list[int | None] = field(default_factory=list)
    """For each list around, the number of its next item; None where items have no numbers."""
    quotes: int = 0
    marker: str = ""
    """What begins the next line: the sign of a list item."""
    wants_blank: bool = False
    has_blocks: bool = False
    """Whether there is more in it than a line can hold."""

    def write(self, text: str, number: int) -> None:
        """Add a line that begins in line ``number`` of the source, after a blank one if due."""
        if self.wants_blank and self.lines and self.lines[-1]:
            self.lines.append("")
            self.numbers.append(self.numbers[-1])
        self.wants_blank = False
        depth = min(max(len(self.lists) - bool(self.marker), 0), _MAX_INDENTS)
        prefix = "> " * min(self.quotes, _MAX_INDENTS) + "  " * depth + self.marker
        self.marker = ""
        self.lines.append((prefix + text).rstrip())
        self.numbers.append(number)

    def write_row(self, cells: list["Flow"]) -> None:
        """Add a row of a table in a line; cells with blocks in them one after another."""
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
    """A row of a table that is open."""

    level: int
    """How many flows are around it."""
    cells: list[Flow] = field(default_factory=list)
