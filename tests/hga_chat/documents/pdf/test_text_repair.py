import pytest

from hga_chat.documents.pdf.text_repair import Vocabulary, plain


def test_ligatures_become_letters_and_controls_are_dropped() -> None:
    assert plain("o\ufb03ce \ufb02uid\u00a0\x1b[2J\ud800\r\nnext") == "office fluid [2J\nnext"


@pytest.mark.parametrize(
    ("elsewhere", "lines", "mended"),
    [
        ("the observatory", ["an observa-", "tory of"], ["an observatory", "of"]),
        ("", ["an observa-", "tory, of"], ["an observatory,", "of"]),
        ("", ["an observa-", "tory."], ["an observatory."]),
        ("a well-known one", ["a well-", "known one"], ["a well-known", "one"]),
        ("time and series", ["a time-", "series of"], ["a time-series", "of"]),
        ("under and stand", ["to under-", "stand"], ["to under-stand"]),
        ("understand under stand", ["to under-", "stand"], ["to understand"]),
        ("case", ["on a case-", "by-case basis"], ["on a case-by-case", "basis"]),
        ("established", ["well-estab-", "lished ways"], ["well-established", "ways"]),
        ("a TraceMonkey", ["in Trace-", "Monkey we"], ["in TraceMonkey", "we"]),
        ("French", ["non-", "French words"], ["non-", "French words"]),
        ("", ["in 17-", "19 and", "A-", "B"], ["in 17-", "19 and", "A-", "B"]),
        ("", ["of Jean-", "Luc"], ["of Jean-", "Luc"]),
        ("", ["a list -", "of what"], ["a list -", "of what"]),
        ("", ["draw\u00ad", "Ings co\u00adop"], ["drawIngs", "coop"]),
        ("", ["three lin-", "es bro-", "ken"], ["three lines", "broken"]),
        ("", ["the last-"], ["the last-"]),
        ("", ["a hyphen\u2010", "ated word"], ["a hyphenated", "word"]),
        ("", ["dear-", "", "gone"], ["dear-", "", "gone"]),
    ],
)
def test_words_broken_at_line_ends_are_rejoined(
    elsewhere: str, lines: list[str], mended: list[str]
) -> None:
    vocabulary = Vocabulary.of([[elsewhere], lines])
    assert list(vocabulary.rejoined(lines)) == mended


def test_halves_of_broken_words_are_not_words() -> None:
    vocabulary = Vocabulary.of([["the observa-", "tory is well-known"]])
    assert vocabulary.words == {"the", "is", "well-known", "well", "known"}


def test_words_broken_in_the_last_of_two_columns_do_not_go_on_in_the_first(text_of) -> None:
    def row(y: int, left: bytes, right: bytes) -> bytes:
        return b"1 0 0 1 72 %d Tm (%b) Tj 1 0 0 1 200 %d Tm (%b) Tj " % (y, left, y, right)

    captions = row(700, b"An angle", b"An outer an-") + row(688, b"of a square", b"gle of it")
    text = text_of(b"BT /F1 10 Tf %b ET" % captions)
    assert text == "An angle An outer an-\nof a square gle of it"
    # A line with wide gaps is no row of two columns.
    one = b"1 0 0 1 72 700 Tm (An) Tj 1 0 0 1 200 700 Tm (outer an-) Tj 1 0 0 1 72 688 Tm (gle) Tj"
    assert text_of(b"BT /F1 10 Tf %b ET" % one) == "An outer angle"
