import pytest

from hga_chat.screen.widgets.block_cells import BlockCells


@pytest.mark.parametrize(
    ("blocks", "halves"),
    [
        # 8 lines of 40 cells: squares of 4 × 2, 2 × 1, or 1 × ½ cells; a cell has two halves.
        (20, 4 * 4),
        (100, 2 * 2),
        (500, 1),
    ],
)
def test_blocks_are_as_large_as_fits_and_shown_once(blocks, halves):
    counts = [0] * blocks
    for row in BlockCells(blocks, 40, 8).rows:
        for cell in row:
            for block in cell:
                counts[block] += 1
    assert counts == [halves] * blocks


@pytest.mark.parametrize("is_shaded", [False, True])
@pytest.mark.parametrize("is_strip", [False, True])
def test_every_block_is_shown_where_cells_are_shared(is_shaded, is_strip):
    cells = BlockCells(1500, 40, 1 if is_strip else 8, is_shaded, is_strip)
    shown = {block for row in cells.rows for cell in row for block in cell}
    assert shown == set(range(1500))
    assert cells.across == 1


def test_a_line_spans_the_blocks_of_its_cells():
    assert BlockCells(20, 40, 8).spans[:5] == [(0, 10), (0, 10), (10, 20), (10, 20), (0, 0)]
    assert BlockCells(100, 40, 2, is_shaded=True).spans == [(0, 50), (50, 100)]


def test_no_blocks_have_no_cells():
    assert not any(cell for row in BlockCells(0, 40, 8).rows for cell in row)
