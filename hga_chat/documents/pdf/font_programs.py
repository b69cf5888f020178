"""Finds what the glyphs of an embedded font stand for, where the PDF itself does not say."""

import io

_NO_NAMES = (None, "", ".notdef")


def cff_encoding(data: bytes) -> dict[int, str]:
    """Return the glyph names of a CFF font by code; none if it has a predefined encoding."""
    from fontTools.cffLib import CFFFontSet

    fonts = CFFFontSet()
    try:
        fonts.decompile(io.BytesIO(data), None)
        names = fonts.topDictIndex[0].Encoding
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a damaged font raises anything
        return {}
    if isinstance(names, str):
        return {}
    return {code: str(name) for code, name in enumerate(names[:256]) if name not in _NO_NAMES}


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
