import pytest

from tools.measure.pdf_words import score, without_repeated_edges, words_of


def test_words_in_a_form_that_programs_agree_on() -> None:
    assert words_of("Obser-\nvation of H₂O, x_{ij} and 5mm") == (
        ["observation", "of", "h", "2", "o", "xij", "and", "5", "mm"]
    )
    assert words_of("na\u0131\u0308ve ﬁne") == ["naïve", "fine"]
    assert words_of("東京 a") == ["東", "京", "a"]


def test_of_what_runs_on_every_page_the_first_is_wanted() -> None:
    pages = [
        f"THE BOOK\n\nText {a}\nof {b}\n\n{n}"
        for n, (a, b) in enumerate((("a", "b"), ("c", "d"), ("e", "f")))
    ]
    assert [words_of(page) for page in without_repeated_edges(pages)] == [
        ["the", "book", "text", "a", "of", "b"],
        ["text", "c", "of", "d"],
        ["text", "e", "of", "f"],
    ]


def test_a_header_that_repeats_a_title_is_not_wanted() -> None:
    pages = ["1\nfirst\nsecond\nthird\nThe Creek\nfourth\nfifth\nsixth", "1. THE CREEK\nmore\nend"]
    assert "CREEK" not in without_repeated_edges(pages)[1]
    assert "The Creek" in without_repeated_edges(pages)[0]


@pytest.mark.parametrize(
    ("found", "any_order", "in_order", "side_by_side"),
    [
        ("one two\nthree four", 1.0, 1.0, 1.0),
        ("three four\none two", 1.0, 0.5, 1.0),
        ("one three\ntwo four", 1.0, 0.75, 0.0),
        ("onetwo three four", 0.5, 0.5, 0.5),
        ("", 0.0, 0.0, 0.0),
    ],
)
def test_scores(found: str, any_order: float, in_order: float, side_by_side: float) -> None:
    (page,) = score("a.pdf", ["one two\nthree four"], [found])
    assert (page.any_order, page.in_order, page.side_by_side) == (any_order, in_order, side_by_side)
