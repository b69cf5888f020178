"""The arrangement of a map's blocks in the cells of a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

SCALES = ((4, 4), (2, 2), (2, 1), (1, 1))
"""Cells across a block and half lines down it, largest first; equal numbers look square."""


@dataclass(frozen=True)
class BlockCells:
    """Blocks in rows of cells.

    A row is half a line, as a cell has an upper and a lower half in colours of their own. With
    signs instead of colours a row is a line.

    Attributes:
        blocks: number of blocks.
        width: cells of a line.
        height: lines.
        is_shaded: whether signs stand for brightness.
        is_strip: whether the map is a single line, filled by all blocks.
    """

    blocks: int
    width: int
    height: int
    is_shaded: bool = False
    is_strip: bool = False

    @cached_property
    def rows(self) -> list[list[range]]:
        """The blocks of each cell, by rows; a cell without blocks has an empty range."""
        rows = self.height if self.is_shaded else 2 * self.height
        return [[self.blocks_at(x, row) for x in range(self.width)] for row in range(rows)]

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """For each line, its first block and one past its last."""
        size = len(self.rows) // max(self.height, 1)
        return [
            _span([cell for row in self.rows[begin : begin + size] for cell in row])
            for begin in range(0, len(self.rows), max(size, 1))
        ]

    @property
    def across(self) -> int:
        """Neighbouring cells that show the same block."""
        return 1 if self._is_crowded else scale_for(self.blocks, self.width, self.height)[0]

    @property
    def _is_crowded(self) -> bool:
        """Whether a cell may have to show several blocks."""
        return self.is_strip or lines_for(self.blocks, self.width, SCALES[-1]) > self.height

    def blocks_at(self, x: int, row: int) -> range:
        """Return the blocks of a cell."""
        if self.is_shaded and not self.is_strip:
            cells = max(self.width * self.height, 1)
            cell = row * self.width + x
            if self.blocks <= cells:
                return range(cell, cell + 1) if cell < self.blocks else range(0)
            return range(cell * self.blocks // cells, (cell + 1) * self.blocks // cells)
        if self._is_crowded:
            cells = self.width * (1 if self.is_strip else self.height * 2)
            cell = x if self.is_strip else row * self.width + x
            begin, end = cell * self.blocks // cells, (cell + 1) * self.blocks // cells
            return range(begin, max(end, begin + 1)) if begin < self.blocks else range(0)
        across, down = scale_for(self.blocks, self.width, self.height)
        columns, column = self.width // across, x // across
        block = (row // down) * columns + column
        return range(block, block + 1) if column < columns and block < self.blocks else range(0)


def lines_for(blocks: int, width: int, scale: tuple[int, int]) -> int:
    """Return the number of lines that ``blocks`` take at ``scale``."""
    rows = -(-blocks // max(width // scale[0], 1))
    return -(-rows * scale[1] // 2)


def scale_for(blocks: int, width: int, height: int) -> tuple[int, int]:
    """Return the largest scale at which ``blocks`` fit; the smallest if none does."""
    return next((s for s in SCALES if lines_for(blocks, width, s) <= height), SCALES[-1])


def _span(cells: Sequence[range]) -> tuple[int, int]:
    shown = [cell for cell in cells if cell]
    return min((c.start for c in shown), default=0), max((c.stop for c in shown), default=0)
