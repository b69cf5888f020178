"""Writes fractions and roots, which a page shows in two dimensions, in one line."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from hga_chat.documents.pdf.glyphs import Glyph, Rule

_MAX_BARS = 400
_MAX_BAR_POINTS = 300.0
_REACH_POINTS = 40.0
_SINGLE = re.compile(r"[^\W_]+(?:[.,]\d+)?|\(.*\)")
_ROOT = "√"

Linear = Callable[[Sequence[Glyph]], str]


def with_linear_fractions(
    glyphs: list[Glyph], rules: Sequence[Rule], linear: Linear
) -> list[Glyph]:
    """Return the glyphs with each fraction as one glyph, such as ``(a + b)/c``.

    A rule is a fraction bar if it is hardly wider than what stands above and below it, nothing
    goes on beside either, and text of the line stands beside the bar at its height. Underlines
    and the rules of tables fail this. A rule that begins at a root sign covers the radicand.

    Args:
        glyphs: Upright glyphs in the order of the file.
        rules: The rules of the page, in the same frame.
        linear: Returns the text of a numerator or denominator.
    """
    bars = sorted(
        (rule for rule in set(rules) if rule.right - rule.left <= _MAX_BAR_POINTS),
        key=lambda rule: rule.right - rule.left,
    )
    by_height = _by_height(glyphs)
    heights = [glyph.y for glyph in by_height]
    for bar in bars[:_MAX_BARS]:
        first = bisect_left(heights, bar.y - _REACH_POINTS)
        last = bisect_right(heights, bar.y + _REACH_POINTS)
        near = [
            glyph
            for glyph in by_height[first:last]
            if bar.left - _REACH_POINTS < glyph.to_x and glyph.x < bar.right + _REACH_POINTS
        ]
        if not near or _cover_root(bar, near, glyphs):
            continue
        changed = _with_fraction(bar, near, glyphs, linear)
        if changed is not glyphs:
            glyphs = changed
            by_height = _by_height(glyphs)
            heights = [glyph.y for glyph in by_height]
    return glyphs


def _by_height(glyphs: Sequence[Glyph]) -> list[Glyph]:
    return sorted((g for g in glyphs if g.text.strip()), key=lambda glyph: glyph.y)


def _with_fraction(
    bar: Rule, near: Sequence[Glyph], glyphs: list[Glyph], linear: Linear
) -> list[Glyph]:
    inside = [g for g in near if bar.left < (g.x + g.to_x) / 2 < bar.right]
    above = [g for g in inside if -0.1 * g.size <= g.y - bar.y <= 1.2 * g.size]
    below = [g for g in inside if 0.35 * g.size <= bar.y - g.y <= 1.5 * g.size]
    if not above or not below:
        return glyphs
    em = max(g.size for g in (*above, *below))
    if bar.right - bar.left > max(map(_width, (above, below))) + 1.2 * em:
        return glyphs
    low, high = min(g.y for g in below), max(g.y for g in above)
    parts = {
        id(g) for g in glyphs if low <= g.y <= high and bar.left < (g.x + g.to_x) / 2 < bar.right
    }
    beside = None
    for glyph in near:
        if id(glyph) in parts:
            continue
        gap = max(bar.left - glyph.to_x, glyph.x - bar.right)
        if any(abs(glyph.y - g.y) < 0.15 * em for g in (*above, *below)) and gap < 0.3 * em:
            return glyphs  # an underlined word
        drop = (bar.y - glyph.y) / max(glyph.size, 0.1)
        if (
            -0.4 * em <= gap <= 2.5 * em
            and 0.05 <= drop <= 0.5
            and (beside is None or glyph.to_x <= bar.left + 0.4 * em)
        ):
            beside = glyph
    if beside is None:
        return glyphs
    text = f"{_grouped(linear(above))}/{_grouped(linear(below))}"
    fraction = Glyph(
        *(text, bar.left, beside.y, bar.right, beside.y, beside.size),
        *(0, beside.font, beside.operation),
    )
    kept = [g for g in glyphs if id(g) not in parts]
    at = next(number for number, g in enumerate(kept) if g is beside)
    if beside.to_x <= bar.left + 0.4 * em:
        # Spaces that follow the text on the left stand before the fraction.
        at += 1
        while at < len(kept) and kept[at].text.isspace() and kept[at].x < bar.left:
            at += 1
    return [*kept[:at], fraction, *kept[at:]]


def _width(glyphs: Sequence[Glyph]) -> float:
    return max(g.to_x for g in glyphs) - min(g.x for g in glyphs)


def _grouped(text: str) -> str:
    return text if _SINGLE.fullmatch(text) else f"({text})"


def _cover_root(bar: Rule, near: Sequence[Glyph], glyphs: Sequence[Glyph]) -> bool:
    """Put brackets around what a root's bar covers; whether the bar is one."""
    if not any(
        g.text == _ROOT
        and abs(g.to_x - bar.left) < 0.3 * g.size
        and abs(bar.y - g.y) < 1.5 * g.size
        for g in near
    ):
        return False
    covered = [
        g
        for g in glyphs
        if bar.left < (g.x + g.to_x) / 2 < bar.right
        and 0 < bar.y - g.y < 1.6 * g.size
        and g.text.strip()
    ]
    if len(covered) > 1:
        covered[0].text = "(" + covered[0].text
        covered[-1].text += ")"
    return True
