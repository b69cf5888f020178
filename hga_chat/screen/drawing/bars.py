"""Bars, and lines with something at each end."""

from textual.content import Content

QUIET = "$foreground 70%"
"""Style of secondary text."""


def bar(fraction: float, width: int, style: str = "$accent", track: str = "$panel") -> Content:
    """Return a bar from 0 to capacity in steps of half a cell; anything above 0 shows.

    Args:
        fraction: 0 to 1.
        width: cells.
        style: style of the filled part.
        track: style of the rest.
    """
    halves = round(min(max(fraction, 0.0), 1.0) * width * 2)
    if fraction > 0:
        halves = max(halves, 1)
    full, half = divmod(halves, 2)
    filled = "━" * full + "╸" * half
    return Content.assemble((filled, style), ("─" * (width - len(filled)), track))


def two_ends(left: Content, right: Content, width: int) -> Content:
    """Return a line with something at each end; the left is shortened if both do not fit."""
    room = max(width - right.cell_length - 1, 0)
    left = left.truncate(room, ellipsis=True)
    return Content.assemble(left, " " * max(width - left.cell_length - right.cell_length, 0), right)
