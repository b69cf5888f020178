from collections import Counter

import pytest
from textual.app import App
from textual.content import Content

from hga_chat.screen.drawing.bars import bar, two_ends
from hga_chat.screen.drawing.legend import SOURCE, WINDOW, legend, sign
from hga_chat.screen.drawing.themes import NIGHT, SIXTEEN
from hga_chat.screen.widgets.block_map import BlockMap

LEGEND = 1
"""Lines of a map below its blocks."""


class MapApp(App):
    def __init__(self, lines=None, theme=None, is_plain=False):
        super().__init__()
        self.map = BlockMap(id="map", lines=lines)
        self.map.is_plain = is_plain
        if theme is not None:
            self.register_theme(theme)
            self.theme = theme.name

    def get_theme_variable_defaults(self):
        return NIGHT.variables

    def compose(self):
        yield self.map

    def colours(self, y):
        """Upper and lower colour of each cell of a line."""
        return [
            (segment.style.color.triplet.hex, segment.style.bgcolor.triplet.hex)
            for segment in self.map.render_line(y)
            for _ in segment.text
        ]


async def test_brightness_fades_to_the_level_of_the_whole_answer():
    app = MapApp()
    async with app.run_test(size=(40, 20)):
        block_map = app.map
        block_map.lay_out([0, 0, 0])
        block_map.light([0.0, 1.0, 0.5], [0.0, 1.0, 0.0])
        assert block_map.levels == [0.0, 1.0, 0.5]
        block_map.fade(0.6)  # one half-life
        assert block_map.levels == pytest.approx([0.0, 0.72, 0.25])
        block_map.fade(60)
        assert block_map.levels == pytest.approx([0.0, 0.72, 0.0])
        block_map.clear()
        assert block_map.levels == [0.0] * 3


async def test_colours_distinguish_prefilled_blocks_and_documents():
    app = MapApp(lines=1)
    async with app.run_test(size=(4, 3)) as pilot:
        app.map.lay_out([0, 1, 1, 1])
        await pilot.pause()
        app.map.fill(0.75)
        app.map.light(None, [0.0, 0.0, 1.0, 0.0])
        first, second, read, unread = [top for top, _ in app.colours(0)]
        assert len({first, second, read, unread}) == 4


@pytest.mark.parametrize(("across", "blocks", "lines"), [(4, 12, 4), (2, 48, 4), (1, 200, 4)])
async def test_blocks_of_sources_stand_out_from_everything_else(across, blocks, lines):
    app = MapApp(theme=NIGHT)
    async with app.run_test(size=(40, 24)) as pilot:
        app.map.styles.height = lines + LEGEND
        app.map.lay_out([0, 1] * (blocks // 2))
        app.map.fill(1.0)
        await pilot.pause()
        levels = [n / blocks for n in range(blocks)]
        app.map.light(levels, levels, {3}, [n == blocks - 1 for n in range(blocks)])
        assert app.map._cells.across == across
        colours = Counter(
            colour for y in range(app.map._area[1]) for pair in app.colours(y) for colour in pair
        )
        source, always = app.map._mix().ramps[0][SOURCE], app.map._mix().ramps[0][WINDOW]
        cells = colours[source.rich_color.triplet.hex]
        assert cells == colours[always.rich_color.triplet.hex] > 0
        contrast = [
            abs(source.brightness - other.brightness) + abs(source.hsl.h - other.hsl.h)
            for other in app.map._mix().ramps[0][:SOURCE]
        ]
        assert min(contrast) > 0.15


@pytest.mark.parametrize(("is_plain", "source", "always"), [(False, "◆", "="), (True, "@", "=")])
async def test_signs_mark_sources_and_the_window(is_plain, source, always):
    app = MapApp(theme=SIXTEEN, is_plain=is_plain)
    async with app.run_test(size=(40, 12)) as pilot:
        app.map.lay_out([0] * 10)
        app.map.fill(1.0)
        await pilot.pause()
        app.map.light([0.0] * 9 + [1.0], [0.0] * 10, {4}, [True] + [False] * 8 + [True])
        line = app.map.render_line(0).text
        assert [n for n, sign in enumerate(line) if sign == source] == [4]
        assert [n for n, sign in enumerate(line) if sign == always] == [0, 9]
        app.map.entitle("Blocks read", "answer")
        legend = app.map.render_line(app.map.size.height - LEGEND).text
        assert f"{source} source" in legend
        assert f"{always} always read" in legend
        assert "less" in legend


@pytest.mark.parametrize("kind", ["filling", "answer", "part", "missed", "lines"])
@pytest.mark.parametrize("width", [33, 39, 49])
def test_the_legend_fits_its_line(kind, width):
    shown = legend(kind, width, lambda level: sign(level, is_plain=True)).plain
    assert len(shown) <= width
    if kind == "answer":
        assert "@ source" in shown
        assert "= always" in shown


async def test_a_cell_of_several_blocks_shows_a_source_before_all_else():
    app = MapApp(lines=1, theme=SIXTEEN)
    async with app.run_test(size=(4, 3)) as pilot:
        app.map.lay_out([0] * 16)
        app.map.fill(1.0)
        await pilot.pause()
        always = [True] * 4 + [False] * 11 + [True]
        app.map.light(None, [0.0] * 4 + [1.0] * 12, {9}, always)
        # All of the first cell's blocks are always read, of the last cell's one.
        assert app.map.render_line(0).text == "=▓◆▓"


def test_a_bar_runs_from_empty_to_full():
    assert bar(0.0, 4).plain == "────"
    filled = [bar(share, 4).spans[0] for share in (0.5, 0.001, 1.0, 7.0)]
    assert [span.end - span.start for span in filled] == [2, 1, 4, 4]
    assert bar(0.625, 4).plain == "━━╸─"


def test_two_ends_shortens_the_left():
    assert two_ends(Content("left"), Content("right"), 12).plain == "left   right"
    assert two_ends(Content("much too long"), Content("right"), 12).plain == "much … right"
