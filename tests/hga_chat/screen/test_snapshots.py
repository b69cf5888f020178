"""The whole screen at three sizes and in three ways of drawing, against reviewed snapshots.

    UPDATE_SCREENS=1 python -m pytest tests/hga_chat/screen/test_snapshots.py

rewrites the files in tests/data/screens. Review the differences before committing them.
"""

import os
from pathlib import Path

import pytest

from hga_chat.screen.app import ChatApp
from hga_engine.config import SamplingParams

FOLDER = Path(__file__).parents[2] / "data" / "screens"
SIZES = [(80, 24), (120, 40), (200, 60)]
WAYS = {
    "colours": ({}, "night", False),
    "sixteen": ({}, "sixteen", False),
    "plain": ({"NO_COLOR": "1"}, "auto", True),
}
TEXT = (
    "# Sea\n\nThe sea is **calm**.\n\n- one\n- two\n\n"
    "```python\nx = 1\n```\n\n| a | b |\n|--|--|\n| 1 | 2 |"
)


def drawn(app):
    """Each line of the screen, and below it a letter for the colours of every cell."""
    letters = {}
    lines = []
    for strip in app.screen._compositor.render_strips():
        text, looks = "", ""
        for segment in strip:
            style = segment.style
            look = (str(style.color), str(style.bgcolor), style.bold, style.reverse)
            letter = letters.setdefault(look, chr(ord("a") + len(letters)))
            text += segment.text
            looks += letter * len(segment.text)
        lines += [text.rstrip(), looks]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
async def test_screen_matches_its_snapshot(size, way, scripted, answer, until, monkeypatch):
    environment, theme, plain = WAYS[way]
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("hga_chat.screen.opening.duration", lambda seconds: "0.1 s")
    script = scripted()
    reads = {script.group_of(" 50 of"): 3.0, script.group_of("The whale"): 1.0}
    script.engine._answers.append(answer(TEXT, reads))
    app = ChatApp(script.make, SamplingParams(), theme, plain)
    async with app.run_test(size=size) as pilot:
        app.prompt.cursor_blink = False
        await until(pilot, lambda: app.flow.state == "ready")
        app.flow.send("How is the sea?")
        await until(pilot, lambda: app.flow.state == "ready")
        # The pace of reading is a figure of this machine.
        app.transcript.show_card(app.flow._opening.start())
        app.panels.map.clear()
        app.panels.status_line.map.clear()
        app.show_trace()
        await until(pilot, lambda: app.transcript.colouring.is_done)
        await pilot.pause()
        found = drawn(app)
    app.engine.join(10)
    path = FOLDER / f"{size[0]}x{size[1]}-{way}.txt"
    if os.environ.get("UPDATE_SCREENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")
    if way == "plain":
        assert found.isascii()
        assert "ansi" not in found
