"""Bell and notification: OSC 9 as iTerm2 documents it, OSC 777 as urxvt and foot do."""

import pytest

from hga_chat.screen.alert import alert


def test_nothing_calls_a_user_who_is_there():
    assert alert("Done.", {"TERM": "xterm"}, is_away=False) == ""


def test_only_the_bell_rings_if_the_terminal_does_not_tell_or_has_no_desktop():
    assert alert("Done.", {"TERM": "xterm"}, is_away=None) == "\x07"
    assert alert("Done.", {"TERM": "linux"}, is_away=True) == "\x07"


@pytest.mark.parametrize(
    ("environment", "sequence"),
    [
        ({"TERM": "xterm-kitty"}, "\x1b]9;Done.\x07"),
        ({"TERM": "foot"}, "\x1b]777;notify;hga-chat;Done.\x07"),
        ({"TERM": "xterm", "VTE_VERSION": "7600"}, "\x1b]777;notify;hga-chat;Done.\x07"),
        ({"TERM": "tmux", "TMUX": "x"}, "\x1bPtmux;\x1b\x1b]9;Done.\x07\x1b\\"),
    ],
)
def test_each_terminal_is_told_in_its_own_way(environment, sequence):
    assert alert("Done.", environment, is_away=True) == "\x07" + sequence


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 2), (1e9, 0)])
async def test_long_reading_and_long_answers_call(
    scripted, opened, until, monkeypatch, threshold, count
):
    monkeypatch.setattr("hga_chat.screen.app.LONG_S", threshold)
    called = []
    monkeypatch.setattr(
        "hga_chat.screen.app.alert", lambda text, *_, **__: called.append(text) or ""
    )
    async with opened(scripted(["Calm."]).make) as (app, pilot):
        await until(pilot, lambda: app.flow.is_free)
        app.prompt.text = "sea"
        await pilot.press("enter")
        await until(pilot, lambda: app.flow.is_free and app.transcript.turns[0].text)
        assert called == ["The documents are read.", "The answer is complete."][:count]
