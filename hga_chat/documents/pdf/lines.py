"""Puts the glyphs of a PDF page together to lines with positions.

Lines come in the order of the file, which for most programs is that of reading. Words end where
the file has a space or the gap is wide.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from hga_chat.documents.pdf.accents import with_accents
from hga_chat.documents.pdf.bidi import base_letters, logical, runs_right_to_left
from hga_chat.documents.pdf.glyphs import Glyph, Rule
from hga_chat.documents.pdf.math_layout import with_linear_fractions
from hga_chat.documents.pdf.text_repair import RIGHT_TO_LEFT
from hga_chat.documents.plain.scripts import raised_and_lowered

_MAX_GAP_EM = 1.0
_MIN_SPACE_EM = 0.13
_MAX_PITCH_GAP_EM = 0.56
_SAME_BASELINE_EM = 0.3
_MAX_SCRIPT_SIZE = 0.86
_MAX_SCRIPT_SHIFT_EM = 0.75
_MIN_SCRIPT_SHIFT_EM = 0.1
_MAX_LEADING_SCRIPT = 12
_OVERPRINT_EM = 0.12
_MAX_COLUMNS = 64
_LEADERS = "._·…"
_PART = re.compile(rf"{RIGHT_TO_LEFT.pattern}(?:[\W_]*{RIGHT_TO_LEFT.pattern})*|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line without a wide gap in it.

    Positions are in points, in the frame in which most of the page's text is upright: x to the
    right, y upwards. ``turn`` is the angle to that text in degrees; the positions of turned text
    are in the frame in which it is upright itself.
    """

    text: str
    left: float
    right: float
    baseline: float
    size: float
    font: str
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The text of the whole line."""
        if len(self.pieces) == 1:
            return self.pieces[0].text
        return "".join(piece.text for piece in self.pieces)

    @property
    def is_blank(self) -> bool:
        """Whether the line is empty or white space."""
        return not self.text.strip()

    @property
    def main(self) -> Piece:
        """The longest piece, whose font, size and baseline are taken for the line's."""
        if len(self.pieces) == 1:
            return self.pieces[0]
        return max(self.pieces, key=lambda piece: len(piece.text))


def lines_of(glyphs: Sequence[Glyph], rules: Sequence[Rule] = ()) -> list[Line]:
    """Return the lines of a page.

    Lines at an angle to most of the text, such as a stamp in the margin, come last. Raised and
    lowered text, fractions and right-to-left script are in a linear form.

    Args:
        glyphs: What the page shows, in the order of the file. They are changed.
        rules: Its thin horizontal rules, of which some are fraction bars.
    """
    main = _upright(glyphs)
    framed = with_accents(without_overprint(glyphs))
    upright = [glyph for glyph in framed if not glyph.angle]
    if main == 0 and rules:
        upright = with_linear_fractions(upright, rules, linear_text)
    lines = [_line(found) for found in _assemble(upright)]
    turned = [glyph for glyph in framed if glyph.angle]
    return [line for line in (*lines, *map(_line, _assemble(turned))) if line.pieces]


def linear_text(glyphs: Sequence[Glyph]) -> str:
    """Return the text of a few glyphs, such as those of a numerator."""
    return " ".join(_line(found).text.strip() for found in _assemble(glyphs))


def _upright(glyphs: Sequence[Glyph]) -> int:
    """Turn the frame so that most characters are upright; return by how many degrees."""
    characters: Counter[int] = Counter()
    for glyph in glyphs:
        characters[glyph.angle] += len(glyph.text.strip())
    main = characters.most_common(1)[0][0] if characters else 0
    for glyph in glyphs:
        own = glyph.angle
        if own == 0 == main and glyph.x <= glyph.to_x:
            continue
        x, y = _turned(glyph.x, glyph.y, own)
        to_x, _ = _turned(glyph.to_x, glyph.to_y, own)
        glyph.x, glyph.to_x = min(x, to_x), max(x, to_x)
        glyph.y = glyph.to_y = y
        glyph.angle = (own - main) % 360
    return main


