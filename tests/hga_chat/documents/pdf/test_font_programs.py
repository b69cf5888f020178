"""Fonts built here, whose PDFs do not say what their codes stand for."""

import io

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.t2CharStringPen import T2CharStringPen
from fontTools.ttLib.tables._g_l_y_f import Glyph

from tests.hga_chat.documents.pdf.conftest import stream


def _true_type() -> bytes:
    """Return a font whose glyphs 1 to 3 are Ř, ř and one with a name alone, euro."""
    font = FontBuilder(1000)
    names = [".notdef", "first", "second", "euro"]
    font.setupGlyphOrder(names)
    font.setupCharacterMap({0x158: "first", 0x159: "second"})
    font.setupGlyf({name: Glyph() for name in names})
    font.setupHorizontalMetrics(dict.fromkeys(names, (500, 0)))
    font.setupHorizontalHeader()
    font.setupPost()
    found = io.BytesIO()
    font.save(found)
    return found.getvalue()


@pytest.mark.parametrize(
    ("places", "codes"), [(b"", b"000100020003"), (b"\0\0\0\3\0\2\0\1", b"000300020001")]
)
def test_codes_that_are_glyphs_of_an_embedded_font(text_of, places: bytes, codes: bytes) -> None:
    to_glyphs = b"/CIDToGIDMap 22 0 R" if places else b"/CIDToGIDMap /Identity"
    descendant = (
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /X /DW 500 %b /FontDescriptor "
        b"<< /Type /FontDescriptor /FontFile2 21 0 R >> >>" % to_glyphs
    )
    font = (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H "
        b"/DescendantFonts [%b] >>" % descendant
    )
    objects = {21: stream(_true_type()), 22: stream(places)}
    content = b"BT /F2 12 Tf 72 700 Td <%b> Tj ET" % codes
    assert text_of(content, fonts={"F2": font}, objects=objects) == "Řř€"


def _cff(*encoded: str) -> bytes:
    """Return a CFF font with an encoding of its own: its glyphs from code 0."""
    font = FontBuilder(1000, isTTF=False)
    names = [".notdef", *(name for name in encoded if name != ".notdef")]
    font.setupGlyphOrder(names)
    shape = T2CharStringPen(500, None).getCharString()
    font.setupCFF("X", {}, dict.fromkeys(names, shape), {})
    top = font.font["CFF "].cff.topDictIndex[0]
    top.Encoding = [*encoded] + [".notdef"] * (256 - len(encoded))
    found = io.BytesIO()
    font.font["CFF "].cff.compile(found, font.font)
    return found.getvalue()


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        ((".notdef", "beta", "at"), "β@"),
        # Code 0 is the minus of TeX's symbols. Scattered codes and a row of them are stored in two
        # ways.
        (("minus", "beta", ".notdef", "at"), "−β"),
        (("minus", *(f"uni{0x410 + n:04X}" for n in range(100))), "−АБ"),
    ],
)
def test_the_encoding_inside_a_cff_font(text_of, encoded: tuple[str, ...], text: str) -> None:
    font = (
        b"<< /Type /Font /Subtype /Type1 /BaseFont /X /FirstChar 0 /LastChar 2 "
        b"/Widths [500 500 500] /FontDescriptor "
        b"<< /Type /FontDescriptor /Flags 4 /FontFile3 21 0 R >> >>"
    )
    objects = {21: stream(_cff(*encoded), b"/Subtype /Type1C")}
    content = b"BT /F2 12 Tf 72 700 Td <000102> Tj ET"
    assert text_of(content, fonts={"F2": font}, objects=objects) == text


@pytest.mark.parametrize("data", [b"", b"\0\1\0\0\xff\xff", b"OTTO" * 50])
def test_damaged_fonts_leave_their_characters_unnamed(text_of, data: bytes) -> None:
    descendant = (
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /X "
        b"/FontDescriptor << /Type /FontDescriptor /FontFile2 21 0 R >> >>"
    )
    font = (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H "
        b"/DescendantFonts [%b] >>" % descendant
    )
    content = b"BT /F1 12 Tf 72 700 Td (text) Tj /F2 12 Tf <0001> Tj ET"
    shown = text_of(content, fonts={"F2": font}, objects={21: stream(data)})
    assert shown == "text\ufffd"


@pytest.mark.parametrize(
    ("names", "codes", "text"),
    [
        (b"65 /a65 /C42 /XYZ", b"ABC", "ABC"),  # numbers of codes, and a Type 3 font's own name
        (b"65 /g1 /alpha", b"B", "α"),
    ],
)
def test_glyph_names_that_say_nothing(text_of, names: bytes, codes: bytes, text: str) -> None:
    font = (
        b"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 1 1] /FontMatrix [1 0 0 1 0 0] "
        b"/FirstChar 65 /LastChar 67 /Widths [0.5 0.5 0.5] /CharProcs << >> "
        b"/Encoding << /Differences [%b] >> >>" % names
    )
    content = b"BT /F2 12 Tf 72 700 Td (%b) Tj ET" % codes
    assert text_of(content, fonts={"F2": font}) == text
