"""Writes fractions and roots, which a page shows in two dimensions, in one line."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from hga_chat.documents.pdf.glyphs import Glyph, Rule

_MAX_BARS = 400
_MAX_BAR_POINTS = 300.0
_REACH_POINTS = 40.0
_REACH_EM = 3.0
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
    page = _Glyphs(glyphs)
    for bar in bars[:_MAX_BARS]:
        around = page.around(bar)
        near = [glyph for glyph in around if glyph.text.strip()]
        if near and not _cover_root(bar, page.written(near)):
            _find_fraction(bar, near, around, page, linear)
    return page.in_order() if page.has_changed else glyphs


class _Glyphs:
    """The glyphs of a page by height, and the changes to them."""

    def __init__(self, glyphs: Sequence[Glyph]) -> None:
        self._glyphs = glyphs
        self._by_height = sorted(glyphs, key=lambda glyph: glyph.y)
        self._heights = [glyph.y for glyph in self._by_height]
        self._reach = min(
            _REACH_POINTS, _REACH_EM * max((glyph.size for glyph in glyphs), default=0.0)
        )
        self._rank = {id(glyph): at for at, glyph in enumerate(glyphs)}
        self._gone: set[int] = set()
        self._after: dict[int, list[Glyph]] = {}
        self._before: dict[int, list[Glyph]] = {}
        self.has_changed = False

    def around(self, bar: Rule) -> list[Glyph]:
        """Return what stands near a bar."""
        first = bisect_left(self._heights, bar.y - self._reach)
        last = bisect_right(self._heights, bar.y + self._reach)
        left, right = bar.left - self._reach, bar.right + self._reach
        return [
            glyph for glyph in self._by_height[first:last] if left < glyph.to_x and glyph.x < right
        ]

    def written(self, glyphs: Sequence[Glyph]) -> list[Glyph]:
        """Return glyphs in the order of the file."""
        return sorted(glyphs, key=lambda glyph: self._rank[id(glyph)])

    def replace(
        self, parts: Sequence[Glyph], fraction: Glyph, beside: Glyph, *, follows: bool
    ) -> None:
        """Put a fraction in place of its parts, after or before the glyph beside it."""
        self.has_changed = True
        self._rank[id(fraction)] = min(self._rank[id(part)] for part in parts)
        for part in parts:
            self._gone.add(id(part))
            at = bisect_left(self._heights, part.y)
            while self._by_height[at] is not part:
                at += 1
            del self._by_height[at], self._heights[at]
        at = bisect_right(self._heights, fraction.y)
        self._by_height.insert(at, fraction)
        self._heights.insert(at, fraction.y)
        (self._after if follows else self._before).setdefault(id(beside), []).append(fraction)

    def in_order(self) -> list[Glyph]:
        """Return what is left, in the order of the file."""
        found: list[Glyph] = []
        for glyph in self._glyphs:
            self._add(glyph, found)
        return found

    def _add(self, glyph: Glyph, found: list[Glyph]) -> None:
        for fraction in self._before.get(id(glyph), ()):
            self._add(fraction, found)
        if id(glyph) not in self._gone:
            found.append(glyph)
        for fraction in self._after.get(id(glyph), ()):
            self._add(fraction, found)


def _find_fraction(
    bar: Rule, near: Sequence[Glyph], around: Sequence[Glyph], page: _Glyphs, linear: Linear
) -> None:
    inside = [g for g in near if bar.left < (g.x + g.to_x) / 2 < bar.right]
    above = [g for g in inside if -0.1 * g.size <= g.y - bar.y <= 1.2 * g.size]
    below = [g for g in inside if 0.35 * g.size <= bar.y - g.y <= 1.5 * g.size]
    if not above or not below:
        return
    em = max(g.size for g in (*above, *below))
    wide = bar.right - bar.left
    if not -0.6 * em <= wide - max(map(_width, (above, below))) <= 1.2 * em:
        return
    low, high = min(g.y for g in below), max(g.y for g in above)
    parts = [g for g in around if low <= g.y <= high and bar.left < (g.x + g.to_x) / 2 < bar.right]
    held = set(map(id, parts))
    beside = None
    for glyph in near:
        if id(glyph) in held:
            continue
        gap = max(bar.left - glyph.to_x, glyph.x - bar.right)
        if any(abs(glyph.y - g.y) < 0.15 * em for g in (*above, *below)) and gap < 0.3 * em:
            return  # an underlined word
        drop = (bar.y - glyph.y) / max(glyph.size, 0.1)
        if (
            -0.4 * em <= gap <= 2.5 * em
            and 0.05 <= drop <= 0.5
            and (beside is None or glyph.to_x <= bar.left + 0.4 * em)
        ):
            beside = glyph
    if beside is None:
        return
    text = f"{_grouped(linear(page.written(above)))}/{_grouped(linear(page.written(below)))}"
    fraction = Glyph(
        *(text, bar.left, beside.y, bar.right, beside.y, beside.size),
        *(0, beside.font, beside.operation),
    )
    page.replace(parts, fraction, beside, follows=beside.to_x <= bar.left + 0.4 * em)


def _width(glyphs: Sequence[Glyph]) -> float:
    return max(g.to_x for g in glyphs) - min(g.x for g in glyphs)


def _grouped(text: str) -> str:
    return text if _SINGLE.fullmatch(text) else f"({text})"


def _cover_root(bar: Rule, near: Sequence[Glyph]) -> bool:
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
        for g in near
        if bar.left < (g.x + g.to_x) / 2 < bar.right and 0 < bar.y - g.y < 1.6 * g.size
    ]
    if len(covered) > 1:
        covered[0].text = "(" + covered[0].text
        covered[-1].text += ")"
    return True
