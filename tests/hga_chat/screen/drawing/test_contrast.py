"""Text can be read in both themes: contrast as WCAG 2 defines it, at least 4.5 to 1."""

import re

import pytest
from rich.cells import cell_len

from hga_chat.screen.app import ChatApp
from hga_engine.config import SamplingParams

LEAST = 4.5
TEXT = "# Sea\n\nThe sea is **calm** and `x`.\n\n> quoted\n\n```python\nx = 1  # one\n```"
WORDS = re.compile(r"\w")


def luminance(triplet):
    parts = [value / 255 for value in triplet]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def faint(app):
    """Words that are hard to read, with their contrast; what lies behind a dialog is left out."""
    found = {}
    dialog = next(iter(app.screen.query("#viewer, #help")), app.screen).region
    for y, strip in enumerate(app.screen._compositor.render_strips()):
        x = 0
        for text, style, _ in strip:
            is_behind = (x, y) not in dialog and y < app.size.height - 1
            x += cell_len(text)
            if is_behind or not WORDS.search(text):
                continue
            colours = [style.color.triplet, style.bgcolor.triplet]
            if style.reverse:
                colours.reverse()
            if style.dim:
                front, ground = colours
                mixed = zip(front, ground, strict=True)
                colours[0] = [one * 0.66 + other * 0.34 for one, other in mixed]
            ratio = contrast(*colours)
            if ratio < LEAST:
                found[text.strip()] = round(ratio, 2)
    return found


def test_contrast_follows_the_standard():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["night", "day"])
async def test_text_can_be_read(theme, scripted, answer, until, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    script = scripted(hold_prefill_after=2)
    reads = {n: 1.0 / (n + 1) for n in range(50)}
    script.engine._answers.append(answer(TEXT, reads, always=[0]))
    app = ChatApp(script.make, SamplingParams(), theme, plain=False)
    async with app.run_test(size=(200, 60)) as pilot:
        app.prompt.cursor_blink = False

        async def check():
            await pilot.pause()
            assert faint(app) == {}

        await until(pilot, lambda: app.flow.state.startswith("reading"))
        await check()
        app.flow.send("How is the sea?")
        await check()
        script.engine.release.set()
        await until(pilot, lambda: app.flow.is_free and app.transcript.turns)
        await until(pilot, lambda: app.transcript.colouring.is_done)
        await check()
        app.flow.turn = None
        app.transcript.note("A note.")
        for panel in (app.panels.document_tree, app.panels.map, app.transcript):
            panel.focus()
            await check()
        app.transcript.action_move(1)
        await pilot.press("right")
        await check()
        await pilot.press("escape", "ctrl+f", "s", "e", "a")
        await check()
        await pilot.press("escape")
        app.prompt.focus()
        await pilot.press("/")
        await check()
        await pilot.press("escape", "ctrl+o")
        await until(pilot, lambda: app.screen.query("#lines"))
        await check()
        await pilot.press("escape", "f1")
        await check()
    app.engine.join(10)
