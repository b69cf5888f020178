"""Widgets that may be folded away."""

from typing import Self

from textual.geometry import Region
from textual.widget import Widget


class Panel(Widget):
    """Is drawn only where it is shown; Textual would prepare a frame for it all the same."""

    @property
    def is_shown(self) -> bool:
        """Whether it has a place on the screen."""
        return bool(self.size)

    def refresh(
        self,
        *regions: Region,
        repaint: bool = True,
        layout: bool = False,
        recompose: bool = False,
    ) -> Self:
        """Draw anew, unless it is folded away and stays so."""
        if layout or recompose or self.is_shown:
            super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)
        return self

    def on_show(self) -> None:
        """Draw what came while it was folded away."""
        self.refresh(layout=True)
