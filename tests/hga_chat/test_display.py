import pytest

from hga_chat.display import displayable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("naïve 漢字 🙂", "naïve 漢字 🙂"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]52;c;AAAA\x07", "␛]52;c;AAAA␇"),
        ("a\x00b\rc\x7f", "a␀b␍c␡"),
        ("\x9b2J", "<U+009B>2J"),
        ("access\u202e level\u2066", "access<U+202E> level<U+2066>"),
        ("one\u2028two\u200f", "one<U+2028>two<U+200F>"),
        ("\udc80", "<U+DC80>"),
    ],
)
def test_controls_become_visible(text: str, shown: str) -> None:
    assert displayable(text) == shown


def test_no_character_that_controls_a_terminal_is_left() -> None:
    shown = displayable("".join(map(chr, range(0x110000))))
    left = [char for char in shown if ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0]
    assert sorted(set(left)) == ["\t", "\n"]
    shown.encode("utf-8")
