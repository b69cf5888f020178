import pytest

from hga_chat.documents.plain.scripts import script


@pytest.mark.parametrize(
    ("text", "shift", "written"),
    [
        ("6", 1, "⁶"),
        ("-9", 1, "⁻⁹"),
        (" 2 ", -1, " ₂ "),
        ("n", 1, "ⁿ"),
        ("max", -1, "_{max}"),
        ("2x", 1, "^{2x}"),
        ("i,j", -1, "_{i,j}"),
        ("st", 1, "st"),
        ("™", 1, "™"),
        ("[3]", 1, "[3]"),
        ("", 1, ""),
    ],
)
def test_raised_and_lowered(text: str, shift: int, written: str) -> None:
    assert script(text, shift) == written
