"""Rows of the transcript: lines of text and table rows, before and after wrapping."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from rich.cells import cell_len
from rich.segment import Segment
from textual.content import Content
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions

from hga_chat.screen.transcript.markdown import QUIET_STYLE, Line, Part, Table

_MOST_OF_A_WORD = 20
"""Cells above which a word in a table may be broken."""
_LISTED_RULE = 24
"""Cells of the rule between rows whose cells stand below each other."""

Mark = tuple[int, int, str | Style]
"""First character, one past the last (-1: the end) and style of a mark in a row."""


@dataclass(frozen=True)
class Look:
    """The styles that rows are drawn with."""

    style: Style
    get_style: Callable[[str | Style], Style]

    def options(self) -> RenderOptions:
        """Return the options for Textual's rendering."""
        return RenderOptions(self.get_style, {}, None, None)


class Row(Protocol):
    """A line of text, which may take several lines of the screen."""

    @property
    def plain(self) -> str:
        """The text, unwrapped, without what is left of it."""

    def height(self, width: int) -> int:
        """Return the number of lines at ``width`` cells."""

    def strips(self, width: int, look: Look, marks: Sequence[Mark] = ()) -> list[Strip]:
        """Return the lines; the offset's x of a character is its place in ``plain``."""

    def looks_like(self, other: "Row", width: int) -> bool:
        """Return whether another row is drawn the same at ``width`` cells."""


@dataclass(frozen=True)
class TextRow:
    """A line of text with its bullets and bars."""

    line: Line
    is_wrapped: bool = True
    """Otherwise the line is cut off at the edge of the screen."""

    @property
    def plain(self) -> str:
        """The text."""
        return self.line.content.plain

    def height(self, width: int) -> int:
        """Return the number of lines at ``width`` cells."""
        room = _room(width, self.line.first.cell_length)
        if not self.is_wrapped or self.line.content.cell_length <= room:
            return 1
        return self.line.content.get_height({}, room)

    def strips(self, width: int, look: Look, marks: Sequence[Mark] = ()) -> list[Strip]:
        """Return the lines at ``width`` cells."""
        content = self.line.content
        for start, end, style in marks:
            content = content.stylize(style, start, len(content) if end == -1 else end)
        room = _room(width, self.line.first.cell_length)
        if not self.is_wrapped:
            content = content.truncate(room, ellipsis=True)
        body = content.render_strips(room, None, look.style, look.options())
        indents = [self.line.first, *[self.line.rest] * (len(body) - 1)]
        return [_behind(indent, strip, look) for indent, strip in zip(indents, body, strict=True)]

    def looks_like(self, other: Row, width: int) -> bool:  # noqa: ARG002
        """Return whether another row has the same text, styles and indent."""
        return self == other


@dataclass(frozen=True)
class TableGrid:
    """A table with the columns of its last layout."""

    table: Table
    _columns: dict[int, list[int]] = field(default_factory=dict, compare=False)

    def columns(self, width: int) -> list[int]:
        """Return the column widths: natural ones, the widest narrowed until a row fits.

        Empty if none does; the cells of a row then stand below each other.
        """
        if width not in self._columns:
            self._columns.clear()
            self._columns[width] = _fit(self.table, width)
        return self._columns[width]


