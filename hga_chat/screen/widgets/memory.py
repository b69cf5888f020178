"""Memory use and the speed of the last answer."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.app import RenderResult
from textual.content import Content
from textual.geometry import Region, Size
from textual.reactive import reactive
from textual.strip import Strip
from textual.visual import RenderOptions

from hga_chat.output import human_bytes, human_share
from hga_chat.screen.drawing.bars import QUIET, bar, two_ends
from hga_chat.screen.drawing.figures import speed
from hga_chat.screen.drawing.panel import Panel

if TYPE_CHECKING:
    from hga_engine.memory.figures import MemoryFigures

_LABEL, _BAR = 9, 8
_WITH_HISTORY = 14
"""Least room, in cells, for a history beside the bar."""
HISTORY = 60
"""Reports in the history of a tier; there are two a second while the engine works."""
_HEIGHTS = " ▁▂▃▄▅▆▇█"


class MemoryPanel(Panel):
    """One line a tier: a bar from 0 to its capacity, its history and its figures.

    Another line shows the page-cache hits where pages move between tiers.
    """

    figures: "reactive[MemoryFigures | None]" = reactive(None, repaint=False)

    def __init__(self) -> None:
        super().__init__(id="memory")
        self.border_title = "Memory"
        self.history: dict[str, deque[float]] = {}
        self._lines = self._content()

    def watch_figures(self) -> None:
        """Add to the history and draw what changed; take another height if a tier appears."""
        if self.figures is None:
            return
        for label, used, capacity in rows_of(self.figures):
            if capacity:
                shares = self.history.setdefault(label, deque(maxlen=HISTORY))
                shares.append(used / capacity)
        if not self.is_shown:
            return
        former, self._lines = self._lines, self._content()
        if len(former) != len(self._lines):
            self.refresh(layout=True)
            return
        pairs = enumerate(zip(former, self._lines, strict=True))
        changed = [y for y, (old, new) in pairs if old != new]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def on_resize(self) -> None:
        """Fit bars and histories to the room."""
        self.border_title = self._heads()
        self._lines = self._content()
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002
        """Return the number of lines."""
        return len(self._content())

    def render_line(self, y: int) -> Strip:
        """Return one line; the others stay as they were drawn."""
        width = self.size.width
        if y >= len(self._lines):
            return Strip.blank(width, self.visual_style.rich_style)
        options = RenderOptions(self._get_style, {}, None, None)
        return self._lines[y].render_strips(width, 1, self.visual_style, options)[0]

    def _content(self) -> list[Content]:
        if self.figures is None:
            return [Content.styled("shown once the model is loaded", QUIET)]
        lines = [self._row(*row) for row in rows_of(self.figures)]
        if self.figures.page_misses or (has_device(self.figures) and self.figures.page_hits):
            lines.append(self._pages(self.figures))
        return lines

    @property
    def _room(self) -> int:
        """Cells between names and figures."""
        return self.content_size.width - _LABEL - 1 - len("888.88 / 888.88 GiB")

    def _heads(self) -> Content:
        """Return the title with the heads of the columns."""
        title = Content("Memory")
        if self._room < _WITH_HISTORY:
            return title
        for column, name in ((_LABEL, "now"), (_LABEL + _BAR + 1, "lately")):
            line = "─" * (column - title.cell_length - 2)
            title = Content.assemble(title, (f" {line} ", "$panel"), name)
        return title

    def _pages(self, figures: "MemoryFigures") -> Content:
        """Return the line of page-cache hits and of the bytes that were fetched."""
        requested = figures.page_hits + figures.page_misses
        fetched = human_bytes(figures.page_misses * figures.page_bytes)
        way = "over PCIe" if has_device(figures) else "from disk"
        name = Content.styled("pages".ljust(_LABEL), QUIET)
        name = Content.assemble(name, f"{figures.page_hits / requested:.1%}", (" cached", QUIET))
        return two_ends(
            name, Content.assemble(fetched, (f" {way}", QUIET)), self.content_size.width
        )

    def _row(self, label: str, used: int, capacity: int) -> Content:
        figures = human_share(used, capacity) if capacity else human_bytes(used)
        name = Content.styled(label.ljust(_LABEL), QUIET)
        room = self._room
        if capacity and room >= 4:
            share = used / capacity
            graph = bar(share, min(room, _BAR), _alarm(share))
            if room >= _WITH_HISTORY:
                past = history(self.history.get(label, ()), room - _BAR - 1)
                graph = Content.assemble(graph, " ", (past, QUIET))
            name = Content.assemble(name, graph)
        return two_ends(name, Content(figures), self.content_size.width)


def rows_of(figures: "MemoryFigures") -> list[tuple[str, int, int]]:
    """Return label, bytes used and capacity (0 if it has none) of each tier in use."""
    rows = [
        ("host K/V", figures.kv_host_bytes, figures.kv_host_capacity_bytes),
        ("disk K/V", figures.kv_disk_bytes, figures.kv_disk_capacity_bytes),
        ("index", figures.index_bytes, 0),
        ("weights", figures.weights_bytes, 0),
        ("process", figures.host_resident_bytes, figures.host_total_bytes),
    ]
    if has_device(figures):
        total = figures.device_total_bytes
        of_device = [
            ("GPU used", figures.device_used_bytes, total),
            ("reserved", figures.device_reserved_bytes, total),
            ("in use", figures.device_allocated_bytes, total),
            ("planned", figures.device_planned_bytes, 0),
            ("VRAM K/V", figures.kv_device_bytes, total),
        ]
        rows = [row for row in of_device if row[1]] + rows
    return [row for row in rows if row[1] or row[2]]


def has_device(figures: "MemoryFigures") -> bool:
    """Return whether a GPU is in use."""
    return bool(figures.device_peak_bytes or figures.device_total_bytes)


def history(shares: "Sequence[float]", width: int) -> str:
    """Return the latest shares of a capacity as columns; anything above 0 shows."""
    latest = list(shares)[-width:]
    signs = [_HEIGHTS[min(max(round(share * 8), 1 if share > 0 else 0), 8)] for share in latest]
    return "".join(signs).rjust(width)


def _alarm(fraction: float) -> str:
    return "$error" if fraction > 0.95 else "$warning" if fraction > 0.85 else "$accent"


class SpeedLine(Panel):
    """Tokens a second, time to the first token and share of the tokens attended to."""

    def __init__(self) -> None:
        super().__init__(id="speed")
        self.border_title = self._title = "Last answer"
        self.tokens_per_s = self.ttft_s = self.sparsity = 0.0

    def show(self, tokens_per_s: float, ttft_s: float, sparsity: float) -> None:
        """Show the figures of an answer."""
        self.tokens_per_s, self.ttft_s, self.sparsity = tokens_per_s, ttft_s, sparsity
        self.refresh(Region(0, 0, self.size.width, 1))  # without the border above

    def show_device(self, *, has_gpu: bool) -> None:
        """Show whether a GPU is in use."""
        title = "Last answer" if has_gpu else "Last answer, no GPU in use"
        if title != self._title:
            self._title = self.border_title = title

    def render(self) -> RenderResult:
        """Return the figures in one line."""
        if not self.ttft_s:
            return Content.styled("no answer yet", QUIET)
        return speed(self.tokens_per_s, self.ttft_s, self.sparsity)
