"""Margins, bars and backgrounds of the transcript's pieces."""

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.strip import Strip
from textual.widget import Widget

from hga_chat.screen.transcript.pieces import Frame, Kind
from hga_chat.screen.transcript.rows import Look

MARGIN = 2
"""Cells left of the text, where the bar is."""
BARS = {"question": "$primary", "error": "$error", "card": "$panel", "notice": "$warning"}
"""Colour of the bar of each kind that has one."""


class Frames:
    """Frames of pieces by kind, cached until styles change."""

    def __init__(self, widget: Widget) -> None:
        """Use the styles of a widget."""
        self._widget = widget
        self._cached: dict[tuple[Kind, bool, int, int], Frame] = {}

    def clear(self) -> None:
        """Drop the frames of another theme."""
        self._cached = {}

    def of(self, kind: Kind, is_here: bool, width: int) -> Frame:
        """Return the frame for ``width`` cells of text; the bar is brighter at the cursor."""
        key = (kind, is_here, width, self._widget.outer_size.width)
        if key not in self._cached:
            self._cached[key] = self._make(*key)
        return self._cached[key]

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
