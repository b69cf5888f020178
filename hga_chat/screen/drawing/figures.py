"""Figures in words."""

from textual.content import Content

from hga_chat.screen.drawing.bars import QUIET


def count(number: int, noun: str) -> str:
    """Return ``1 token``, ``2,048 tokens``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Return ``4.2 s``, ``31 s``, ``2 min 05 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s"


def percent(share: float) -> str:
    """Return the share of a source: ``12%``, ``<1%``."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def speed(tokens_per_s: float, ttft_s: float, sparsity: float, *, in_full: bool = False) -> Content:
    """Return ``38.1 tok/s · first 0.24 s · reads 2.9%``; the last is a share of the text.

    In full: ``38.1 tok/s · first token 0.24 s · attends to 2.9%``.
    """
    first, share = ("first token", "attends to") if in_full else ("first", "reads")
    return Content.assemble(
        (f"{tokens_per_s:.1f}", "bold"),
        (f" tok/s · {first} ", QUIET),
        (f"{ttft_s:.2f} s", "bold"),
        (f" · {share} ", QUIET),
        (f"{sparsity:.1%}", "bold"),
    )
