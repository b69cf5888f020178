"""Composes letters with the accents that are set over them, and relations with their strokes.

TeX's older fonts have no accented letters: ``ï`` is a dieresis and a dotless i at one place, and
``≠`` a stroke over ``=``.
"""

import unicodedata
from collections.abc import Sequence

from hga_chat.documents.pdf.glyphs import Glyph

_SPACING = "`´ˆ^˜~¯˘˙¨˚˝ˇ¸˛"
_COMBINING = dict(
    zip(
        _SPACING,
        "\u0300\u0301\u0302\u0302\u0303\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327\u0328",
        strict=True,
    )
)
_STROKES = frozenset("/\u2044\u0338")
_STROKE = "\u0338"
_RELATIONS = frozenset("=<>≡∼≃≅≈≤≥∈∋⊂⊃⊆⊇∃∣∥⊢⊨→←↔⇒⇐⇔")
_MARKS = _STROKES | _COMBINING.keys()
_DOTLESS = {"ı": "i", "ȷ": "j"}
_SLACK_EM = 0.05
_MAX_SHIFT_EM = 0.8


def with_accents(glyphs: Sequence[Glyph]) -> list[Glyph]:
    """Return the glyphs with each accent composed with the letter that it stands over or under.

    Args:
        glyphs: Glyphs in the order of the file, in which an accent is next to its letter. They are
            changed.
    """
    kept: list[Glyph] = []
    last: Glyph | None = None
    for glyph in glyphs:
        if (
            last is not None
            and (last.text[-1:] in _MARKS or glyph.text[:1] in _MARKS)
            and _are_near(last, glyph)
        ):
            _join(last, glyph)
            if not last.text:
                kept.pop()
            if not glyph.text:
                last = kept[-1]
                continue
        kept.append(glyph)
        last = glyph
    return kept


def _join(last: Glyph, glyph: Glyph) -> None:
    """Move a mark at the end of one glyph or the start of the next to the letter it belongs to."""
    if last.text[-1:] in _MARKS and _is_within(_end(last), _start(glyph), glyph.size):
        letter = _composed(glyph.text[0], last.text[-1])
        if letter:
            glyph.text = letter + glyph.text[1:]
            last.text, last.to_x = last.text[:-1], min(last.to_x, glyph.x)
    elif glyph.text[:1] in _MARKS and _is_within(_start(glyph), _end(last), last.size):
        letter = _composed(last.text[-1], glyph.text[0])
        if letter:
            last.text = last.text[:-1] + letter
            glyph.text, glyph.x = glyph.text[1:], max(glyph.x, last.to_x)


def _are_near(one: Glyph, other: Glyph) -> bool:
    is_level = one.angle == other.angle and abs(one.y - other.y) <= _MAX_SHIFT_EM * other.size
    return is_level and bool(one.text and other.text)


def _start(glyph: Glyph) -> tuple[float, float]:
    """Return from where to where a glyph's first character reaches."""
    return glyph.x, glyph.x + (glyph.to_x - glyph.x) / len(glyph.text)


def _end(glyph: Glyph) -> tuple[float, float]:
    return glyph.to_x - (glyph.to_x - glyph.x) / len(glyph.text), glyph.to_x


def _is_within(mark: tuple[float, float], letter: tuple[float, float], size: float) -> bool:
    """Whether the middle of a mark is over a letter."""
    slack = _SLACK_EM * size
    return letter[0] - slack <= sum(mark) / 2 <= letter[1] + slack


def _composed(letter: str, mark: str) -> str:
    """Return a letter with its accent, or a relation with its stroke; empty if none."""
    if mark in _STROKES:
        mark = _STROKE if letter in _RELATIONS else ""
    else:
        mark = _COMBINING[mark] if unicodedata.category(letter)[0] in "LS" else ""
    letter = _DOTLESS.get(letter, letter)
    return unicodedata.normalize("NFC", letter + mark) if mark else ""