@dataclass(frozen=True)
class TableRow:
    """A row of a table; the head has a rule below.

    Where the columns do not fit side by side, a row is a list of its cells, each after the head of
    its column, and the head has no line of its own.
    """

    grid: TableGrid
    number: int

    @property
    def plain(self) -> str:
        """The cells side by side."""
        return " | ".join(cell.plain for cell in self.grid.table.rows[self.number])

    def height(self, width: int) -> int:
        """Return the number of lines at ``width`` cells."""
        cells = self.grid.table.rows[self.number]
        columns = self._columns(width)
        if not columns:
            return len(self._listed(width))
        lines = [
            1 if cell.cell_length <= column else len(cell.wrap(column))
            for cell, column in zip(cells, columns, strict=False)
        ]
        return max(lines, default=1) + (self.number == 0)

    def strips(self, width: int, look: Look, marks: Sequence[Mark] = ()) -> list[Strip]:
        """Return the lines at ``width`` cells; a mark covers the whole row."""
        indent = self.grid.table.indent
        columns = self._columns(width)
        lines = self._lines(columns) if columns else self._listed(width)
        strips = []
        for content in lines:
            for _, _, style in marks:
                content = content.stylize(style)
            (strip,) = content.render_strips(width, 1, look.style, look.options())
            strips.append(_behind(indent, strip, look))
        return strips

    def looks_like(self, other: Row, width: int) -> bool:
        """Return whether another row has the same cells in the same columns."""
        return (
            isinstance(other, TableRow)
            and self.number == other.number
            and self.grid.table.rows[self.number] == other.grid.table.rows[self.number]
            and self.grid.table.indent == other.grid.table.indent
            and self._columns(width) == other._columns(width)
        )

    def _columns(self, width: int) -> list[int]:
        return self.grid.columns(_room(width, self.grid.table.indent.cell_length))

    def _listed(self, width: int) -> list[Content]:
        """Return the cells below each other."""
        table = self.grid.table
        if self.number == 0:
            return []
        room = _room(width, table.indent.cell_length)
        lines: list[Content] = []
        if self.number > 1:
            lines.append(Content.styled("─" * min(room, _LISTED_RULE), QUIET_STYLE))
        for head, cell in zip(table.rows[0], table.rows[self.number], strict=False):
            first, *rest = Content.assemble(head.stylize("bold"), "  ", cell).wrap(max(room, 3))
            lines += [first, *(line.pad_left(2) for line in rest)]
        return lines

    def _lines(self, columns: list[int]) -> list[Content]:
        table = self.grid.table
        cells = list(table.rows[self.number])
        cells += [Content("")] * (len(columns) - len(cells))
        if self.number == 0:
            cells = [cell.stylize("bold") for cell in cells]
        wrapped = [
            cell.wrap(column) or [Content("")] for cell, column in zip(cells, columns, strict=True)
        ]
        border = Content.styled(" │ ", QUIET_STYLE)
        is_right = (*table.is_right, *[False] * len(columns))
        lines = []
        for number in range(max(len(of_cell) for of_cell in wrapped)):
            pieces = [
                _padded(of_cell[number] if number < len(of_cell) else Content(""), column, right)
                for of_cell, column, right in zip(wrapped, columns, is_right, strict=False)
            ]
            lines.append(border.join(pieces))
        if self.number == 0:
            rule = "─┼─".join("─" * column for column in columns)
            lines.append(Content.styled(rule, QUIET_STYLE))
        return lines


def rows_of(parts: Sequence[Part]) -> tuple[Row, ...]:
    """Return parts of Markdown as rows."""
    rows: list[Row] = []
    for part in parts:
        if isinstance(part, Line):
            rows.append(TextRow(part))
        else:
            grid = TableGrid(part)
            rows += [TableRow(grid, number) for number in range(len(part.rows))]
    return tuple(rows)


def text_rows(content: Content, *, wrapped: bool = True) -> tuple[Row, ...]:
    """Return styled text as rows, one for each line."""
    return tuple(TextRow(Line(line), wrapped) for line in content.split("\n", allow_blank=True))


def _padded(cell: Content, width: int, is_right: bool) -> Content:
    free = max(width - cell.cell_length, 0)
    return cell.pad_left(free) if is_right else cell.pad_right(free)


def _room(width: int, indent: int) -> int:
    return max(width - indent, 1)


def _behind(indent: Content, strip: Strip, look: Look) -> Strip:
    """Return a line with its indent."""
    if not indent:
        return strip
    left = [
        Segment(text, (look.style + piece).rich_style)
        for text, piece in indent.render(look.style, end="", parse_style=look.get_style)
    ]
    return Strip.join([Strip(left, indent.cell_length), strip])


def _fit(table: Table, width: int) -> list[int]:
    """Return widths in which a row fits and no short word is broken; empty if there are none."""
    count = max(len(row) for row in table.rows)
    cells = [[row[n] for row in table.rows if n < len(row)] for n in range(count)]
    columns = [max([cell.cell_length for cell in of_column] + [1]) for of_column in cells]
    excess = sum(columns) + 3 * (count - 1) - width
    if excess <= 0:
        return columns
    least = [
        min(max([_longest_word(cell.plain) for cell in of_column] + [1]), _MOST_OF_A_WORD)
        for of_column in cells
    ]
    for _ in range(excess):
        wide = [n for n in range(count) if columns[n] > least[n]]
        if not wide:
            return []
        columns[max(wide, key=columns.__getitem__)] -= 1
    return columns


@lru_cache(maxsize=1024)
def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=1)
