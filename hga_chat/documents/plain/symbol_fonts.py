"""Text of symbol fonts whose codes or private-use characters stand for symbols."""

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


def symbol_of(font: str, text: str) -> str:
    """Replace private-use characters of Symbol, Wingdings and ZapfDingbats by what they show.

    Other text is returned as it is. The fonts put the glyph of code ``c`` at U+F000 + ``c``.
    """
    if len(text) != 1 or not 0xF020 <= ord(text) <= 0xF0FF:
        return text
    return symbol_of_code(font, ord(text) - 0xF000) or text


def symbol_of_code(font: str, code: int) -> str | None:
    """Return what a code of a symbol font shows; None if the font is none or the code unknown."""
    name = font.rpartition("+")[2].casefold()
    if name.startswith("wingdings") and not name.startswith(("wingdings2", "wingdings3")):
        return _WINGDINGS.get(code)
    encoding = symbol_encoding(font)
    shown = encoding[code] if encoding and code < len(encoding) else ""
    return shown if shown and shown.isprintable() else None


def symbol_encoding(font: str) -> list[str] | None:
    """Return the built-in encoding of Symbol or ZapfDingbats; None for other fonts."""
    name = font.rpartition("+")[2].casefold()
    if name.startswith(("symbol", "standardsymbols")) and not name.startswith("symbola"):
        return charset_encoding["/Symbol"]
    if name.startswith(("zapfdingbats", "dingbats", "itczapfdingbats")):
        return charset_encoding["/ZapfDingbats"]
    return None
