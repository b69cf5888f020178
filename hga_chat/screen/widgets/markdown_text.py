"""One widget for any number of Markdown blocks: hanging indents, and text that can be selected."""

from collections.abc import Sequence
from dataclasses import replace

from rich.segment import Segment
from textual.content import Content
from textual.css.styles import RulesMap
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual
from textual.widgets import Static

from hga_chat.screen.markdown import QUIET_STYLE, Line, Part, Table

_LEAST_COLUMN = 6


class MarkdownVisual(Visual):
    """Lays parts out at any width; every line keeps its place for the selection of text."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._lines: list[Line | tuple[Table, int]] = []
        for part in parts:
            if isinstance(part, Line):
                self._lines.append(part)
            else:
                self._lines += [(part, row) for row in range(len(part.rows))]
        self._heights: dict[int, int] = {}

    def plain_lines(self) -> list[str]:
        """The text without what stands left of it, unwrapped."""
        return [
            line.content.plain
            if isinstance(line, Line)
            else " | ".join(cell.plain for cell in line[0].rows[line[1]])
            for line in self._lines
        ]

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:  # noqa: ARG002
        """As wide as there is room."""
        return container_width

    def get_minimal_width(self, rules: RulesMap) -> int:  # noqa: ARG002
        """A column that still can be read."""
        return 20

    def get_height(self, rules: RulesMap, width: int) -> int:  # noqa: ARG002
        """Lines after wrapping at ``width`` cells."""
        if width not in self._heights:
            self._heights = {width: sum(_height(line, width) for line in self._lines)}
        return self._heights[width]

    def render_strips(
        self, width: int, height: int | None, style: Style, options: RenderOptions
    ) -> list[Strip]:
        """Render at ``width`` cells."""
        strips: list[Strip] = []
        selection = options.selection
        plain = replace(options, selection=None)
        for number, line in enumerate(self._lines):
            span = selection.get_span(number) if selection else None
            selected = options.selection_style if span else None
            if isinstance(line, Line):
                content = line.content
                if span and selected:
                    end = len(content) if span[1] == -1 else span[1]
                    content = content.stylize(selected, span[0], end)
                indent = line.first.cell_length
                body = content.render_strips(_room(width, indent), None, style, plain)
                indents = [line.first, *[line.rest] * (len(body) - 1)]
            else:
                table, row = line
                contents = _row(table, row, _room(width, table.indent.cell_length))
                if selected:
                    contents = [content.stylize(selected) for content in contents]
                body = [
                    strip
                    for content in contents
                    for strip in content.render_strips(width, 1, style, plain)
                ]
                indents = [table.indent] * len(body)
            for strip, left in zip(body, indents, strict=True):
                strips.append(_joined(strip, left, number, style, plain))
        return strips if height is None else strips[:height]


def _room(width: int, indent: int) -> int:
    return max(width - indent, 1)


def _height(line: Line | tuple[Table, int], width: int) -> int:
    if isinstance(line, Line):
        return line.content.get_height({}, _room(width, line.first.cell_length))
    table, row = line
    return len(_row(table, row, _room(width, table.indent.cell_length)))


def _joined(
    strip: Strip, indent: Content, number: int, style: Style, options: RenderOptions
) -> Strip:
    """A wrapped line behind its indent, with its place in the unwrapped text."""
    x = 0
    for segment in strip:
        if segment.style and "offset" in segment.style.meta:
            x = segment.style.meta["offset"][0]
            break
    placed = strip.apply_offsets(x, number)
    if not indent:
        return placed
    left = [
        Segment(text, (style + piece).rich_style)
        for text, piece in indent.render(style, end="", parse_style=options.get_style)
    ]
    return Strip.join([Strip(left, indent.cell_length), placed])


def _row(table: Table, row: int, width: int) -> list[Content]:
    """One row at ``width`` cells, its cells wrapped; the head has a rule below it."""
    columns = _columns(table, width)
    cells = list(table.rows[row])
    cells += [Content("")] * (len(columns) - len(cells))
    if row == 0:
        cells = [cell.stylize("bold") for cell in cells]
    wrapped = [
        cell.wrap(column) or [Content("")] for cell, column in zip(cells, columns, strict=True)
    ]
    border = Content.styled(" │ ", QUIET_STYLE)
    lines = []
    for number in range(max(len(lines_of_cell) for lines_of_cell in wrapped)):
        pieces = []
        for cell_lines, column in zip(wrapped, columns, strict=True):
            piece = cell_lines[number] if number < len(cell_lines) else Content("")
            pieces.append(piece.pad_right(max(column - piece.cell_length, 0)))
        lines.append(border.join(pieces))
    if row == 0:
        rule = "─┼─".join("─" * column for column in columns)
        lines.append(Content.styled(rule, QUIET_STYLE))
    return lines


def _columns(table: Table, width: int) -> list[int]:
    """Column widths: natural ones, the widest narrowed until the row fits."""
    count = max(len(row) for row in table.rows)
    columns = [
        max(max((row[n].cell_length for row in table.rows if n < len(row)), default=1), 1)
        for n in range(count)
    ]
    excess = sum(columns) + 3 * (count - 1) - width
    while excess > 0 and max(columns) > _LEAST_COLUMN:
        columns[columns.index(max(columns))] -= 1
        excess -= 1
    return columns


class MarkdownText(Static):
    """Shows parts of Markdown; text can be selected as it was before wrapping."""

    def __init__(self, classes: str | None = None) -> None:
        self._shown = MarkdownVisual(())
        super().__init__(self._shown, markup=False, classes=classes)

    def show(self, parts: Sequence[Part]) -> None:
        """Replace what is shown; the screen is laid out anew only if the height changes."""
        before, width = self.size.height, self.size.width
        self._shown = MarkdownVisual(parts)
        self.update(self._shown, layout=self._shown.get_height({}, width) != before)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected text, unwrapped."""
        lines = self._shown.plain_lines()
        return (selection.extract("\n".join(lines)), "\n") if lines else None
