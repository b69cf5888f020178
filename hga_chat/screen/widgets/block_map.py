"""The documents as a map of blocks that lights up where an answer attends."""

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
from hga_chat.screen.widgets.block_cells import BlockCells, lines_for, scale_for

HALF_LIFE_S = 0.6
FAINTEST = 0.02


@dataclass(frozen=True)
class _Palette:
    ground: Color
    cursor: Color
    ramps: tuple[list[Color], ...]
    """For even and odd documents, the colour of each step and of each mark."""


class BlockMap(Panel, can_focus=True):
    """A map on which the newest tokens glow and fade to the level of the whole answer.

    With more blocks than cells, a cell shows the brightest of its blocks. Sources and the window
    have colours of their own. During prefill the map fills. The last line is the legend.

    Attributes:
        cursor: the block that keys act on, or None.
        is_plain: draw in ASCII.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        Binding("left", "step(-1, 0)", "Move", show=False),
        Binding("right", "step(1, 0)", "Move", show=False),
        Binding("up", "step(0, -1)", "Move", show=False),
        Binding("down", "step(0, 1)", "Move", key_display="← ↑ ↓ →"),
        Binding("home,g", "jump(0)", "First block", show=False),
        Binding("end,G", "jump(-1)", "Last block", show=False),
        Binding("e", "open(True)", "Editor", show=False),
        Binding("f5", "app.map_mode", "View"),
        Binding("l", "app.step_layer(1)", "Layers"),
        Binding("L", "app.step_layer(-1)", "Previous layer", show=False),
    ]

    class Opened(Message):
        """The user opened a block, here or in an editor."""

        def __init__(self, block: int, *, in_editor: bool) -> None:
            super().__init__()
            self.block = block
            self.in_editor = in_editor

    class Pointed(Message):
        """The mouse points at a block, or at none."""

        def __init__(self, block: int | None) -> None:
            super().__init__()
            self.block = block

    def __init__(self, *, id: str, lines: int | None = None) -> None:  # noqa: A002 - Textual's word
        """Set up an empty map.

        Args:
            id: id of the widget.
            lines: height; None: as the blocks need, up to a third of the screen.
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
        self._laid_out = BlockCells(0, 0, 0)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self._documents)

    @property
    def levels(self) -> list[float]:
        """Brightness of each block as shown, 0 to 1."""
        return [
            max(total * OLD, glow) for total, glow in zip(self._totals, self._glow, strict=True)
        ]

    @property
    def filled(self) -> float:
        """Share of the map that is prefilled."""
        return self._filled

    def lay_out(self, documents: Sequence[int]) -> None:
        """Lay out blocks, given the number of the document of each."""
        self._documents = documents
        self.clear()
        self.refresh(layout=True)

    def entitle(self, title: str, legend: Legend) -> None:
        """Set title and legend."""
        self._title = title
        self._show_title()
        if legend != self._legend:
            self._legend = legend
            self.refresh()

    def point(self, place: str) -> None:
        """Show the name of the place that is pointed at, if any."""
        self._place = place
        self._show_title()

    def _show_title(self) -> None:
        place = f"  {self._place}" if self._place else ""
        title = Content.assemble(self._title, (place, QUIET))
        if title != self._head:
            self._head = self.border_title = title

    def fill(self, fraction: float) -> None:
        """Show how much of the documents is prefilled."""
        if fraction != self._filled:
            self._filled = fraction
            self.refresh()

    def clear(self) -> None:
        """Make all blocks dark."""
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
        """Show brightness and marks.

        Args:
            now: brightness of each block, 0 to 1, for the newest tokens; None: no new tokens.
            totals: brightness of each block, 0 to 1, for the whole answer.
            sources: blocks that hold sources.
            window: for each block, whether it is in the window.
        """
        self._totals = list(totals)
        self._sources, self._window = sources, window
        if now is not None:
            self._glow = [max(pair) for pair in zip(self._glow, now, strict=True)]
        self._update()

    def fade(self, seconds: float, *, draw: bool = True) -> None:
        """Let the newest tokens fade; ``draw`` unless ``light`` follows at once."""
        if any(self._glow):
            factor = 0.5 ** (seconds / HALF_LIFE_S)
            self._glow = [glow * factor if glow * factor > FAINTEST else 0.0 for glow in self._glow]
            if draw:
                self._update()

    def _update(self) -> None:
        """Draw the lines in which a block has changed."""
        former, self._steps = self._steps, None
        if former is None or not self.is_shown:
            self.refresh()
            return
        steps = self._all_steps()
        changed = [
            Region(0, y, self.size.width, 1)
            for y, (start, stop) in enumerate(self._cells.spans)
            if former[start:stop] != steps[start:stop]
        ]
        if changed:
            self.refresh(*changed)

    def _all_steps(self) -> list[int]:
        """Return the step or mark of each block."""
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
        """Return the lines of the largest scale that fits a third of the screen, and the legend."""
        if self._lines is not None:
            return self._lines
        most = max(viewport.height // 3, 3)
        if self._is_shaded:
            return min(max(-(-self.blocks // max(width, 1)), 1), most) + 1
        scale = scale_for(self.blocks, width, most)
        return min(max(lines_for(self.blocks, width, scale), 1), most) + 1

    @property
    def _area(self) -> tuple[int, int]:
        """Width and height of the map without the legend."""
        width, height = self.size
        return width, height if self._lines is not None else max(height - 1, 0)

    @property
    def _is_shaded(self) -> bool:
        """Whether signs stand for brightness."""
        return self.is_plain or self.app.current_theme.ansi

    def notify_style_update(self) -> None:
        """Drop the colours of another theme."""
        super().notify_style_update()
        self._palette = None

    def render_line(self, y: int) -> Strip:
        """Return a line: two rows in half blocks, or a row of signs, or the legend."""
        width = self.size.width
        if not self.blocks or not width:
            return Strip.blank(width, self.rich_style)
        if y >= self._area[1]:
            return self._render_legend()
        cells = self._cells
        rows, across = cells.rows, cells.across
        if cells.is_shaded:
            return Strip([self._shade(cell) for cell in rows[y]], width)
        top = self._colours(rows[2 * y][::across])
        bottom = self._colours(rows[2 * y + 1][::across])
        segments, left = [], width
        for colours, run in groupby(zip(top, bottom, strict=True)):
            count = min(across * len(list(run)), left)
            segments.append(Segment("▀" * count, _halves(*colours)))
            left -= count
        return Strip(segments, width)

    def _step(self, cell: range) -> int:
        return max(self._all_steps()[cell.start : cell.stop])

    def _is_at_cursor(self, cell: range) -> bool:
        return self.cursor is not None and self.cursor in cell and self.has_focus

    def _colours(self, cells: Sequence[range]) -> list[Color]:
        palette = self._palette or self._mix()
        steps, documents = self._all_steps(), self._documents
        cursor = self.cursor if self.has_focus else None
        filled = self._filled * self.blocks
        colours = []
        for cell in cells:
            if not cell:
                colours.append(palette.ground)
            elif cursor is not None and cursor in cell:
                colours.append(palette.cursor)
            else:
                is_filled = cell.start < filled
                bright = max(steps[cell.start : cell.stop]) if is_filled else PENDING
                colours.append(palette.ramps[documents[cell.start] % 2][bright])
        return colours

    def _shade(self, cell: range) -> Segment:
        """Return a cell as a sign in one of the terminal's own colours."""
        if not cell or cell.start >= self._filled * self.blocks:
            return Segment(" ", Style.null())
        text, colour = sign(self._step(cell), is_plain=self.is_plain)
        return Segment(text, Style(color=colour.rich_color, reverse=self._is_at_cursor(cell)))

    def _render_legend(self) -> Strip:
        """Return the legend."""
        palette = self._palette or self._mix()

        def look(level: int) -> tuple[str, Color]:
            if self._is_shaded:
                return sign(level, is_plain=self.is_plain)
            return "■", palette.ramps[1][level]

        content = legend(self._legend, self.size.width, look)
        options = RenderOptions(self._get_style, {}, None, None)
        return content.render_strips(self.size.width, 1, self.visual_style, options)[0]

    def _mix(self) -> "_Palette":
        """Return the colours of the theme; neighbouring documents differ slightly."""
        theme = self.app.theme_variables
        ground = self.background_colors[1]
        ink, hot = Color.parse(theme["foreground"]), Color.parse(theme["accent"])
        dark = self.app.current_theme.dark
        # After the ramp come SOURCE, PENDING and WINDOW.
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

    @property
    def _cells(self) -> BlockCells:
        """The arrangement of the blocks at the present size."""
        width, height = self._area
        found = BlockCells(self.blocks, width, height, self._is_shaded, self._lines == 1)
        if found != self._laid_out:
            self._laid_out = found
        return self._laid_out

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Post the block under the mouse."""
        self.post_message(self.Pointed(self._block_under(event)))

    def on_leave(self) -> None:
        """Post the block at the cursor again."""
        self.post_message(self.Pointed(self.cursor if self.has_focus else None))

    def on_click(self, event: events.Click) -> None:
        """Open a block."""
        block = self._block_under(event)
        if block is not None:
            self._go(block)
            self.action_open()

    def _block_under(self, event: events.MouseEvent) -> int | None:
        offset = event.get_content_offset(self)
        if offset is None or not self.blocks or offset.y >= self._area[1]:
            return None
        row = offset.y if self._is_shaded else 2 * offset.y
        return next(iter(self._cells.blocks_at(offset.x, row)), None)

    def on_focus(self) -> None:
        """Show the cursor."""
        if self.blocks:
            self._go(self.cursor or 0)

    def on_blur(self) -> None:
        """Hide the cursor."""
        self.post_message(self.Pointed(None))
        self.refresh()

    def action_step(self, x: int, y: int) -> None:
        """Move the cursor in a direction."""
        if not self.blocks:
            return
        here = self.cursor or 0
        rows = self._cells.rows
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
        """Move the cursor to a block; -1 is the last."""
        self._go(block % max(self.blocks, 1))

    def _go(self, block: int) -> None:
        if 0 <= block < self.blocks:
            self.cursor = block
            self.post_message(self.Pointed(block))
            self.refresh()

    def action_open(self, in_editor: bool = False) -> None:
        """Open the block at the cursor."""
        if self.cursor is not None:
            self.post_message(self.Opened(self.cursor, in_editor=in_editor))


@lru_cache(maxsize=4096)
def _halves(upper: Color, lower: Color) -> Style:
    return Style(color=upper.rich_color, bgcolor=lower.rich_color)
