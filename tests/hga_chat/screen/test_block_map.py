import pytest
from textual.app import App
from textual.content import Content

from hga_chat.screen.widgets.bars import bar, two_ends
from hga_chat.screen.widgets.block_map import BlockMap


class MapApp(App):
    def __init__(self, lines=None):
        super().__init__()
        self.map = BlockMap(id="map", lines=lines)

    def compose(self):
        yield self.map

    def colours(self, y):
        """Upper and lower colour of each cell of a line."""
        return [
            (segment.style.color.triplet.hex, segment.style.bgcolor.triplet.hex)
            for segment in self.map.render_line(y)
            for _ in segment.text
        ]


@pytest.mark.parametrize(
    ("blocks", "cells"),
    [
        # 40 cells wide, at most 8 lines of 20: squares of 4 × 2, 2 × 1, or 1 × ½ cells.
        (20, 4 * 4),
        (100, 2 * 2),
        (500, 1),
    ],
)
async def test_blocks_are_as_large_as_fits_and_cover_the_map_once(blocks, cells):
    async with MapApp().run_test(size=(40, 20)) as pilot:
        block_map = pilot.app.map
        block_map.styles.height = 8
        block_map.lay_out([0] * blocks)
        await pilot.pause()
        counts = [0] * blocks
        for row in range(16):
            for x in range(40):
                for block in block_map._blocks_at(x, row):
                    counts[block] += 1
    # A cell is two half lines high: 4 × 2 cells are 16 half cells, and so on.
    assert counts == [cells] * blocks


async def test_more_blocks_than_cells_share_cells_and_none_is_lost():
    async with MapApp().run_test(size=(40, 20)) as pilot:
        block_map = pilot.app.map
        block_map.styles.height = 8
        block_map.lay_out([0] * 1500)
        await pilot.pause()
        shown = {
            block for row in range(16) for x in range(40) for block in block_map._blocks_at(x, row)
        }
    assert shown == set(range(1500))


async def test_brightness_fades_to_what_was_read_in_all():
    async with MapApp().run_test(size=(40, 20)) as pilot:
        block_map = pilot.app.map
        block_map.lay_out([0, 0, 0])
        block_map.light([0.0, 1.0, 0.5], [0.0, 1.0, 0.0])
        assert block_map.levels == [0.0, 1.0, 0.5]
        block_map.fade(0.6)  # one half-life
        assert block_map.levels == pytest.approx([0.0, 0.72, 0.25])
        block_map.fade(60)
        assert block_map.levels == pytest.approx([0.0, 0.72, 0.0])
        block_map.clear()
        assert block_map.levels == [0.0] * 3


async def test_colours_tell_unread_from_read_and_documents_apart():
    app = MapApp(lines=1)
    async with app.run_test(size=(4, 3)) as pilot:
        app.map.lay_out([0, 1, 1, 1])
        await pilot.pause()
        app.map.fill(0.75)
        app.map.light(None, [0.0, 0.0, 1.0, 0.0])
        first, second, read, unread = [top for top, _ in app.colours(0)]
        assert len({first, second, read, unread}) == 4


def test_bar_runs_from_nothing_to_capacity():
    assert bar(0.0, 4).plain == "────"
    filled = [bar(share, 4).spans[0] for share in (0.5, 0.001, 1.0, 7.0)]
    assert [span.end - span.start for span in filled] == [2, 1, 4, 4]
    assert bar(0.625, 4).plain == "━━╸─"


def test_two_ends_shorten_the_left():
    assert two_ends(Content("left"), Content("right"), 12).plain == "left   right"
    assert two_ends(Content("much too long"), Content("right"), 12).plain == "much … right"
