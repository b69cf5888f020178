"""The title line, and the line that replaces the panels on a small screen."""

from typing import TYPE_CHECKING

from textual.app import ComposeResult, RenderResult
from textual.containers import Horizontal
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Static

from hga_chat.display import displayable
from hga_chat.output import human_bytes
from hga_chat.screen.drawing.bars import QUIET, two_ends
from hga_chat.screen.widgets.block_map import BlockMap

if TYPE_CHECKING:
    from hga_engine.memory.figures import MemoryFigures

_LEAST_TITLE = 10
"""Cells below which a title is left out."""


class TitleLine(Widget):
    """The session, the model, the tokens of the session and the state of the engine."""

    session = reactive("")
    """Title of the session; as much of it is shown as fits."""
    model = reactive("")
    tokens = reactive(0)
    context = reactive(0)
    prefill: "reactive[tuple[int, int] | None]" = reactive(None)
    """Tokens prefilled so far and in all, during prefill."""
    state = reactive("starting")

    def __init__(self) -> None:
        super().__init__(id="title")

    def render(self) -> RenderResult:
        """Return session, model and tokens on the left, the state on the right."""
        name = Content.styled(" hga-chat", "bold $text-primary")
        model = Content(f"  {self.model}" if self.model else "")
        tokens = Content("")
        if self.prefill:
            read, total = self.prefill
            tokens = Content.styled(f"  {read:,} of {total:,} tokens read", QUIET)
        elif self.context:
            tokens = Content.styled(f"  {self.tokens:,} of {self.context:,} tokens", QUIET)
        colours = {"ready": "$text-success", "failed": "$text-error"}
        style = colours.get(self.state, "$text-warning")
        state = Content.styled(f"● {self.state} ", style)
        taken = sum(part.cell_length for part in (name, model, tokens, state))
        left = Content.assemble(name, self._title(self.size.width - taken - 1), model, tokens)
        return two_ends(left, state, self.size.width)

    def _title(self, room: int) -> Content:
        """Return the session's title in so many cells; nothing if they are too few for sense."""
        if not self.session or room < _LEAST_TITLE:
            return Content("")
        return Content(f"  {displayable(self.session)}").truncate(room, ellipsis=True)


class StatusLine(Horizontal):
    """Map, memory and speed in one line, for a small screen."""

    def __init__(self) -> None:
        super().__init__(id="status")
        self.map = BlockMap(id="strip", lines=1)
        self._text = Static("", markup=False, id="figures")
        self._memory = Content("")
        self._speed = Content("")
        self._shown = Content("")

    def compose(self) -> ComposeResult:
        """Lay out the map and the figures."""
        yield self.map
        yield self._text

    def show_memory(self, figures: "MemoryFigures") -> None:
        """Show the host memory of K/V, of which disk and GPU hold copies, and of the process."""
        self._memory = Content.assemble(
            ("K/V ", QUIET),
            human_bytes(figures.kv_host_bytes),
            ("  process ", QUIET),
            human_bytes(figures.host_resident_bytes),
        )
        self._show()

    def show_speed(self, tokens_per_s: float) -> None:
        """Show the speed of the answer."""
        self._speed = Content.assemble(f"{tokens_per_s:.1f}", (" tok/s", QUIET))
        self._show()

    def on_show(self) -> None:
        """Show what changed while the panels were shown instead."""
        self._show()

    def _show(self) -> None:
        # New text lays out the whole screen, so skip it while hidden.
        if not self.size:
            return
        pieces = [piece for piece in (self._speed, self._memory) if piece]
        figures = Content("  ").join(pieces)
        if figures != self._shown:
            is_wider = figures.cell_length != self._shown.cell_length
            self._shown = figures
            self._text.update(figures, layout=is_wider)
