"""Puts the glyphs of a line of right-to-left script in logical order.

A PDF has glyphs by place. This inverts the reordering of the Unicode Bidirectional Algorithm (UAX
#9) for one level of embedding: right-to-left text with numbers and left-to-right words in it.
"""

import re
import unicodedata
from collections.abc import Sequence

from hga_chat.documents.pdf.glyphs import Glyph

_PRESENTED = re.compile("[\ufb1d-\ufdff\ufe70-\ufefc]+")
_MIRRORED = dict(zip("()[]{}<>«»", ")(][}{><»«", strict=True))
_KINDS = {"R": "R", "AL": "R", "L": "L", "EN": "N", "AN": "N", "ES": "S", "CS": "S", "ET": "T"}
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")


def base_letters(text: str) -> str:
    """Return Hebrew and Arabic presentation forms as the letters they present."""
    return _PRESENTED.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)


def runs_right_to_left(text: str) -> bool:
    """Whether most letters of a line run from right to left."""
    kinds = [_kind(character) for character in text]
    return 0 < kinds.count("R") >= kinds.count("L")


def logical(glyphs: Sequence[Glyph], *, right_to_left: bool) -> list[Glyph]:
    """Return the glyphs of a piece, given from left to right, in the order in which to read them.

    Args:
        glyphs: Glyphs; brackets in them are mirrored where they have to be.
        right_to_left: Whether the line as a whole runs from right to left.
    """
    levels = _resolve([_kind(glyph.text) for glyph in glyphs], "R" if right_to_left else "L")
    runs: list[tuple[str, list[Glyph]]] = []
    for glyph, level in zip(glyphs, levels, strict=True):
        if runs and runs[-1][0] == level:
            runs[-1][1].append(glyph)
        else:
            runs.append((level, [glyph]))
    mirror = _shows_shapes("".join(glyph.text for glyph in glyphs))
    ordered: list[Glyph] = []
    for level, run in reversed(runs) if right_to_left else runs:
        if level == "R":
            run = run[::-1]
            if mirror:
                for glyph in run:
                    glyph.text = _MIRRORED.get(glyph.text, glyph.text)
        ordered += run
    return ordered


def _kind(text: str) -> str:
    """Return R or L for a letter, N for a digit, T and S for what goes with digits, else a blank.

    T is a sign that belongs to a number on either side, S one that does between two digits.
    """
    for character in text:
        kind = unicodedata.bidirectional(character)
        found = _KINDS.get(kind)
        if found:
            return found
    return " "


def _resolve(kinds: Sequence[str], base: str) -> list[str]:
    """Return the direction of each glyph: numbers run left to right, neutrals as what is around."""
    classes = list(kinds)
    for at, kind in enumerate(kinds):
        around = [kinds[n] for n in (at - 1, at + 1) if 0 <= n < len(kinds)]
        if (kind == "S" and around == ["N", "N"]) or (kind == "T" and "N" in around):
            classes[at] = "N"
        elif kind in "ST":
            classes[at] = " "
    directions = ["L" if kind == "N" else kind for kind in classes]
    at = 0
    while at < len(classes):
        if classes[at] != " ":
            at += 1
            continue
        end = at
        while end < len(classes) and classes[end] == " ":
            end += 1
        before = classes[at - 1] if at else base
        after = classes[end] if end < len(classes) else base
        # A number counts as left to right only beside such letters.
        sides = {before, after}
        level = "R" if sides <= {"R"} else "L" if "L" in sides and "R" not in sides else base
        directions[at:end] = [level] * (end - at)
        at = end
    return directions


def _shows_shapes(visual: str) -> bool:
    """Whether brackets are given by shape: from left to right, they then open before they close."""
    depth = 0
    for character in visual:
        if character in _OPENING:
            return True
        if character in _CLOSING:
            return False
    return depth == 0
