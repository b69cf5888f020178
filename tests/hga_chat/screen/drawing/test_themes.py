import pytest
from rich.segment import Segment
from textual.color import Color

from hga_chat.screen.drawing.themes import PlainSigns, is_plain, theme_for


@pytest.mark.parametrize(
    ("name", "environment", "theme"),
    [
        ("day", {}, "day"),
        ("auto", {"TERM": "xterm-256color"}, "night"),
        ("auto", {"TERM": "xterm-256color", "COLORFGBG": "0;15"}, "day"),
        ("auto", {"TERM": "linux"}, "sixteen"),
        ("auto", {"TERM": "linux", "COLORTERM": "truecolor"}, "night"),
        ("auto", {"TERM": "xterm-256color", "NO_COLOR": "1"}, "sixteen"),
    ],
)
def test_theme_follows_the_terminal(name, environment, theme):
    assert theme_for(name, environment).name == theme


@pytest.mark.parametrize(
    ("environment", "plain"),
    [
        ({"TERM": "vt100", "LANG": "en_US.UTF-8"}, True),
        ({"LANG": "de_DE.ISO-8859-1"}, True),
        ({"LC_ALL": "C.utf8", "LANG": "de_DE.ISO-8859-1"}, False),
        ({}, False),
    ],
)
def test_ascii_if_the_terminal_asks_for_it(environment, plain):
    assert is_plain(environment) is plain


def test_signs_become_plain_and_keep_their_width():
    text = "╭─▌• ━╸ “ü” …"
    (segment,) = PlainSigns().apply([Segment(text)], Color(0, 0, 0))
    assert segment.text == '+-|* == "ü" .'
    assert len(segment.text) == len(text)
