import io

import pytest
from pypdf import PageObject, PdfReader, PdfWriter
from pypdf.generic import (
    ArrayObject,
    DecodedStreamObject,
    DictionaryObject,
    NameObject,
    NumberObject,
)

from hga_chat.documents.pdf.glyphs import Interpreter
from hga_chat.documents.pdf.lines import Line, lines_of

WIDTHS = dict.fromkeys(range(32, 127), 500) | {32: 250}


def _page(content: bytes, font: DictionaryObject | None = None) -> PageObject:
    """Return a page whose font F has letters half as wide as high."""
    writer = PdfWriter()
    page = writer.add_blank_page(600, 800)
    if font is None:
        widths = ArrayObject([NumberObject(WIDTHS[code]) for code in range(32, 127)])
        font = DictionaryObject(
            {
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Even"),
                NameObject("/FirstChar"): NumberObject(32),
                NameObject("/Widths"): widths,
                NameObject("/Encoding"): NameObject("/WinAnsiEncoding"),
            }
        )
    fonts = DictionaryObject({NameObject("/F"): writer._add_object(font)})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    stream = DecodedStreamObject()
    stream.set_data(content)
    page[NameObject("/Contents")] = writer._add_object(stream)
    buffer = io.BytesIO()
    writer.write(buffer)
    return PdfReader(buffer).pages[0]


def _lines(content: bytes, font: DictionaryObject | None = None) -> list[Line]:
    page = _page(content, font)
    shown = Interpreter(page.pdf).page(page)
    return lines_of(shown.glyphs, shown.rules)


def test_positions_and_widths() -> None:
    (line,) = _lines(b"BT /F 10 Tf 100 700 Td (four) Tj ET")
    (piece,) = line.pieces
    assert (piece.text, piece.left, piece.right) == ("four", 100, 120)
    assert (piece.baseline, piece.size, piece.font) == (700, 10, "Even")


def test_matrices_scale_and_move() -> None:
    (line,) = _lines(b"q 2 0 0 2 10 20 cm BT /F 10 Tf 1 0 0 1 100 300 Tm (four) Tj ET Q")
    (piece,) = line.pieces
    assert (piece.left, piece.right, piece.baseline, piece.size) == (210, 250, 620, 20)


def test_wide_gaps_separate_pieces() -> None:
    in_one_array, by_moves = _lines(
        b"BT /F 10 Tf 100 700 Td [(left) -9000 (right)] TJ ET "
        b"BT /F 10 Tf 100 680 Td (left) Tj 110 0 Td (right) Tj ET"
    )
    for line in (in_one_array, by_moves):
        assert [piece.text.strip() for piece in line.pieces] == ["left", "right"]
        assert [piece.left for piece in line.pieces] == [100, 210]
        assert line.pieces[1].right == 235
        assert line.text == "left right"


def test_consecutive_strings_are_joined() -> None:
    (line,) = _lines(b"BT /F 10 Tf 100 700 Td (one) Tj (two) Tj [-300 (three)] TJ ET")
    assert line.text == "onetwo three"
    (piece,) = line.pieces
    assert (piece.left, piece.right) == (100, 158)


@pytest.mark.parametrize(("move", "text"), [(38, "kerned"), (40, "kerned"), (44, "ker ned")])
def test_justified_text_has_no_spaces_within_words(move: int, text: str) -> None:
    # "a b ker" is 40 points wide, including 10 points of word spacing.
    content = f"BT /F 10 Tf 5 Tw 100 700 Td (a b ker) Tj {move} 0 Td (ned) Tj ET"
    (line,) = _lines(content.encode())
    assert line.text == f"a b {text}"


def test_justified_text_has_single_spaces() -> None:
    justified, typed = _lines(
        b"BT /F 10 Tf 100 700 Td [(and) -400 ( so) -400 ( on)] TJ 0 -12 Td (a  b) Tj ET"
    )
    assert (justified.text, typed.text) == ("and so on", "a  b")