def _turned(x: float, y: float, angle: int) -> tuple[float, float]:
    """Return a position in the frame in which text at an angle is upright."""
    if angle % 90 == 0:
        return ((x, y), (y, -x), (-x, -y), (-y, x))[angle // 90]
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return x * cosine + y * sine, y * cosine - x * sine


def without_overprint(glyphs: Sequence[Glyph]) -> list[Glyph]:
    """Leave out glyphs that only embolden or shade one that another operator put there."""
    seen: dict[tuple[int, int, int], list[Glyph]] = {}
    kept = []
    for glyph in glyphs:
        cell = max(1.0, round(0.25 * glyph.size))
        row, wide = int(glyph.y // cell), 8 * cell
        middle = int((glyph.x + glyph.to_x) / 2 // wide)
        level = seen.get((glyph.angle, row, middle))
        below = seen.get((glyph.angle, row - 1, middle))
        above = seen.get((glyph.angle, row + 1, middle))
        if (
            (level and _is_over(glyph, level))
            or (below and _is_over(glyph, below))
            or (above and _is_over(glyph, above))
        ):
            continue
        kept.append(glyph)
        first, last = int(glyph.x // wide), int(glyph.to_x // wide)
        for column in range(first, min(last, first + _MAX_COLUMNS) + 1):
            seen.setdefault((glyph.angle, row, column), []).append(glyph)
    return kept


def _is_over(glyph: Glyph, others: Sequence[Glyph]) -> bool:
    """Whether a glyph repeats one of those of other operators."""
    near = _OVERPRINT_EM * glyph.size
    for other in others:
        if (
            other.operation != glyph.operation
            and abs(other.y - glyph.y) <= near
            and _repeats(glyph, other, near)
        ):
            return True
    return False


def _repeats(glyph: Glyph, other: Glyph, near: float) -> bool:
    """Whether a glyph repeats another one, or a part of a word, that far to the side."""
    if abs(other.size - glyph.size) > 0.1 * glyph.size:
        return False
    if other.text == glyph.text:
        return abs(other.x - glyph.x) <= near
    text, whole = glyph.text.rstrip(), other.text.rstrip()
    if not text or len(text) >= len(whole):
        return text == whole and abs(other.x - glyph.x) <= near
    if abs(other.x - glyph.x) <= near:
        return whole.startswith(text)
    if other.x > glyph.x or other.to_x < glyph.to_x - near:
        return False
    at = (glyph.x - other.x) / (other.to_x - other.x) * len(other.text)
    return any(
        abs(found.start() - at) <= 1.5 for found in re.finditer(f"(?={re.escape(text)})", whole)
    )


class _Open:
    """A line that more glyphs may join."""

    def __init__(self, glyph: Glyph) -> None:
        self.glyphs = [glyph]
        self.base = glyph.y
        self.size = glyph.size
        self.left, self.right = glyph.x, glyph.to_x

    def takes(self, glyph: Glyph) -> bool:
        """Whether a glyph goes on with the line; joins it if so."""
        last = self.glyphs[-1]
        if glyph.angle != last.angle:
            return False
        size = max(self.size, glyph.size)
        up = glyph.y - self.base
        gap = glyph.x - last.to_x
        if abs(up) <= _SAME_BASELINE_EM * min(self.size, glyph.size) or up == 0:
            if gap < -0.5 * size and glyph.to_x > self.left and glyph.x < self.right:
                return self._is_free(glyph) and self._join(glyph)
            if glyph.size > _MAX_SCRIPT_SIZE * self.size and not glyph.shift:
                self.base, self.size = glyph.y, max(self.size, glyph.size)
            return self._join(glyph)
        close = -0.3 * size <= gap <= 0.45 * size
        if close and abs(up) <= _MAX_SCRIPT_SHIFT_EM * size:
            if glyph.size <= _MAX_SCRIPT_SIZE * self.size or glyph.shift:
                return self._join(glyph)
            leads = len(self.glyphs) <= _MAX_LEADING_SCRIPT
            if leads and self.size <= _MAX_SCRIPT_SIZE * glyph.size:
                self.base, self.size = glyph.y, glyph.size
                return self._join(glyph)
        return False

    def _is_free(self, glyph: Glyph) -> bool:
        """Whether nothing of the line is where the glyph is."""
        slack = 0.2 * glyph.size
        return all(
            other.to_x <= glyph.x + slack or other.x >= glyph.to_x - slack
            for other in self.glyphs
            if other.text.strip()
        )

    def _join(self, glyph: Glyph) -> bool:
        self.glyphs.append(glyph)
        self.left, self.right = min(self.left, glyph.x), max(self.right, glyph.to_x)
        return True


def _assemble(glyphs: Sequence[Glyph]) -> Iterator[list[Glyph]]:
    """Yield the glyphs of each line, from left to right."""
    line: _Open | None = None
    for glyph in glyphs:
        if line is not None and line.takes(glyph):
            continue
        if line is not None:
            yield _from_left(line.glyphs)
        line = _Open(glyph)
    if line is not None:
        yield _from_left(line.glyphs)


def _from_left(glyphs: list[Glyph]) -> list[Glyph]:
    """Sort by place what was not written from left to right."""
    slack = 0.3 * max(glyph.size for glyph in glyphs)
    reach = glyphs[0].x
    for glyph in glyphs:
        if glyph.x < reach - slack:
            # By their middles, as narrow spaces begin within the letters beside them.
            return sorted(glyphs, key=lambda glyph: glyph.x + glyph.to_x)
        reach = max(reach, glyph.x)
    return glyphs


def _line(glyphs: list[Glyph]) -> Line:
    groups = list(_groups(glyphs))
    while groups and not any(glyph.text.strip() for glyph in groups[-1]):
        groups.pop()
    text = "".join(glyph.text for glyph in glyphs)
    is_turned = not text.isascii() and bool(RIGHT_TO_LEFT.search(text)) and runs_right_to_left(text)
    if is_turned:
        groups.reverse()
    pieces = []
    for number, group in enumerate(groups, start=1):
        piece = _piece(group, right_to_left=is_turned)
        if number < len(groups):
            piece = _with_text(piece, piece.text.rstrip() + " ")
        if piece.text:
            pieces.append(piece)
    return Line(tuple(pieces))


def _with_text(piece: Piece, text: str) -> Piece:
    return Piece(text, piece.left, piece.right, piece.baseline, piece.size, piece.font, piece.turn)


def _groups(glyphs: Sequence[Glyph]) -> Iterator[list[Glyph]]:
    """Split a line at wide gaps."""
    group: list[Glyph] = []
    for glyph in glyphs:
        if group and glyph.x - group[-1].to_x > _MAX_GAP_EM * max(group[-1].size, glyph.size):
            yield group
            group = []
        group.append(glyph)
    if group:
        yield group


def _piece(glyphs: list[Glyph], *, right_to_left: bool) -> Piece:
    first = glyphs[0]
    size, baseline, font = round(first.size, 2), round(first.y, 2), first.font
    is_mixed = any(
        glyph.y != first.y or glyph.size != first.size or glyph.font != font for glyph in glyphs
    )
    if is_mixed:
        size, baseline, font = _main(glyphs)
    spaced = list(_with_spaces(glyphs))
    text = "".join(glyph.text for glyph in spaced)
    if not text.isascii() and RIGHT_TO_LEFT.search(text):
        letters = [letter for glyph in spaced for letter in _letters(glyph)]
        spaced = logical(letters, right_to_left=right_to_left)
        text = base_letters("".join(glyph.text for glyph in spaced))
    elif is_mixed:
        text = raised_and_lowered([(glyph.text, _shift(glyph, baseline, size)) for glyph in spaced])
    return Piece(
        text,
        min(glyph.x for glyph in glyphs),
        max(glyph.to_x for glyph in glyphs),
        baseline,
        size,
        font,
        glyphs[0].angle,
    )


def _letters(glyph: Glyph) -> Iterator[Glyph]:
    """Yield each letter of a word on its own, but whole what runs from right to left."""
    step = (glyph.to_x - glyph.x) / max(len(glyph.text), 1)
    for part in _PART.finditer(glyph.text):
        left, right = glyph.x + part.start() * step, glyph.x + part.end() * step
        yield replace(glyph, text=part[0], x=left, to_x=right)


def _main(glyphs: Sequence[Glyph]) -> tuple[float, float, str]:
    """Return the size, baseline and font of a piece: of most of it, unless that is an index."""
    sizes: Counter[tuple[float, float, str]] = Counter()
    for glyph in glyphs:
        sizes[round(glyph.size, 2), round(glyph.y, 2), glyph.font] += len(glyph.text.strip())
    (main, count), *others = sizes.most_common()
    if count <= _MAX_LEADING_SCRIPT:
        largest = max((entry for entry, number in others if number), default=main)
        if main[0] <= _MAX_SCRIPT_SIZE * largest[0]:
            return largest
    return main


def _shift(glyph: Glyph, baseline: float, size: float) -> int:
    """Return 1 for raised, -1 for lowered text, else 0."""
    up = glyph.y - baseline
    if abs(up) < _MIN_SCRIPT_SHIFT_EM * size:
        return 0
    if glyph.size > _MAX_SCRIPT_SIZE * size and not glyph.shift:
        return 0
    return 1 if up > 0 else -1


def _with_spaces(glyphs: list[Glyph]) -> Iterator[Glyph]:
    """Yield glyphs of one piece with a space in each gap between words."""
    gaps = [
        (after.x - before.to_x) / max(before.size, after.size, 0.1)
        for before, after in pairwise(glyphs)
    ]
    if max(gaps, default=0.0) < _MIN_SPACE_EM:
        yield from glyphs
        return
    text = "".join(glyph.text for glyph in glyphs)
    least = _MIN_SPACE_EM
    # Of formulas, only letters side by side tell: operators have gaps of their own.
    inner = [
        gap
        for gap, (left, right) in zip(gaps, pairwise(glyphs), strict=True)
        if left.text[-1:].isalnum() and right.text[:1].isalnum()
    ]
    inner += [0.0] * (len(text) - len(glyphs))
    if len(inner) >= 3:
        # Letters that are spaced out: words are further apart. Some pairs may be kerned.
        usual = sorted(inner)[len(inner) // 4]
        if 0.6 * least < usual <= _MAX_PITCH_GAP_EM:
            least = max(least, usual + 0.15, 1.5 * usual)
    yield glyphs[0]
    for at, (before, after) in enumerate(pairwise(glyphs)):
        if (
            gaps[at] >= least
            and not before.text[-1:].isspace()
            and not after.text[:1].isspace()
            and not (before.text[-1:] == after.text[:1] and after.text[:1] in _LEADERS)
            and not _has_pitch(glyphs, at)
        ):
            yield Glyph(
                *(" ", before.to_x, before.y, after.x, before.y, before.size),
                *(before.angle, before.font, before.operation),
            )
        yield after


def _has_pitch(glyphs: Sequence[Glyph], at: int) -> bool:
    """Whether the glyphs around a gap stand at equal distances, whatever their widths."""
    if at < 1 or at + 2 >= len(glyphs):
        return False
    if any(len(glyphs[n].text) > 1 for n in range(at - 1, at + 3)):
        return False
    if glyphs[at + 1].x - glyphs[at].to_x > _MAX_PITCH_GAP_EM * glyphs[at].size:
        return False
    steps = [glyphs[n + 1].x - glyphs[n].x for n in (at - 1, at, at + 1)]
    return max(steps) - min(steps) < 0.02 * glyphs[at].size
