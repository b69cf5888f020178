"""Writes raised and lowered text so that it stays apart from what it stands by."""

import re
from collections.abc import Sequence
from itertools import groupby

_RAISED = str.maketrans("0123456789+-−–=()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻⁼⁽⁾ⁿⁱ")
_LOWERED = str.maketrans("0123456789+-−–=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₋₌₍₎")
_PLAIN = re.compile(r"[\d+\-−–=()]+(?:[.,;]?\s?[\d+\-−–=()]+)*[.,;]?")
_ORDINAL = re.compile(r"[ao]s?|ers?|e|es|de|re|me|ème|st|nd|rd|th|tm|sm|[ºª°®™*†‡§¶′″'’”“`´,.;:]+")
# Notes, and their pages as in [1]: 207.
_NOTE = re.compile(r"\[.*\]|:\s*\d[\d\s,–-]*")


def raised_and_lowered(glyphs: Sequence[tuple[str, int]]) -> str:
    """Return the text of a piece, given each glyph's text and shift (1 raised, -1 lowered, 0).

    Digits and signs become superscripts and subscripts, as in 10⁻⁶ and H₂O; anything else is
    written as in TeX, ``x_i`` and ``e^{2x}``. Ordinals and marks are left as they are.
    """
    if all(shift for text, shift in glyphs if text.strip()):
        return "".join(text for text, _ in glyphs)
    groups = (
        (shift, "".join(text for text, _ in group))
        for shift, group in groupby(glyphs, lambda glyph: glyph[1])
    )
    return "".join(script(text, shift) if shift else text for shift, text in groups)


def script(text: str, shift: int) -> str:
    """Return raised (``shift`` 1) or lowered (-1) text in a linear form."""
    bare = text.strip()
    if not bare or _ORDINAL.fullmatch(bare.casefold()) or _NOTE.fullmatch(bare):
        return text
    lead, trail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    if _PLAIN.fullmatch(bare) or (shift > 0 and bare in ("n", "i")):
        return lead + bare.translate(_RAISED if shift > 0 else _LOWERED) + trail
    if shift > 0 and len(bare) > 3 and bare.isalpha():
        return text
    if len(bare) > 1:
        bare = f"{{{bare}}}"
    return f"{lead}{'^' if shift > 0 else '_'}{bare}{trail}"
