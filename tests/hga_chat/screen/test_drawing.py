"""Only changes are drawn; the terminal must show what a full redraw would."""

import asyncio

import pytest
from rich.cells import cell_len
from textual.widget import Widget

TEXT = "\n\n".join(" ".join(f"word{n}" for n in range(m, m + 40)) for m in range(0, 400, 40))
PANELS = ("documents", "map", "memory")


class Terminal:
    """The cells of a terminal, assembled from everything that an app draws."""

    def __init__(self, app):
        self._console = app.console
        self.cells = {}
        display = app._display

        def draw(screen, update):
            if update is not None:
                self._draw(update)
            display(screen, update)

        app._display = draw

    def _draw(self, update):
        x = y = 0
        for text, style, control in update.__rich_console__(self._console, self._console.options):
            if control:
                (_, x, y) = control[0]
                continue
            for sign in text.rstrip("\n"):
                self.cells[x, y] = (sign, style)
                x += cell_len(sign)

    def lines(self, size):
        return [[self.cells.get((x, y)) for x in range(size.width)] for y in range(size.height)]


def drawn_anew(app):
    for widget in app.screen.walk_children(Widget):
        widget._styles_cache.clear()
    return [
        [(sign, style) for text, style, _ in strip for sign in text]
        for strip in app.screen._compositor.render_strips()
    ]


def is_ready(app):
    return lambda: app.flow.is_free


async def settled(pilot, app):
    """Wait until the glow has faded and every frame is drawn."""
    for _ in range(200):
        await pilot.pause()
        if not any(app.panels.map._glow) and not app.screen._dirty_widgets:
            return
        await asyncio.sleep(0.05)
    pytest.fail("the map glows on")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_partial_drawing_shows_what_a_full_redraw_would(
    size, scripted, answer, opened, until, monkeypatch
):
    monkeypatch.setattr("hga_chat.screen.widgets.block_map.HALF_LIFE_S", 0.05)
    script = scripted([answer(TEXT, {12: 1.0, 40: 0.2}, hold_after=150), answer(TEXT, {30: 1.0})])
    async with opened(script.make, size) as (app, pilot):
        app.prompt.cursor_blink = False
        terminal = Terminal(app)
        app.screen.refresh(layout=True)
        await until(pilot, is_ready(app))
        app.flow.send("One?")
        await until(pilot, lambda: app.flow.turn and app.flow.turn.trace.tokens >= 150)
        for name in PANELS:
            app.panels.side.add_class(f"-no-{name}")
        await pilot.pause()
        script.engine.release.set()
        await until(pilot, is_ready(app))
        app.flow.send("Two?")
        await until(pilot, is_ready(app))
        for name in PANELS:
            app.panels.side.remove_class(f"-no-{name}")
        await settled(pilot, app)
        seen, anew = terminal.lines(app.size), drawn_anew(app)
        differ = {
            (x, y): (seen[y][x], anew[y][x])
            for y in range(app.size.height)
            for x in range(app.size.width)
            if seen[y][x] != anew[y][x]
        }
        assert not differ


async def test_folded_panels_request_no_frame(scripted, answer, opened, until, monkeypatch):
    monkeypatch.setattr("hga_chat.screen.app.PANELS_S", 0.1)
    script = scripted([answer(TEXT, {12: 1.0})])
    async with opened(script.make, (120, 40)) as (app, pilot):
        await until(pilot, is_ready(app))
        for name in PANELS:
            app.panels.side.add_class(f"-no-{name}")
        await pilot.pause()
        panels = [
            app.panels.document_tree,
            app.panels.map,
            app.panels.status_line.map,
            app.panels.memory,
            app.panels.speed,
        ]
        dirty = []
        for panel in panels:
            panel._set_dirty = lambda *_, panel=panel: dirty.append(panel)
        app.flow.send("How?")
        await until(
            pilot,
            lambda: app.flow.is_free and app.panels.map._totals and any(app.panels.map._totals),
        )
        await asyncio.sleep(0.3)  # three frames of the panels
        assert not dirty


async def test_a_new_word_draws_one_line_of_the_transcript(scripted, answer, opened, until):
    script = scripted([answer("word " * 5, hold_after=3)])
    async with opened(script.make, (120, 40)) as (app, pilot):
        await until(pilot, is_ready(app))
        app.flow.send("How?")
        await until(pilot, lambda: app.flow.turn and app.flow.turn.trace.tokens == 3)
        drawn = []
        app.transcript.refresh = lambda *regions, **_: drawn.append(regions)
        app.flow.turn.stream(" more")
        app.transcript.changed(app.flow.turn)
        ((region,),) = drawn
        assert region.height == 1
        del app.transcript.refresh
        script.engine.release.set()
        await until(pilot, is_ready(app))
