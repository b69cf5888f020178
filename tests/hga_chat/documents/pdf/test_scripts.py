"""Raised and lowered text, fractions and roots, in files made here."""

import pytest


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"(3 x 10) Tj 5 Ts /F1 7 Tf (6) Tj 0 Ts /F1 12 Tf ( cells) Tj", "3 x 10⁶ cells"),
        (b"(pore 10) Tj 0 5 Td /F1 7 Tf 42 0 Td (-9) Tj", "pore 10⁻⁹"),
        (b"(H) Tj /F1 8 Tf 8.7 -3 Td (2) Tj /F1 12 Tf 4.5 3 Td (O) Tj", "H₂O"),
        (b"(x) Tj -3 Ts /F1 8 Tf (max) Tj", "x_{max}"),
        (b"(e) Tj 5 Ts /F1 8 Tf (2x) Tj 0 Ts /F1 12 Tf ( grows) Tj", "e^{2x} grows"),
        (b"(a) Tj 5 Ts /F1 8 Tf (n) Tj", "aⁿ"),
        (b"(on the 1) Tj 5 Ts /F1 8 Tf (st) Tj 0 Ts /F1 12 Tf ( of May) Tj", "on the 1st of May"),
        (b"(51 tons) Tj 5 Ts /F1 8 Tf (1) Tj 0 Ts /F1 12 Tf (.) Tj", "51 tons¹."),
        (b"/F1 7 Tf 0 4 Td (2) Tj /F1 10 Tf 5 -4 Td (See the appendix.) Tj", "²See the appendix."),
    ],
)
def test_raised_and_lowered_text(text_of, content: bytes, text: str) -> None:
    assert text_of(b"BT /F1 12 Tf 72 700 Td %b ET" % content) == text


def test_text_that_is_all_small_or_all_raised_is_plain(text_of) -> None:
    assert text_of(b"BT /F1 7 Tf 5 Ts 72 700 Td (all of it 12) Tj ET") == "all of it 12"
    mixed = b"BT /F1 12 Tf 72 700 Td (Price ) Tj /F1 8 Tf (incl. 2 parts) Tj ET"
    assert text_of(mixed) == "Price incl. 2 parts"


FRACTION = (
    b"BT /F1 12 Tf 72 700 Td (Rate:) Tj ET BT /F1 12 Tf 110 707 Td (a + b) Tj ET %b "
    b"BT /F1 12 Tf 120 692 Td (c) Tj ET BT /F1 12 Tf 145 700 Td (= 5) Tj ET"
)


@pytest.mark.parametrize("bar", [b"110 703 27 0.6 re f", b"110 703.3 m 137 703.3 l S"])
def test_fractions(text_of, bar: bytes) -> None:
    assert text_of(FRACTION % bar) == "Rate: (a + b)/c = 5"


def test_underlines_and_rules_of_tables_are_no_fractions(text_of) -> None:
    underlined = (
        b"BT /F1 12 Tf 72 700 Td (see the ) Tj ET BT /F1 12 Tf 115 700 Td (note) Tj ET "
        b"115 698 25 0.6 re f BT /F1 12 Tf 142 700 Td (below,) Tj ET "
        b"BT /F1 12 Tf 72 686 Td (which is on the next page) Tj ET"
    )
    assert text_of(underlined) == "see the note below,\nwhich is on the next page"
    ruled = (
        b"BT /F1 12 Tf 110 707 Td (Rent) Tj ET 108 703 30 0.6 re f "
        b"BT /F1 12 Tf 110 690 Td (800) Tj ET"
    )
    assert text_of(ruled) == "Rent\n800"


def test_roots(text_of) -> None:
    symbol = b"<< /Type /Font /Subtype /Type1 /BaseFont /Symbol >>"
    root = (
        b"BT /F2 12 Tf 72 700 Td <d6> Tj ET 78.6 711 28 0.5 re f "
        b"BT /F1 12 Tf 79 700 Td (a + b) Tj ET BT /F1 12 Tf 110 700 Td (= c) Tj ET"
    )
    assert text_of(root, fonts={"F2": symbol}) == "√(a + b) = c"
