"""Positions of stacked pieces, without laying out those out of sight."""

import time
from bisect import bisect_right
from collections.abc import Sequence

from hga_chat.screen.transcript.pieces import Piece

LAYOUT_S = 0.02
"""Time limit of one layout; heights of the rest are estimated and corrected later."""


class Stack:
    """Pieces with their positions, in lines of the screen.

    Attributes:
        pieces: from top to bottom.
        width: cells for the text.
    """

    def __init__(self, width: int = 1) -> None:
        self.pieces: list[Piece] = []
        self.width = width
        self._tops = [0]
        self._rows = [0]

    @property
    def height(self) -> int:
        """Number of lines of all pieces, partly estimated."""
        return self._tops[-1]

    def replace(self, start: int, fresh: Sequence[Piece]) -> int:
        """Replace all pieces from ``start`` on; return the first that differs."""
        old = self.pieces[start:]
        same = 0
        for one, other in zip(old, fresh, strict=False):
            if one is not other:
                break
            same += 1
        self.pieces[start:] = fresh
        self._lay_out(start + same)
        return start + same

    def resize(self, width: int, shown: range) -> None:
        """Lay out at another width, starting with the pieces ``shown``."""
        self.width = width
        for piece in self.pieces[shown.start : shown.stop]:
            piece.height(width)
        self._lay_out(0)

    def measure_end(self, lines: int) -> None:
        """Make the heights of the last ``lines`` lines exact."""
        at = len(self.pieces)
        is_wrong = False
        while at > 0 and lines > 0:
            at -= 1
            is_wrong = is_wrong or not self.pieces[at].is_measured(self.width)
            lines -= self.pieces[at].height(self.width)
        if is_wrong:
            self._lay_out(at)

    def measure(self, shown: range) -> None:
        """Make the heights of these pieces exact."""
        found = [piece.is_measured(self.width) for piece in self.pieces[shown.start : shown.stop]]
        if not all(found):
            for piece in self.pieces[shown.start : shown.stop]:
                piece.height(self.width)
            self._lay_out(shown.start)

    def refine(self) -> bool:
        """Measure some estimated heights; return whether all were exact before."""
        if all(piece.is_measured(self.width) for piece in self.pieces):
            return True
        self._lay_out(0)
        return False

    def _lay_out(self, start: int) -> None:
        deadline = time.perf_counter() + LAYOUT_S
        del self._tops[start + 1 :], self._rows[start + 1 :]
        top, row = self._tops[-1], self._rows[-1]
        for piece in self.pieces[start:]:
            is_true = piece.is_measured(self.width) or time.perf_counter() < deadline
            top += piece.height(self.width) if is_true else piece.guess(self.width)
            row += piece.count
            self._tops.append(top)
            self._rows.append(row)

    def index_at(self, y: int) -> int:
        """Return the piece at line ``y``; the last one if ``y`` is below the end."""
        return min(max(bisect_right(self._tops, y) - 1, 0), len(self.pieces) - 1)

    def top(self, index: int) -> int:
        """Return the line at which a piece begins."""
        return self._tops[index]

    def first_row(self, index: int) -> int:
        """Return the number of a piece's first row among the rows of all pieces."""
        return self._rows[index]

    def index_of_row(self, row: int) -> int:
        """Return the piece that holds a row."""
        return min(max(bisect_right(self._rows, row) - 1, 0), len(self.pieces) - 1)

    def between(self, top: int, bottom: int) -> range:
        """Return the pieces between two lines."""
        if not self.pieces:
            return range(0)
        return range(self.index_at(top), self.index_at(bottom) + 1)
