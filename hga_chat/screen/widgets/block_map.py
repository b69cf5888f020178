"""The documents as a map, one cell a block, that lights up where an answer reads."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.visual import RenderOptions

from hga_chat.screen.drawing.bars import QUIET
from hga_chat.screen.drawing.legend import OLD, PENDING, SOURCE, WINDOW, Legend, legend, sign
from hga_chat.screen.drawing.panel import Panel
from hga_chat.screen.drawing.ramp import ramp, step

SCALES = ((4, 4), (2, 2), (2, 1), (1, 1))
"""Cells across a block and half lines down it; where they are as many it looks square."""
HALF_LIFE_S = 0.6
FAINTEST = 0.02


@dataclass(frozen=True)
class _Palette:
    ground: Color
    cursor: Color
    ramps: tuple[list[Color], ...]
    """For documents in turn: the colour of each step of brightness and of each mark."""


class BlockMap(Panel, can_focus=True):
    """What was read lately is brightest and fades to how much was read in the whole answer.

    With more blocks than cells a cell shows the brightest of its blocks. Blocks of sources are
    marked; those that are read whatever is asked are even. While the documents are being read the
    map fills. The last line says what is what.

    Attributes:
        cursor: the block that keys act on, or None.
        is_plain: draw with ASCII.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        Binding("left", "step(-1, 0)", "Move", show=False),
        Binding("right", "step(1, 0)", "Move", show=False),
        Binding("up", "step(0, -1)", "Move", show=False),
        Binding("down", "step(0, 1)", "Move", key_display="← ↑ ↓ →"),
        Binding("home", "jump(0)", "First block", show=False),
        Binding("end", "jump(-1)", "Last block", show=False),
        Binding("f5", "app.map_mode", "View"),
        Binding("l", "app.step_layer(1)", "Layers"),
        Binding("L", "app.step_layer(-1)", "Previous layer", show=False),
    ]

    class Opened(Message):
        """The passage of a block is to be shown."""

        def __init__(self, block: int) -> None:
            super().__init__()
            self.block = block

    class Pointed(Message):
        """The mouse points at a block, or at none."""

        def __init__(self, block: int | None) -> None:
            super().__init__()
            self.block = block

    def __init__(self, *, id: str, lines: int | None = None) -> None:  # noqa: A002 - Textual's word
        """Set up an empty map.

        Args:
            id: of the widget.
            lines: how many lines to take; None: as many as the blocks need, within reason.
        """
        super().__init__(id=id)
        self.cursor: int | None = None
        self.is_plain = False
        self._title, self._place = "Blocks read", ""
        self._head = Content("")
        self._show_title()
        self._lines = lines
        self._legend: Legend = "filling"
        self._documents: Sequence[int] = ()
        self._sources: Collection[int] = ()
        self._window: Sequence[bool] = ()
        self._totals: list[float] = []
        self._glow: list[float] = []
        self._filled = 0.0
        self._steps: list[int] | None = None
        self._palette: _Palette | None = None
        self._cells: tuple[tuple[int, ...], list[list[range]]] | None = None
        self._spans: list[tuple[int, int]] = []

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self._documents)

    @property
    def levels(self) -> list[float]:
        """Brightness of each block as it is shown, 0 to 1."""
        return [
            max(total * OLD, glow) for total, glow in zip(self._totals, self._glow, strict=True)
        ]

    @property
    def filled(self) -> float:
        """Share of the map that has been read in."""
        return self._filled

    def lay_out(self, documents: Sequence[int]) -> None:
        """Begin with as many blocks as ``documents`` has entries: the document of each."""
        self._documents = documents
        self.clear()
        self.refresh(layout=True)

    def entitle(self, title: str, legend: Legend) -> None:
        """Say what the map shows, and what its colours mean."""
        self._title = title
        self._show_title()
        if legend != self._legend:
            self._legend = legend
            self.refresh()

    def point(self, place: str) -> None:
        """Name the place that is pointed at; empty: none."""
        self._place = place
        self._show_title()

    def _show_title(self) -> None:
        place = f"  {self._place}" if self._place else ""
        title = Content.assemble(self._title, (place, QUIET))
        if title != self._head:
            self._head = self.border_title = title

    def fill(self, fraction: float) -> None:
        """Show how much of the documents has been read in."""
        if fraction != self._filled:
            self._filled = fraction
            self.refresh()

    def clear(self) -> None:
        """Forget what was read."""
        self._totals = [0.0] * self.blocks
        self._glow = [0.0] * self.blocks
        self._sources, self._window = (), ()
        self._update()

    def light(
        self,
        now: Sequence[float] | None,
        totals: Sequence[float],
        sources: Collection[int] = (),
        window: Sequence[bool] = (),
    ) -> None:
        """Show what was read.

        Args:
            now: brightness of each block, 0 to 1, for the newest tokens; None: there are none.
            totals: the same in all.
            sources: the blocks of sources.
            window: for each block, whether it is in the window.
        """
        self._totals = list(totals)
        self._sources, self._window = sources, window
        if now is not None:
            self._glow = [max(pair) for pair in zip(self._glow, now, strict=True)]
        self._update()

    def fade(self, seconds: float, *, draw: bool = True) -> None:
        """Let what was read lately fade; ``draw`` where ``light`` does not follow at once."""
        if any(self._glow):
            factor = 0.5 ** (seconds / HALF_LIFE_S)
            self._glow = [glow * factor if glow * factor > FAINTEST else 0.0 for glow in self._glow]
            if draw:
                self._update()

    def _update(self) -> None:
        """Draw the lines in which a block has another brightness."""
        former, self._steps = self._steps, None
        if former is None or not self.is_shown:
            self.refresh()
            return
        steps = self._all_steps()
        self._grid()
        changed = [
            Region(0, y, self.size.width, 1)
            for y, (start, stop) in enumerate(self._spans)
            if former[start:stop] != steps[start:stop]
        ]
        if changed:
            self.refresh(*changed)

    def _all_steps(self) -> list[int]:
        """The colour ramp's step of each block, or what it is marked as."""
        if self._steps is None:
            steps = [step(level) for level in self.levels]
            for block, in_window in enumerate(self._window):
                if in_window:
                    steps[block] = WINDOW
            for block in self._sources:
                steps[block] = SOURCE
            self._steps = steps
        return self._steps

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002
        """Lines for the largest scale that fits a third of the screen, and the legend."""
        if self._lines is not None:
            return self._lines
        most = max(viewport.height // 3, 3)
        if self._is_shaded:
            return min(max(-(-self.blocks // max(width, 1)), 1), most) + 1
        scale = _scale(self.blocks, width, most)
        return min(max(_lines(self.blocks, width, scale), 1), most) + 1

    @property
    def _area(self) -> tuple[int, int]:
        """Width and lines of the blocks."""
        width, height = self.size
        return width, height if self._lines is not None else max(height - 1, 0)

    @property
    def _is_shaded(self) -> bool:
        """Whether signs of different weight stand for brightness, one row of them a line."""
        return self.is_plain or self.app.current_theme.ansi

    def notify_style_update(self) -> None:
        """Forget colours of another theme."""
        super().notify_style_update()
        self._palette = None

    def render_line(self, y: int) -> Strip:
        """Two rows of blocks a line, by half blocks."""
        width = self.size.width
        if not self.blocks or not width:
            return Strip.blank(width, self.rich_style)
        if y >= self._area[1]:
            return self._render_legend()
        rows = self._grid()
        if self._is_shaded:
            return Strip([self._shade(cell) for cell in rows[y]], width)
        across = self._across
        top = self._colours(rows[2 * y][::across])
        bottom = self._colours(rows[2 * y + 1][::across])
        segments, left = [], width
        for colours, run in groupby(zip(top, bottom, strict=True)):
            cells = min(across * len(list(run)), left)
            segments.append(Segment("▀" * cells, _halves(*colours)))
            left -= cells
        return Strip(segments, width)

    def _step(self, cell: range) -> int:
        return max(self._all_steps()[cell.start : cell.stop])

    def _is_at_cursor(self, cell: range) -> bool:
        return self.cursor is not None and self.cursor in cell and self.has_focus

    def _colours(self, cells: Sequence[range]) -> list[Color]:
        palette = self._palette or self._mix()
        steps, documents = self._all_steps(), self._documents
        cursor = self.cursor if self.has_focus else None
        read_in = self._filled * self.blocks
        colours = []
        for cell in cells:
            if not cell:
                colours.append(palette.ground)
            elif cursor is not None and cursor in cell:
                colours.append(palette.cursor)
            else:
                is_read_in = cell.start < read_in
                bright = max(steps[cell.start : cell.stop]) if is_read_in else PENDING
                colours.append(palette.ramps[documents[cell.start] % 2][bright])
        return colours

    def _shade(self, cell: range) -> Segment:
        """A cell as a sign, in one of the terminal's own colours."""
        if not cell or cell.start >= self._filled * self.blocks:
            return Segment(" ", Style.null())
        text, colour = sign(self._step(cell), is_plain=self.is_plain)
        return Segment(text, Style(color=colour.rich_color, reverse=self._is_at_cursor(cell)))

    def _render_legend(self) -> Strip:
        """What signs and colours stand for."""
        palette = self._palette or self._mix()

        def look(level: int) -> tuple[str, Color]:
            if self._is_shaded:
                return sign(level, is_plain=self.is_plain)
            return "■", palette.ramps[1][level]

        content = legend(self._legend, self.size.width, look)
        options = RenderOptions(self._get_style, {}, None, None)
        return content.render_strips(self.size.width, 1, self.visual_style, options)[0]

    def _mix(self) -> "_Palette":
        """Colours of the theme: neighbouring documents differ a little."""
        theme = self.app.theme_variables
        ground = self.background_colors[1]
        ink, hot = Color.parse(theme["foreground"]), Color.parse(theme["accent"])
        dark = self.app.current_theme.dark
        # Behind the ramp in the order of SOURCE, PENDING, WINDOW.
        self._palette = _Palette(
            ground=ground,
            cursor=Color.parse("#ffffff" if dark else "#000000"),
            ramps=tuple(
                [
                    *ramp(ground.blend(ink, share), hot, dark),
                    Color.parse(theme["source"]),
                    ground.blend(ink, 0.05),
                    ground.blend(ink, 0.38),
                ]
                for share in (0.13, 0.20)
            ),
        )
        return self._palette

    def _grid(self) -> list[list[range]]:
        """The blocks behind each cell, by half lines; a cell without blocks has an empty range."""
        key = (self.blocks, self._is_shaded, *self._area)
        if self._cells is None or self._cells[0] != key:
            width, height = self._area
            rows = range(height if self._is_shaded else 2 * height)
            self._cells = (key, [[self._blocks_at(x, row) for x in range(width)] for row in rows])
            a_line = len(rows) // max(height, 1)
            self._spans = [
                _span([cell for row in self._cells[1][begin : begin + a_line] for cell in row])
                for begin in range(0, len(rows), max(a_line, 1))
            ]
        return self._cells[1]

    @property
    def _across(self) -> int:
        """Cells side by side that show the same block."""
        width, height = self._area
        if self._lines == 1 or _lines(self.blocks, width, SCALES[-1]) > height:
            return 1
        return _scale(self.blocks, width, height)[0]

    def _blocks_at(self, x: int, row: int) -> range:
        """The blocks behind a cell; ``row`` counts half lines."""
        width, height = self._area
        if self._is_shaded and self._lines != 1:
            cells = max(width * height, 1)
            if self.blocks <= cells:
                block = row * width + x
                return range(block, block + 1) if block < self.blocks else range(0)
            cell = row * width + x
            return range(cell * self.blocks // cells, (cell + 1) * self.blocks // cells)
        if self._lines == 1 or _lines(self.blocks, width, SCALES[-1]) > height:
            cells = width * (1 if self._lines == 1 else height * 2)
            cell = x if self._lines == 1 else row * width + x
            begin, end = cell * self.blocks // cells, (cell + 1) * self.blocks // cells
            return range(begin, max(end, begin + 1)) if begin < self.blocks else range(0)
        scale = _scale(self.blocks, width, height)
        across = width // scale[0]
        column = x // scale[0]
        block = (row // scale[1]) * across + column
        return range(block, block + 1) if column < across and block < self.blocks else range(0)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Tell which block is pointed at."""
        self.post_message(self.Pointed(self._block_under(event)))

    def on_leave(self) -> None:
        """What the cursor is on is named again."""
        self.post_message(self.Pointed(self.cursor if self.has_focus else None))

    def on_click(self, event: events.Click) -> None:
        """Show the passage of a block."""
        block = self._block_under(event)
        if block is not None:
            self._go(block)
            self.action_open()

    def _block_under(self, event: events.MouseEvent) -> int | None:
        offset = event.get_content_offset(self)
        if offset is None or not self.blocks or offset.y >= self._area[1]:
            return None
        row = offset.y if self._is_shaded else 2 * offset.y
        return next(iter(self._blocks_at(offset.x, row)), None)

    def on_focus(self) -> None:
        """Show the cursor."""
        if self.blocks:
            self._go(self.cursor or 0)

    def on_blur(self) -> None:
        """Hide the cursor."""
        self.post_message(self.Pointed(None))
        self.refresh()

    def action_step(self, x: int, y: int) -> None:
        """Go to the next block in a direction."""
        if not self.blocks:
            return
        here = self.cursor or 0
        rows = self._grid()
        row, column = next(
            (r, c) for r, cells in enumerate(rows) for c, cell in enumerate(cells) if here in cell
        )
        while True:
            row, column = row + y, column + x
            if not (0 <= row < len(rows) and 0 <= column < len(rows[0])):
                self._go(here + x)
                return
            if rows[row][column] and here not in rows[row][column]:
                self._go(rows[row][column].start)
                return

    def action_jump(self, block: int) -> None:
        """Go to the first block, or the last."""
        self._go(block % max(self.blocks, 1))

    def _go(self, block: int) -> None:
        if 0 <= block < self.blocks:
            self.cursor = block
            self.post_message(self.Pointed(block))
            self.refresh()

    def action_open(self) -> None:
        """Show the passage of the block at the cursor."""
        if self.cursor is not None:
            self.post_message(self.Opened(self.cursor))


@lru_cache(maxsize=4096)
def _halves(upper: Color, lower: Color) -> Style:
    return Style(color=upper.rich_color, bgcolor=lower.rich_color)


def _span(cells: Sequence[range]) -> tuple[int, int]:
    """From which to which block some cells show."""
    shown = [cell for cell in cells if cell]
    return min((c.start for c in shown), default=0), max((c.stop for c in shown), default=0)


def _lines(blocks: int, width: int, scale: tuple[int, int]) -> int:
    """Lines that ``blocks`` take at ``scale``."""
    rows = -(-blocks // max(width // scale[0], 1))
    return -(-rows * scale[1] // 2)


def _scale(blocks: int, width: int, height: int) -> tuple[int, int]:
    return next((s for s in SCALES if _lines(blocks, width, s) <= height), SCALES[-1])
