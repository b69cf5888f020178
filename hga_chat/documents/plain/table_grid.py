"""Puts the cells of table rows into columns, with cells that span several rows or columns.

As in the HTML Standard, section "Forming a table"; Word's tables follow the same rules.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

_MAX_COLUMNS = 64
_MAX_REPEATED_CHARS = 60
_MAX_REPEATED = 2_000

Cell = TypeVar("Cell")


class Grid(Generic[Cell]):
    """Remembers which columns of the next rows are taken by cells of the rows before."""

    def __init__(self) -> None:
        self._taken: dict[int, tuple[int, str]] = {}
        self._repeated = 0

    def place(self, cells: Sequence[tuple[Cell, str, int, int]]) -> list[Cell | str]:
        """Return what stands in each column of the next row.

        A short cell that spans rows is repeated as text in each; the other columns of a cell that
        spans columns are empty.

        Args:
            cells: Each cell with its text and how many columns and rows it spans, from 1.
        """
        columns: list[Cell | str] = []
        taken = self._taken
        self._taken = {}
        for cell, text, width, height in cells:
            self._fill(columns, taken)
            at = len(columns)
            columns.append(cell)
            width = min(width, _MAX_COLUMNS - at)
            for column in range(at, at + max(width, 1)):
                if column > at:
                    columns.append("")
                    taken.pop(column, None)
                if height > 1:
                    shown = text if column == at and len(text) <= _MAX_REPEATED_CHARS else ""
                    self._taken[column] = (height - 1, shown)
        self._fill(columns, taken)
        # What is taken further right stays so.
        for column, (rows, text) in taken.items():
            if rows > 1:
                self._taken.setdefault(column, (rows - 1, text))
        return columns

    def end_group(self) -> None:
        """End a group of rows, which no cell reaches beyond."""
        self._taken.clear()

    def _fill(self, columns: list[Cell | str], taken: dict[int, tuple[int, str]]) -> None:
        """Add the columns that cells of earlier rows take."""
        while len(columns) in taken:
            column = len(columns)
            rows, text = taken.pop(column)
            if rows > 1:
                self._taken[column] = (rows - 1, text)
            self._repeated += bool(text)
            columns.append(text if self._repeated <= _MAX_REPEATED else "")
