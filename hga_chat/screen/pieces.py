"""Pieces of the transcript: what is laid out, selected and copied together."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from textual.strip import Strip

from hga_chat.screen.reading import written_at
from hga_chat.screen.rows import Look, Mark, Row

if TYPE_CHECKING:
    from hga_chat.screen.turn import Turn

Kind = Literal["card", "notice", "question", "answer", "note", "error", "source"]


@dataclass(eq=False)
class Piece:
    """Rows of one kind. Pieces are replaced, never changed, so what was laid out stays true."""

    kind: Kind
    made: InitVar[tuple[Row, ...]]
    source: str = ""
    """What is copied: the text as it was written, before it was rendered."""
    gap: bool = False
    """An empty line before it."""
    turn: "Turn | None" = None
    begin: int = 0
    """Where ``source`` begins in the answer."""
    number: int = 0
    """Which of the answer's sources it is."""
    make: Callable[[], tuple[Row, ...]] | None = None
    """Makes the rows again after they were given back, for the same is written in less memory."""
    count: int = field(default=0, init=False)
    """How many rows there are."""
    _rows: tuple[Row, ...] | None = field(default=None, init=False)
    _width: int = field(default=-1, init=False)
    _ends: list[int] = field(default_factory=list, init=False)
    _strips: dict[int, list[Strip]] = field(default_factory=dict, init=False)
    _look: Look | None = field(default=None, init=False)

    def __post_init__(self, made: tuple[Row, ...]) -> None:
        self._rows = made
        self.count = len(made)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows; those that were given back are made again and not kept."""
        if self._rows is not None:
            return self._rows
        assert self.make is not None
        return self.make()

    def is_measured(self, width: int) -> bool:
        """Whether the height at this width is known."""
        return self._width == width

    def height(self, width: int) -> int:
        """Lines of the screen at ``width`` cells, the gap included."""
        if self._width != width:
            self._width = width
            self._strips = {}
            self._ends = list(accumulate(row.height(width) for row in self.rows))
        return self.gap + (self._ends[-1] if self._ends else 0)

    def guess(self, width: int) -> int:
        """About how high it is, without laying it out; what was measured before is a good start."""
        if self._ends and self._width > 0:
            return self.gap + max(self.count, self._ends[-1] * self._width // width)
        return self.gap + sum(1 + len(row.plain) // width for row in self.rows)

    def row_at(self, y: int) -> tuple[int, int]:
        """The row at line ``y``, and which of its lines that is; row -1 is the gap."""
        y -= self.gap
        if y < 0:
            return -1, 0
        row = min(bisect_right(self._ends, y), self.count - 1)
        return row, y - (self._ends[row - 1] if row else 0)

    def line_of(self, row: int) -> int:
        """The line at which a row begins."""
        return self.gap + (self._ends[row - 1] if row else 0)

    def strip(self, row: int, line: int, look: Look, marks: Sequence[Mark] = ()) -> Strip:
        """A line of the screen. What carries no marks is kept for the next time."""
        self._rows = self.rows
        if marks:
            strips = self.rows[row].strips(self._width, look, marks)
        else:
            if self._look != look:
                self._look, self._strips = look, {}
            if row not in self._strips:
                self._strips[row] = self.rows[row].strips(self._width, look)
            strips = self._strips[row]
        return strips[line] if line < len(strips) else Strip([])

    def recolour(self, rows: tuple[Row, ...]) -> None:
        """Take rows of the same text in other colours."""
        if [row.plain for row in rows] == [row.plain for row in self.rows]:
            self._rows = rows
            self._strips = {}

    def fold(self) -> None:
        """Give back what is only needed for drawing; it is far from sight."""
        self._strips = {}
        self._look = None
        if self.make is not None:
            self._rows = None


@lru_cache(maxsize=16)
def written(piece: Piece) -> list[list[int]]:
    """For each row of a piece, where in its source every character was written."""
    offsets = written_at(piece.source, "".join(row.plain for row in piece.rows))
    found, at = [], 0
    for row in piece.rows:
        found.append(offsets[at : at + len(row.plain)])
        at += len(row.plain)
    return found
