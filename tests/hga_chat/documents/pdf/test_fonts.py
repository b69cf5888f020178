"""What codes stand for (ISO 32000-2, 9.6.5, 9.7.5, 9.10), in files made here from the standard."""

import pytest

from tests.hga_chat.documents.pdf.conftest import stream

TYPE1 = stream(
    b"%!PS-AdobeFont-1.0: X\n/Encoding 256 array\n0 1 255 {1 index exch /.notdef put} for\n"
    b"dup 65 /m put\ndup 66 /mu put\nreadonly def\ncurrentfile eexec\n"
)
EMBEDDED = {20: b"<< /Type /FontDescriptor /FontName /X /Flags 4 /FontFile 21 0 R >>", 21: TYPE1}


def _type1(entries: bytes) -> dict[str, bytes]:
    return {"F2": b"<< /Type /Font /Subtype /Type1 /BaseFont /AAAAAA+X %b >>" % entries}


def _composite(encoding: bytes, ordering: bytes = b"Japan1", more: bytes = b"") -> dict[str, bytes]:
    descendant = (
        b"<< /Type /Font /Subtype /CIDFontType0 /BaseFont /X /DW 1000 "
        b"/CIDSystemInfo << /Registry (Adobe) /Ordering (%b) /Supplement 2 >> >>" % ordering
    )
    font = b"<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding %b /DescendantFonts [%b] %b >>"
    return {"F2": font % (encoding, descendant, more)}


def _show(codes: bytes) -> bytes:
    return b"BT /F2 12 Tf 72 700 Td <%b> Tj ET" % codes.hex().encode()


def test_a_built_in_encoding_holds_where_nothing_else_is_said(text_of) -> None:
    fonts = _type1(b"/FontDescriptor 20 0 R")
    assert text_of(_show(b"AB"), fonts=fonts, objects=EMBEDDED) in ("mμ", "mµ")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        (b"/WinAnsiEncoding", "AB"),
        (b"<< /BaseEncoding /MacRomanEncoding >>", "AB"),
        (b"<< /Differences [66 /greaterequal] >>", "m≥"),
        (b"<< /BaseEncoding /WinAnsiEncoding /Differences [65 /uni2265 /f_i.alt] >>", "≥fi"),
    ],
)
def test_encodings_of_the_resource(text_of, encoding: bytes, text: str) -> None:
    fonts = _type1(b"/FontDescriptor 20 0 R /Encoding " + encoding)
    assert text_of(_show(b"AB"), fonts=fonts, objects=EMBEDDED) == text


def test_a_map_to_unicode_wins(text_of) -> None:
    names = stream(b"1 beginbfrange <41> <42> [<00B5> <0067>] endbfrange")
    fonts = _type1(b"/Encoding /WinAnsiEncoding /ToUnicode 22 0 R")
    assert text_of(_show(b"AB"), fonts=fonts, objects={22: names}) == "µg"


def test_a_map_to_nothing_does_not_hide_the_encoding(text_of) -> None:
    names = stream(b"2 beginbfchar <41> <0000> <42> <FFFD> endbfchar")
    fonts = _type1(b"/Encoding /WinAnsiEncoding /ToUnicode 22 0 R")
    assert text_of(_show(b"AB"), fonts=fonts, objects={22: names}) == "AB"


@pytest.mark.parametrize(
    ("font", "codes", "text"),
    [
        (b"/Symbol", b"m\xb3", "μ≥"),
        (b"/Symbol /Encoding /WinAnsiEncoding", b"m\xb3", "μ≥"),
        (b"/ABCDEF+SymbolMT", b"m\xb0", "μ°"),
        (b"/ZapfDingbats", b"4", "✔"),
        (b"/Wingdings", b"\xfe\xa8", "☑◻"),
    ],
)
def test_symbol_fonts(text_of, font: bytes, codes: bytes, text: str) -> None:
    fonts = {"F2": b"<< /Type /Font /Subtype /Type1 /BaseFont %b >>" % font}
    assert text_of(_show(codes), fonts=fonts) == text


@pytest.mark.parametrize(("font", "text"), [(b"Symbol", "µ ≥"), (b"Wingdings", "☐ ☑")])
def test_private_use_characters_of_symbol_fonts(text_of, font: bytes, text: str) -> None:
    pairs = {b"Symbol": b"<01> <F06D> <02> <F0B3>", b"Wingdings": b"<01> <F0A8> <02> <F0FE>"}
    names = stream(b"2 beginbfchar %b endbfchar" % pairs[font])
    fonts = {
        "F2": b"<< /Type /Font /Subtype /TrueType /BaseFont /ABCDEF+%b /ToUnicode 22 0 R >>" % font
    }
    shown = text_of(_show(b"\1") + b" BT /F2 12 Tf 92 700 Td <02> Tj ET", fonts=fonts,
                    objects={22: names})  # fmt: skip
    assert shown.replace("μ", "µ").replace("◻", "☐") == text


@pytest.mark.parametrize(
    ("cmap", "codec", "text"),
    [
        ("90ms-RKSJ-H", "cp932", "価格は30円です"),
        ("90ms-RKSJ-V", "cp932", "価格は円です"),
        ("GBK-EUC-H", "gbk", "价格是30元"),
        ("GBK2K-H", "gb18030", "价格是30元"),
        ("ETen-B5-H", "cp950", "價格是30元"),
        ("HKscs-B5-H", "big5hkscs", "價格是30元"),
        ("UniJIS-UCS2-H", "utf-16-be", "価格は30円です"),
        ("UniJIS-UTF16-H", "utf-16-be", "価格は𠮟円です"),
        ("UniGB-UTF8-H", "utf-8", "价格是30元"),
        ("UniKS-UTF32-H", "utf-32-be", "가격은 30원"),
    ],
)
def test_predefined_cmaps(text_of, cmap: str, codec: str, text: str) -> None:
    fonts = _composite(b"/" + cmap.encode())
    assert text_of(_show(text.encode(codec)), fonts=fonts) == text


def test_seven_bit_cmaps(text_of) -> None:
    codes = bytes(byte & 0x7F for byte in "가격".encode("euc_kr"))
    assert text_of(_show(codes), fonts=_composite(b"/KSC-H", b"Korea1")) == "가격"


def test_an_embedded_cmap_that_extends_a_predefined_one(text_of) -> None:
    cmap = stream(b"/EUC-H usecmap\n1 begincidchar <a1a1> 1 endcidchar", b"/UseCMap /EUC-H")
    fonts = _composite(b"22 0 R")
    assert text_of(_show("価格".encode("euc_jp")), fonts=fonts, objects={22: cmap}) == "価格"


def test_codes_of_one_and_two_bytes(text_of) -> None:
    cmap = stream(
        b"2 begincodespacerange <00> <80> <8140> <9ffc> endcodespacerange "
        b"1 begincidrange <20> <7e> 231 endcidrange"
    )
    names = stream(b"3 beginbfchar <41> <0041> <8140> <00B5> <42> <0067> endbfchar")
    fonts = _composite(b"22 0 R", more=b"/ToUnicode 23 0 R")
    shown = text_of(_show(b"A\x81\x40B"), fonts=fonts, objects={22: cmap, 23: names})
    assert shown == "Aµg"


def test_character_collections(text_of) -> None:
    # Adobe Technical Note 5078: the Hiragana of Adobe-Japan1 begin with CID 842.
    fonts = _composite(b"/Identity-H", b"Japan1")
    codes = b"".join(cid.to_bytes(2) for cid in (842, 843, 844, 845))
    assert text_of(_show(codes), fonts=fonts) == "ぁあぃい"
