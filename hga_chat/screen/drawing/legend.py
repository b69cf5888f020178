"""The signs of a map and their legend."""

from collections.abc import Callable, Sequence
from typing import Literal

from textual.color import Color
from textual.content import Content
from textual.style import Style

from hga_chat.screen.drawing.bars import QUIET
from hga_chat.screen.drawing.ramp import LEVELS, step

SOURCE = LEVELS
"""Used in place of a step of the colour ramp: the block holds a source, whatever else it is."""
WINDOW = -1
"""The block is in the window. Below all steps, as a cell shows the highest of its blocks."""
PENDING = -2
"""The block is not prefilled yet."""
OLD = 0.72
"""Brightness of the whole answer, against 1 for its newest tokens."""
AT_REST = step(OLD)
SHADES = "·░▒▓█"
PLAIN_SHADES = ".:+*#"
"""Signs for terminals without colours for the upper and lower half of a cell."""
SIXTEEN = [
    Color.parse(f"ansi_{name}")
    for name in ("bright_black", "blue", "cyan", "yellow", "bright_white")
]
LEAST_RAMP, WIDEST_RAMP = 4, 10
NARROW, WIDE = 36, 44
"""Up to ``NARROW`` cells words are shortened; from ``WIDE`` on items stand further apart."""

Legend = Literal["filling", "answer", "part", "missed", "lines"]
"""What a legend explains: prefill, an answer, a word or layer of it, what no answer read, lines."""


def sign(level: int, *, is_plain: bool) -> tuple[str, Color]:
    """Return the sign of a step and its colour among the terminal's own."""
    if level == SOURCE:
        return ("@" if is_plain else "◆"), Color.parse("ansi_bright_magenta")
    if level == WINDOW:
        return "=", Color.parse("ansi_white")
    if level == PENDING:
        return " ", Color.parse("ansi_default")
    weight = min(level * len(SHADES) // LEVELS, len(SHADES) - 1)
    return (PLAIN_SHADES if is_plain else SHADES)[weight], SIXTEEN[weight]


def legend(kind: Legend, width: int, look: Callable[[int], tuple[str, Color]]) -> Content:
    """Return the legend of a map in one line.

    Args:
        kind: what the map shows.
        width: available cells.
        look: returns the sign and colour of a step.
    """

    def shown(level: int) -> Content:
        text, colour = look(level)
        return Content.styled(text, Style(foreground=colour))

    if kind == "filling":
        return _named([(0, "read so far"), (PENDING, "to come")], width, shown)
    window = (WINDOW, "always read" if width > NARROW else "always")
    if kind == "missed":
        return _named([(AT_REST, "hardly read"), (0, "read"), window], width, shown)
    names = Content("")
    if kind != "lines":
        source = [(SOURCE, "source")] if kind == "answer" else []
        names = _named([*source, window], width, shown)
    scale, gap = "less  more", _gap(width) if names else ""
    room = width - len(scale) - len(gap) - names.cell_length
    steps = min(max(room, LEAST_RAMP), WIDEST_RAMP)
    ramp = [shown(1 + round(n * (AT_REST - 1) / (steps - 1))) for n in range(steps)]
    return Content.assemble(("less ", QUIET), *ramp, (f" more{gap}", QUIET), names)


def _named(
    items: Sequence[tuple[int, str]], width: int, shown: Callable[[int], Content]
) -> Content:
    """Return signs with their names."""
    return Content(_gap(width)).join(
        Content.assemble(shown(item), (f" {name}", QUIET)) for item, name in items
    )


def _gap(width: int) -> str:
    return "  " if width >= WIDE else " "