def test_sideways_text_becomes_upright() -> None:
    down, up = (
        [line.text for line in _lines(b"BT /F 10 Tf %b Tm 12 TL (one) Tj T* (two) Tj ET" % matrix)]
        for matrix in (b"0 -1 1 0 300 700", b"0 1 -1 0 300 100")
    )
    assert down == up == ["one", "two"]
    lines = _lines(
        b"BT /F 10 Tf 0 1 -1 0 20 400 Tm (stamp) Tj ET BT /F 10 Tf 100 700 Td (much more) Tj ET"
    )
    assert [(line.text, line.pieces[0].turn) for line in lines] == [
        ("much more", 0),
        ("stamp", 90),
    ]


def test_numbers_out_of_range() -> None:
    grow = b"%b 0 0 1 0 0 cm " % (b"9" * 40)
    (line,) = _lines(grow * 9 + b"BT /F 10 Tf 100 700 Td (far) Tj ET")
    assert (line.text, line.pieces[0].left) == ("far", 0)


def test_dots_that_lead_to_a_page_number_do_not_make_words_of_a_title_one(text_of) -> None:
    dots = b" ".join(b"-190 (.)" for _ in range(40))
    line = b"BT /F1 12 Tf 72 700 Td [(Research) -250 (question) %b -270 (11)] TJ ET" % dots
    assert text_of(line).startswith("Research question")


def test_words_of_two_fonts_with_a_gap_for_a_space_stay_two(text_of) -> None:
    # As typesetters change to italics: the space is a move of 0.21 em between two strings.
    line = (
        b"BT /F1 10 Tf 72 700 Td (as free as possible) Tj 85.5 0 Td (from the control of) Tj "
        b"[( the past.) -210 (A free) -10 (ly given) 15 ( one)] TJ ET"
    )
    assert text_of(line) == "as free as possible from the control of the past. A freely given one"


def test_words_beside_formulas_stay_apart(text_of) -> None:
    # As TeX sets text around short formulas: every gap is 0.28 or 0.33 em.
    items = (b"X", b"=", b"Y", b"gibt", b"es", b"ein", b"g", b"=", b"G", b"mit", b"P", b"<", b"g")
    line = b" -330 ".join(b"(%b)" % item for item in items)
    text = text_of(b"BT /F1 11 Tf 72 700 Td [%b] TJ ET" % line)
    assert text == "X = Y gibt es ein g = G mit P < g"


def test_letters_that_are_spaced_out_make_words(text_of) -> None:
    letters = b" -250 ".join(b"(%c)" % letter for letter in b"CHAPTER")
    more = b" -250 ".join(b"(%c)" % letter for letter in b"ONE")
    assert text_of(b"BT /F1 11 Tf 72 700 Td [%b -800 %b] TJ ET" % (letters, more)) == "CHAPTER ONE"


def test_letters_at_one_pitch_make_a_word_and_cells_far_apart_do_not(text_of) -> None:
    def at(pitch: int) -> str:
        shown = b" ".join(b"1 0 0 1 %d 700 Tm (%d) Tj" % (72 + pitch * n, n) for n in range(1, 8))
        return text_of(b"BT /F1 10 Tf %b ET" % shown)

    assert at(8) == "1234567"
    assert at(13) == "1 2 3 4 5 6 7"


def test_letters_set_by_character_spacing_leave_room_for_others(text_of) -> None:
    # As MathType writes D log c + p log n: letters of one font far apart, the others between them.
    content = (
        b"BT /F1 10 Tf 1 0 0 1 81 700 Tm (log) Tj 1 0 0 1 106 700 Tm (+) Tj "
        b"12.78 Tc 1 0 0 1 72 700 Tm (D) Tj 26 0 Td (c) Tj 17 0 Td (p) Tj ET"
    )
    assert text_of(content) == "D log c + p"


def test_character_spacing_can_run_backwards(text_of) -> None:
    # Each letter is set before the one that the file has before it.
    content = b"BT /F1 10 Tf -10 Tc 1 0 0 1 172 700 Tm (cba) Tj ET"
    assert text_of(content) == "abc"


def test_a_space_that_begins_within_a_letter_stays_before_it(text_of) -> None:
    # 15 is written last, so that the line is sorted by place; the space begins 0.1 points after a.
    content = (
        b"BT /F1 10 Tf 1 0 0 1 90 700 Tm (x) Tj 1 0 0 1 85.1 700 Tm ( ) Tj "
        b"1 0 0 1 85 700 Tm (a) Tj 1 0 0 1 72 700 Tm (15) Tj ET"
    )
    assert text_of(content) == "15 ax"
