"""Finds what the glyphs of an embedded font stand for, where the PDF itself does not say."""

import io
from typing import Any

_NO_NAMES = (None, "", ".notdef")


def cff_encoding(data: bytes) -> dict[int, str]:
    """Return the glyph names of a CFF font by code; none if it has a predefined encoding."""
    from fontTools.cffLib import CFFFontSet

    fonts = CFFFontSet()
    try:
        fonts.decompile(io.BytesIO(data), None)
        names = fonts.topDictIndex[0].Encoding
        first = "" if isinstance(names, str) else _name_of_code_zero(data, fonts.topDictIndex[0])
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a damaged font raises anything
        return {}
    if isinstance(names, str):
        return {}
    names = [first or names[0], *names[1:256]]
    return {code: str(name) for code, name in enumerate(names) if name not in _NO_NAMES}


def _name_of_code_zero(data: bytes, font: Any) -> str:
    """Return what code 0 stands for, which fontTools leaves out: the minus of TeX's symbols.

    The encoding is a list of codes or of ranges, in the order of the glyphs (Adobe technical note
    5176, section 12).
    """
    at = font.rawDict["Encoding"]
    kind, count = data[at] & 0x7F, data[at + 1]
    entries = data[at + 2 : at + 2 + count * (kind + 1)]
    codes: list[int] = list(entries)
    if kind == 1:
        ranges = zip(entries[::2], entries[1::2], strict=True)
        codes = [first + more for first, left in ranges for more in range(left + 1)]
    # Some programs give this code to all glyphs without one.
    return str(font.charset[codes.index(0) + 1]) if codes.count(0) == 1 else ""


def true_type_glyphs(data: bytes) -> list[str]:
    """Return a name for each glyph of a TrueType font; none if the font is damaged.

    Glyphs that the font has for a character are named by it, as ``u0041``.
    """
    from fontTools.ttLib import TTFont

    try:
        font = TTFont(io.BytesIO(data), lazy=True)
        names = [str(name) for name in font.getGlyphOrder()]
        if "cmap" in font:
            numbers = {name: at for at, name in enumerate(names)}
            for code, name in sorted((font.getBestCmap() or {}).items(), reverse=True):
                names[numbers[name]] = f"u{code:04X}"
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a damaged font raises anything
        return []
    return names
