"""Marked content, layers, overprinting and right-to-left text, in files made here."""

import pytest

from hga_chat.documents.pdf.worker import extract
from tests.hga_chat.documents.pdf.conftest import pdf_of, stream


def _said(properties: bytes, shown: bytes = b"(??) Tj") -> bytes:
    return b"BT /F1 12 Tf 72 700 Td (The code is ) Tj /Span %b BDC %b EMC ( today.) Tj ET" % (
        properties,
        shown,
    )


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"(4711)", "The code is 4711 today."),
        (b"<FEFF0034003700310031>", "The code is 4711 today."),
        (b"<EFBBBFC2B5>", "The code is µ today."),
        (b"()", "The code is today."),
    ],
)
def test_replacement_text(text_of, said: bytes, text: str) -> None:
    assert " ".join(text_of(_said(b"<< /ActualText %b >>" % said)).split()) == text


def test_replacement_text_in_named_properties(text_of) -> None:
    resources = b"/Properties << /P1 << /ActualText (4711) >> >>"
    assert text_of(_said(b"/P1"), resources=resources) == "The code is 4711 today."


def test_nested_replacement_text(text_of) -> None:
    inner = b"(a) Tj /Span << /ActualText (b) >> BDC (c) Tj EMC"
    shown = text_of(_said(b"<< /ActualText (4711) >>", inner))
    assert shown == "The code is 4711 today."


def test_replacement_text_that_only_repeats_the_glyphs_keeps_their_places(text_of) -> None:
    shown = b"72 700 Td (one) Tj 0 -20 Td (two) Tj"
    two = b"BT /F1 12 Tf /P << /ActualText (one two) >> BDC %b EMC ET" % shown
    assert text_of(two) == "one\ntwo"


def test_layers_that_are_off() -> None:
    content = (
        b"/OC /L1 BDC BT /F1 12 Tf 72 700 Td (draft) Tj ET EMC "
        b"/OC /L2 BDC BT /F1 12 Tf 72 680 Td (final) Tj ET EMC /X Do"
    )
    form = stream(
        b"BT /F1 12 Tf 72 660 Td (watermark) Tj ET",
        b"/Type /XObject /Subtype /Form /BBox [0 0 600 800] /Resources 3 0 R /OC 20 0 R",
    )
    data = pdf_of(
        content,
        objects={20: b"<< /Type /OCG /Name (a) >>", 21: b"<< /Type /OCG /Name (b) >>", 22: form},
        resources=b"/Properties << /L1 20 0 R /L2 21 0 R >> /XObject << /X 22 0 R >>",
        catalog=b"/OCProperties << /OCGs [20 0 R 21 0 R] /D << /OFF [20 0 R] >> >>",
    )
    answer = extract(data)
    assert answer["pages"][0]["text"] == "final"
    assert answer["left_out"] == ["text of layers that are off (on 1 page)"]


def test_text_outside_the_page_is_left_out_and_counted() -> None:
    answer = extract(pdf_of(b"BT /F1 12 Tf 72 700 Td (in) Tj 900 0 Td (out) Tj ET"))
    assert answer["pages"][0]["text"] == "in"
    assert answer["left_out"] == ["text outside the page (on 1 page)"]


@pytest.mark.parametrize(
    "content",
    [
        b"BT /F1 12 Tf 72 700 Td (bookkeeping 110) Tj 0.4 0 Td (bookkeeping 110) Tj ET",
        b"BT /F1 12 Tf 72 700 Td (bookkeeping 110) Tj ET "
        b"BT /F1 12 Tf 72.8 699.3 Td (bookkeeping 110) Tj ET",
        b"BT /F1 12 Tf 72 700 Td [(book) 0 (keeping 110)] TJ 0 0 Td (book) Tj (keeping 110) Tj ET",
    ],
)
def test_overprinted_text_is_shown_once(text_of, content: bytes) -> None:
    assert text_of(content) == "bookkeeping 110"


def test_lines_over_each_other_that_differ_stay(text_of) -> None:
    lines = b"BT /F1 12 Tf 72 700 Td (1110) Tj 0 -12 Td (1110) Tj ET"
    assert text_of(lines) == "1110\n1110"


HEBREW = "אבגדהוזחטיךכלםמןנסעףפץצקרשת"


def _right_to_left(visual: str) -> tuple[bytes, dict]:
    """Return content that shows ``visual`` from left to right, and its font."""
    letters = sorted(set(visual))
    pairs = b" ".join(
        b"<%04X> <%04X>" % (n, ord(letter)) for n, letter in enumerate(letters, start=1)
    )
    names = stream(b"%d beginbfchar %b endbfchar" % (len(letters), pairs))
    descendant = b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /X /DW 500 >>"
    font = (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H "
        b"/DescendantFonts [%b] /ToUnicode 22 0 R >>" % descendant
    )
    codes = "".join(f"{letters.index(letter) + 1:04X}" for letter in visual).encode()
    content = b"BT /F2 12 Tf 72 700 Td <%b> Tj ET" % codes
    return content, {"fonts": {"F2": font}, "objects": {22: names}}


@pytest.mark.parametrize(
    ("logical", "visual"),
    [
        ("מחיר 12.50 ליום", "םויל 12.50 ריחמ"),
        ("בתאריך 12/05/2025 נחתם", "םתחנ 12/05/2025 ךיראתב"),
        ("הנחה 15% היום", "םויה 15% החנה"),
        ("גרסת Windows 11 חדשה", "השדח Windows 11 תסרג"),
        ("סכום (ללא מע״מ) 90", "90 (מ״עמ אלל) םוכס"),
        ("דף 12 13", "13 12 ףד"),
    ],
)
def test_right_to_left_text(text_of, logical: str, visual: str) -> None:
    content, entries = _right_to_left(visual)
    assert text_of(content, **entries) == logical


def test_right_to_left_words_in_a_left_to_right_line(text_of) -> None:
    content, entries = _right_to_left("the word םולש means peace")
    assert text_of(content, **entries) == "the word שלום means peace"


def test_right_to_left_text_written_in_logical_order(text_of) -> None:
    content, entries = _right_to_left("םולש")
    codes = content[content.index(b"<") + 1 : content.index(b">")]
    letters = [codes[at : at + 4] for at in range(0, len(codes), 4)][::-1]
    shown = b" ".join(
        b"1 0 0 1 %d 700 Tm <%b> Tj" % (90 - 6 * n, letter) for n, letter in enumerate(letters)
    )
    assert text_of(b"BT /F2 12 Tf %b ET" % shown, **entries) == "שלום"
