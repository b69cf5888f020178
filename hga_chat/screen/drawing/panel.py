"""Widgets that can be folded away."""

from typing import Self

from textual.geometry import Region
from textual.widget import Widget


class Panel(Widget):
    """A widget that is drawn only while it is shown; Textual would prepare frames regardless."""

    @property
    def is_shown(self) -> bool:
        """Whether the widget has a place on the screen."""
        return bool(self.size)

    def refresh(
        self,
        *regions: Region,
        repaint: bool = True,
        layout: bool = False,
        recompose: bool = False,
    ) -> Self:
        """Draw again, unless it is folded away and stays so."""
        if layout or recompose or self.is_shown:
            super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)
        return self

    def on_show(self) -> None:
        """Draw what changed while it was folded away."""
        self.refresh(layout=True)
