"""Lines with a bar in them, or with something at each end."""

from textual.content import Content

QUIET = "$foreground 70%"
"""What is there to be looked up rather than read."""


def bar(fraction: float, width: int, style: str = "$accent", track: str = "$panel") -> Content:
    """A bar from 0 to capacity, as fine as half a cell; anything above 0 shows.

    Args:
        fraction: 0 to 1.
        width: cells.
        style: of the filled part.
        track: of the rest.
    """
    halves = round(min(max(fraction, 0.0), 1.0) * width * 2)
    if fraction > 0:
        halves = max(halves, 1)
    full, half = divmod(halves, 2)
    filled = "━" * full + "╸" * half
    return Content.assemble((filled, style), ("─" * (width - len(filled)), track))


def two_ends(left: Content, right: Content, width: int) -> Content:
    """One line with something at each end; the left is shortened where both do not fit."""
    room = max(width - right.cell_length - 1, 0)
    left = left.truncate(room, ellipsis=True)
    return Content.assemble(left, " " * max(width - left.cell_length - right.cell_length, 0), right)


def percent(share: float) -> str:
    """A share as it is told of sources."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def speed(tokens_per_s: float, ttft_s: float, sparsity: float) -> Content:
    """``38.1 tok/s · first 0.24 s · over 2.9%`` of the text that could be read."""
    return Content.assemble(
        (f"{tokens_per_s:.1f}", "bold"),
        (" tok/s · first ", QUIET),
        (f"{ttft_s:.2f} s", "bold"),
        (" · over ", QUIET),
        (f"{sparsity:.1%}", "bold"),
    )
