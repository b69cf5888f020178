"""The part of the screen that the flow of questions and answers changes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from hga_chat.screen.transcript.widget import Transcript
from hga_chat.screen.widgets.prompt import Prompt
from hga_chat.screen.widgets.status import TitleLine

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens
    from hga_chat.screen.changes import Offer
    from hga_engine.memory.figures import MemoryFigures


class View(Protocol):
    """The members of the application that ``Flow`` uses."""

    transcript: Transcript
    prompt: Prompt
    title_line: TitleLine

    def lay_out(self, layout: "DocumentTokens | None") -> None:
        """Show the documents."""

    def show_ticks(self, dropped: Sequence[str]) -> None:
        """Show which documents are ticked off."""

    def fill(self, fraction: float) -> None:
        """Show how much of the documents has been prefilled."""

    def show_trace(self, newest: Sequence[float] | None = None) -> None:
        """Show the selected trace; the mass [bins] of the newest tokens glows."""

    def redraw_trace(self) -> None:
        """Show the selected trace without the glow of the one before."""

    def show_memory(self, figures: "MemoryFigures") -> None:
        """Show how much memory is used."""

    def show_speed(self, tokens_per_s: float, ttft_s: float, sparsity: float) -> None:
        """Show how fast the answer comes."""

    def alert(self, text: str, seconds: float) -> None:
        """Call the user back after something that took long."""

    def offer(self, offer: "Offer") -> None:
        """Say what a change costs, and make it if it is free or the user agrees."""

    def refresh_bindings(self) -> None:
        """Show which keys do something now."""
