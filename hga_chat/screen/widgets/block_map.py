"""The documents as a map, one cell a block, that lights up where an answer reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.color import Color
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from hga_chat.screen.heat import ramp, step
from hga_chat.screen.widgets.bars import QUIET

SCALES = (4, 2, 1)
"""Cells across a block; a block is half as many lines high, so it looks square."""
OLD = 0.72
"""Brightness of what was read before, against 1 for what is being read now."""
HALF_LIFE_S = 0.6
FAINTEST = 0.02


@dataclass(frozen=True)
class _Palette:
    ground: Color
    unread: Color
    ramps: tuple[list[Color], ...]


class BlockMap(Widget):
    """What was read lately is brightest and fades to how much was read in the whole answer.

    With more blocks than cells a cell shows the brightest of its blocks. While the documents are
    being read the map fills.
    """

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
        self.point("")
        self._lines = lines
        self._documents: Sequence[int] = ()
        self._totals: list[float] = []
        self._glow: list[float] = []
        self._filled = 0.0
        self._steps: list[int] | None = None
        self._palette: _Palette | None = None
        self._cells: tuple[tuple[int, ...], list[list[range]]] | None = None

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

    def point(self, place: str) -> None:
        """Name the place that is pointed at; empty: none."""
        self.border_title = Content.assemble("Blocks read", (f"  {place}" if place else "", QUIET))

    def fill(self, fraction: float) -> None:
        """Show how much of the documents has been read in."""
        if fraction != self._filled:
            self._filled = fraction
            self.refresh()

    def clear(self) -> None:
        """Forget what was read."""
        self._totals = [0.0] * self.blocks
        self._glow = [0.0] * self.blocks
        self._update()

    def light(self, now: Sequence[float] | None, totals: Sequence[float]) -> None:
        """Show how bright blocks are, 0 to 1: ``now`` for the newest tokens, then in all."""
        self._totals = list(totals)
        if now is not None:
            self._glow = [max(pair) for pair in zip(self._glow, now, strict=True)]
        self._update()

    def fade(self, seconds: float) -> None:
        """Let what was read lately fade."""
        if any(self._glow):
            factor = 0.5 ** (seconds / HALF_LIFE_S)
            self._glow = [glow * factor if glow * factor > FAINTEST else 0.0 for glow in self._glow]
            self._update()

    def _update(self) -> None:
        self._steps = None
        self.refresh()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002
        """Lines for the largest scale that fits two fifths of the screen."""
        if self._lines is not None:
            return self._lines
        most = max(viewport.height * 2 // 5, 3)
        scale = _scale(self.blocks, width, most)
        return min(max(_lines(self.blocks, width, scale), 1), most)

    def notify_style_update(self) -> None:
        """Forget colours of another theme."""
        super().notify_style_update()
        self._palette = None

    def render_line(self, y: int) -> Strip:
        """Two rows of blocks a line, by half blocks."""
        width = self.size.width
        if not self.blocks or not width:
            return Strip.blank(width, self.rich_style)
        rows = self._grid()
        top = [self._colour(cell) for cell in rows[2 * y]]
        bottom = [self._colour(cell) for cell in rows[2 * y + 1]]
        segments = [
            Segment("▀" * len(list(run)), Style(color=upper.rich_color, bgcolor=lower.rich_color))
            for (upper, lower), run in groupby(zip(top, bottom, strict=True))
        ]
        return Strip(segments, width)

    def _colour(self, cell: range) -> Color:
        palette = self._palette or self._mix()
        if not cell:
            return palette.ground
        if cell.start >= self._filled * self.blocks:
            return palette.unread
        if self._steps is None:
            self._steps = [step(level) for level in self.levels]
        ramp_of_document = palette.ramps[self._documents[cell.start] % 2]
        return ramp_of_document[max(self._steps[cell.start : cell.stop])]

    def _mix(self) -> "_Palette":
        """Colours of the theme: neighbouring documents differ a little."""
        theme = self.app.theme_variables
        ground = self.background_colors[1]
        ink, hot = Color.parse(theme["foreground"]), Color.parse(theme["accent"])
        dark = self.app.current_theme.dark
        self._palette = _Palette(
            ground=ground,
            unread=ground.blend(ink, 0.05),
            ramps=tuple(ramp(ground.blend(ink, share), hot, dark) for share in (0.13, 0.20)),
        )
        return self._palette

    def _grid(self) -> list[list[range]]:
        """The blocks behind each cell, by half lines; a cell without blocks has an empty range."""
        key = (self.blocks, *self.size)
        if self._cells is None or self._cells[0] != key:
            width, height = self.size
            rows = range(2 * height)
            self._cells = (key, [[self._blocks_at(x, row) for x in range(width)] for row in rows])
        return self._cells[1]

    def _blocks_at(self, x: int, row: int) -> range:
        """The blocks behind a cell; ``row`` counts half lines."""
        width, height = self.size
        if self._lines == 1 or _lines(self.blocks, width, 1) > height:
            cells = width * (1 if self._lines == 1 else height * 2)
            cell = x if self._lines == 1 else row * width + x
            begin, end = cell * self.blocks // cells, (cell + 1) * self.blocks // cells
            return range(begin, max(end, begin + 1)) if begin < self.blocks else range(0)
        scale = _scale(self.blocks, width, height)
        across = width // scale
        column = x // scale
        block = (row // scale) * across + column
        return range(block, block + 1) if column < across and block < self.blocks else range(0)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Tell which block is pointed at."""
        offset = event.get_content_offset(self)
        blocks = self._blocks_at(offset.x, 2 * offset.y) if offset and self.blocks else range(0)
        self.post_message(self.Pointed(blocks.start if blocks else None))

    def on_leave(self) -> None:
        """Nothing is pointed at."""
        self.post_message(self.Pointed(None))


def _lines(blocks: int, width: int, scale: int) -> int:
    """Lines that ``blocks`` take at ``scale``."""
    rows = -(-blocks // max(width // scale, 1))
    return -(-rows * scale // 2)


def _scale(blocks: int, width: int, height: int) -> int:
    return next((scale for scale in SCALES if _lines(blocks, width, scale) <= height), 1)
