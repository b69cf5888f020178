"""What stands around the text of a transcript's pieces."""

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.strip import Strip
from textual.widget import Widget

from hga_chat.screen.transcript.pieces import Frame, Kind
from hga_chat.screen.transcript.rows import Look

MARGIN = 2
"""Cells left of the text; the bar of what is selected stands in them."""
BARS = {"question": "$primary", "error": "$error", "card": "$panel", "notice": "$warning"}
"""Kinds with a bar at their left, and its colour."""


class Frames:
    """How pieces are drawn, by their kind; kept until styles change."""

    def __init__(self, widget: Widget) -> None:
        """Draw with the styles of a widget."""
        self._widget = widget
        self._kept: dict[tuple[Kind, bool, int, int], Frame] = {}

    def clear(self) -> None:
        """Forget looks of another theme."""
        self._kept = {}

    def of(self, kind: Kind, is_here: bool, width: int) -> Frame:
        """Of a piece with so many cells of text; a brighter bar stands where the cursor is."""
        key = (kind, is_here, width, self._widget.outer_size.width)
        if key not in self._kept:
            self._kept[key] = self._make(*key)
        return self._kept[key]

    def _make(self, kind: Kind, is_here: bool, width: int, outer_width: int) -> Frame:
        widget = self._widget
        name = (f"transcript--{kind}",) if kind in BARS else ()
        look = Look(widget.get_visual_style(*name), widget._get_style)
        style, ground = look.style.rich_style, widget.visual_style.rich_style
        if is_here:
            bar = widget.get_component_rich_style("transcript--cursor", partial=True)
            sign = "▐ "
        else:
            colour = BARS.get(kind)
            bar = widget._get_style(colour).rich_style if colour else RichStyle()
            sign = "▌ " if colour else "  "
        margin = widget.gutter.left
        left = Strip([Segment(" " * margin, ground), Segment(sign, style + bar)])
        text = margin + min(width + 2 * MARGIN, widget.size.width)
        return Frame(look, left, text, outer_width, ground)
