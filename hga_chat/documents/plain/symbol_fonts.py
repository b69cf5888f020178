"""Text of symbol fonts whose codes or private-use characters stand for symbols."""

import sys

from pypdf._codecs import charset_encoding

# Wingdings by code, as far as documents use it: boxes, bullets, arrows, signs. From the mapping
# in Unicode's proposal L2/12-368.
_WINGDINGS = {
    **dict(zip(range(0x21, 0x30), "✏✂✁👓🔔📖🕯☎✆✉📩📪📫📬📭", strict=True)),
    **dict(zip(range(0x41, 0x51), "✌👌👍👎☜☞☝☟✋☺😐☹💣☠⚐🏱", strict=True)),
    **dict(zip(range(0x6C, 0x79), "●❍■□🞐❑❒⬧⧫◆❖⬥⌧", strict=True)),
    **dict(zip(range(0x80, 0x96), "⓪①②③④⑤⑥⑦⑧⑨⑩⓿❶❷❸❹❺❻❼❽❾❿", strict=True)),
    0x9E: "·",
    0x9F: "•",
    0xA0: "⚫",
    0xA1: "○",
    0xA4: "◉",
    0xA5: "◎",
    0xA7: "▪",
    0xA8: "◻",
    0xAB: "★",
    0xD5: "⌫",
    0xD6: "⌦",
    0xD8: "➢",
    0xDC: "➲",
    **dict(zip(range(0xDF, 0xF9), "←→↑↓↖↗↙↘🡨🡪🡩🡫🡬🡭🡯🡮⇦⇨⇧⇩⇔⇕⬀⬁⬃⬂", strict=True)),
    0xFB: "✗",
    0xFC: "✓",
    0xFD: "☒",
    0xFE: "☑",
}
# The other fonts of symbols that come with Windows, likewise.
_WINGDINGS_2 = {
    **dict(zip(range(0x4F, 0x58), "✗✓☒☑☒☒⮾⮿⦸", strict=True)),
    **dict(zip(range(0x69, 0x80), "⓪①②③④⑤⑥⑦⑧⑨⑩⓿❶❷❸❹❺❻❼❽❾❿ ", strict=True)),
    **dict(zip(range(0x95, 0x9A), "⋅••●○", strict=True)),
    **dict(zip(range(0xA0, 0xA4), "▪◾■□", strict=True)),
    0xAE: "◆",
    0xAF: "◇",
    0xF8: "※",
    0xF9: "⁂",
}
_WINGDINGS_3 = {
    **dict(zip(range(0x21, 0x29), "←→↑↓↖↗↙↘", strict=True)),
    **dict(zip(range(0x66, 0x6E), "←→↑↓↖↗↙↘", strict=True)),
    **dict(zip(range(0x70, 0x7C), "▲▼△▽◀▶◁▷◣◢◤◥", strict=True)),
    **dict(zip(range(0x7C, 0x81), "◀▶▲ ▼", strict=True)),
    **dict(zip(range(0x85, 0x89), "⮜➤⮝⮟", strict=True)),
}
_WEBDINGS = {
    **dict(zip(range(0x33, 0x37), "◀▶▲▼", strict=True)),
    0x61: "✓",
    0x63: "☐",
    0x67: "■",
    0x69: "ℹ",
    0x6E: "●",
    0x72: "✗",
    0x73: "❓",
}
_WINDOWS_FONTS = {
    "wingdings2": _WINGDINGS_2,
    "wingdings3": _WINGDINGS_3,
    "wingdings": _WINGDINGS,
    "webdings": _WEBDINGS,
}


PRIVATE_CODES = range(0xF020, 0xF100)
"""Where fonts of symbols put the glyphs of the codes from 0x20."""
# The units and boxes that are meant by these symbols.
_MEANT = str.maketrans("μ◻", "µ□")


def shown_symbol(font: str, code: int) -> str:
    """Return what a code or character shows in a font of symbols; in others, the character."""
    small = code - PRIVATE_CODES.start + 0x20 if code in PRIVATE_CODES else code
    shown = symbol_of_code(font, small)
    if shown is not None:
        return shown.translate(_MEANT)
    if code in PRIVATE_CODES:
        return "\ufffd" if is_symbol_font(font) else chr(small)
    return chr(code) if 0x20 <= code < 0xD800 or 0xF900 <= code <= sys.maxunicode else ""


def symbol_of(font: str, text: str) -> str:
    """Replace private-use characters of Symbol, Wingdings and ZapfDingbats by what they show.

    Other text is returned as it is. The fonts put the glyph of code ``c`` at U+F000 + ``c``.
    """
    if len(text) != 1 or not 0xF020 <= ord(text) <= 0xF0FF:
        return text
    return symbol_of_code(font, ord(text) - 0xF000) or text


def is_symbol_font(font: str) -> bool:
    """Whether the characters of a font are symbols whatever their codes."""
    return _codes(font) is not None or symbol_encoding(font) is not None


def symbol_of_code(font: str, code: int) -> str | None:
    """Return what a code of a symbol font shows; None if the font is none or the code unknown."""
    codes = _codes(font)
    if codes is not None:
        return codes.get(code)
    encoding = symbol_encoding(font)
    shown = encoding[code] if encoding and code < len(encoding) else ""
    return shown if shown and shown.isprintable() else None


def _codes(font: str) -> dict[int, str] | None:
    name = font.rpartition("+")[2].casefold().replace(" ", "").replace("-", "")
    return next((codes for start, codes in _WINDOWS_FONTS.items() if name.startswith(start)), None)


def symbol_encoding(font: str) -> list[str] | None:
    """Return the built-in encoding of Symbol or ZapfDingbats; None for other fonts."""
    name = font.rpartition("+")[2].casefold()
    if name.startswith(("symbol", "standardsymbols")) and not name.startswith("symbola"):
        return charset_encoding["/Symbol"]
    if name.startswith(("zapfdingbats", "dingbats", "itczapfdingbats")):
        return charset_encoding["/ZapfDingbats"]
    return None
