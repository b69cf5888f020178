import pytest

from hga_chat.documents.plain.numerals import html_numeral


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (3, "1", "3"),
        (1, "a", "a"),
        (26, "A", "Z"),
        (27, "a", "aa"),
        (703, "a", "aaa"),
        (1994, "I", "MCMXCIV"),
        (4, "i", "iv"),
        (4000, "I", "4000"),
        (0, "a", "0"),
        (-1, "i", "-1"),
    ],
)
def test_numerals(number: int, kind: str, text: str) -> None:
    assert html_numeral(number, kind) == text
