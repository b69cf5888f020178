"""The panels around the transcript, and how they show memory, speed and traces."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from textual.containers import Vertical

from hga_chat.display import displayable
from hga_chat.screen.drawing.panel import Panel
from hga_chat.screen.trace.map_view import MapView
from hga_chat.screen.widgets.block_map import BlockMap
from hga_chat.screen.widgets.documents import DocumentTree
from hga_chat.screen.widgets.memory import MemoryPanel, SpeedLine, has_device
from hga_chat.screen.widgets.status import StatusLine, TitleLine

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens
    from hga_engine.memory.figures import MemoryFigures

NAMES = ("documents", "map", "memory")
"""The panels that can be folded away."""


class Panels:
    """Documents, map, memory and speed; on a small screen one line with map and figures.

    Attributes:
        side: holds the panels.
    """

    def __init__(self) -> None:
        self.title_line, self.status_line = TitleLine(), StatusLine()
        self.document_tree, self.map = DocumentTree(), BlockMap(id="map")
        self.memory, self.speed = MemoryPanel(), SpeedLine()
        self.side = Vertical(self.document_tree, self.map, self.memory, self.speed, id="side")
        self._maps = (self.map, self.status_line.map)
        self._figures: MemoryFigures | None = None

    def draw_plain(self, is_plain: bool) -> None:
        """Draw maps in ASCII, or no longer."""
        for block_map in self._maps:
            block_map.is_plain = is_plain

    def lay_out(self, layout: "DocumentTokens | None", view: MapView) -> None:
        """Show the documents."""
        self.document_tree.lay_out(layout)
        for block_map in self._maps:
            block_map.lay_out(view.grid.documents)
        self.map.set_class(not view.grid.blocks, "-empty")

    def fill(self, fraction: float, view: MapView) -> None:
        """Show how much of the documents is prefilled."""
        for block_map in self._maps:
            block_map.fill(fraction)
        self._entitle(view)

    def fade(self, seconds: float, *, draw: bool) -> None:
        """Let the newest tokens fade; ``draw`` unless ``show_trace`` follows at once."""
        for block_map in self._maps:
            block_map.fade(seconds, draw=draw)

    def clear_trace(self) -> None:
        """Clear the maps, including what still glows."""
        for block_map in self._maps:
            block_map.clear()

    def show_trace(self, view: MapView, newest: Sequence[float] | None = None) -> None:
        """Show the selected trace; the mass [bins] of the newest tokens glows."""
        is_lit = view.mode == "answer" and view.is_whole
        now = view.grid.block_levels(newest) if newest and is_lit else None
        levels, sources, window = view.levels(), view.source_blocks, view.window
        for block_map in self._maps:
            block_map.light(now, levels, sources, window)
        self._entitle(view)
        self.document_tree.show_shares(view.shares(self.document_tree.spans))

    def _entitle(self, view: MapView) -> None:
        if self.map.filled < 1:
            self.map.entitle("Reading the documents", "filling")
        else:
            self.map.entitle(view.title(), view.legend)

    def point(self, block: int | None, view: MapView) -> None:
        """Name the block that is pointed at, if there is one."""
        found = None if block is None else view.grid.passage(block)
        if found is None:
            self.map.point("")
            return
        name = found.path.rsplit("/", 1)[-1]
        self.map.point(displayable(replace(found, path=name).place).replace("\n", "␤"))

    def hold_memory(self, figures: "MemoryFigures") -> None:
        """Take figures for the next ``draw_memory``."""
        self._figures = figures

    def draw_memory(self) -> None:
        """Show the latest figures, if they are new."""
        figures, self._figures = self._figures, None
        if figures is not None:
            self.memory.figures = figures
            self.status_line.show_memory(figures)
            self.speed.show_device(has_gpu=has_device(figures))

    def show_speed(self, tokens_per_s: float, ttft_s: float, sparsity: float) -> None:
        """Show how fast the answer comes."""
        self.speed.show(tokens_per_s, ttft_s, sparsity)
        self.status_line.show_speed(tokens_per_s)

    def toggle(self, name: str, *, is_small: bool) -> Panel | None:
        """Fold a panel away or show it; on a small screen show it alone.

        Returns:
            The panel that takes the focus, or None.
        """
        if not is_small:
            self.side.toggle_class(f"-no-{name}")
            return None
        is_shown = self.side.has_class(f"-only-{name}")
        self.side.remove_class(*(f"-only-{other}" for other in NAMES))
        self.side.set_class(not is_shown, "-asked", f"-only-{name}")
        focusable: dict[str, Panel] = {"documents": self.document_tree, "map": self.map}
        return None if is_shown else focusable.get(name)
