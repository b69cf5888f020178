"""Pieces of the transcript: what is laid out, selected and copied together."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field
from functools import lru_cache
from itertools import accumulate, islice
from typing import Literal

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from hga_chat.screen.transcript.rows import Look, Mark, Row

CACHED_ROWS = 100
"""Rows of a growing piece whose drawn lines are kept: as many as a screen may show."""

Kind = Literal["card", "notice", "question", "answer", "note", "error", "source"]


@dataclass(frozen=True)
class Frame:
    """How the lines of a piece are drawn, and what stands around them."""

    look: Look
    left: Strip
    """What stands left of the text."""
    text_width: int
    """Cells in the colours of the piece, those left of the text included."""
    width: int
    """Cells of the whole line."""
    ground: Style

    def around(self, strip: Strip, number: int) -> Strip:
        """A line of row ``number`` of all rows, in which every character knows its row."""
        line = Strip.join([self.left, _numbered(strip, number)])
        style = self.look.style.rich_style
        return line.extend_cell_length(self.text_width, style).extend_cell_length(
            self.width, self.ground
        )


@dataclass(eq=False)
class Piece:
    """Rows of one kind. Pieces are replaced, never changed, so what was laid out stays true."""

    kind: Kind
    made: InitVar[tuple[Row, ...]]
    source: str = ""
    """What is copied: the text as it was written, before it was rendered."""
    gap: bool = False
    """An empty line before it."""
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
    _drawn_as: tuple[Frame, int] | None = field(default=None, init=False)

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

    def strip(
        self, row: int, line: int, frame: Frame, number: int, marks: Sequence[Mark] = ()
    ) -> Strip:
        """A line of the screen. What carries no marks is kept for the next time.

        Args:
            row: of this piece.
            line: of the row.
            frame: how it is drawn.
            number: of the row among those of all pieces, for the selection of text.
            marks: what is marked in the row.
        """
        self._rows = self.rows
        if marks:
            strips = self._draw(row, frame, number, marks)
        else:
            drawn_as = (frame, number - row)
            if self._drawn_as != drawn_as:
                self._drawn_as, self._strips = drawn_as, {}
            if row not in self._strips:
                self._strips[row] = self._draw(row, frame, number)
            strips = self._strips[row]
        return strips[line] if line < len(strips) else frame.around(Strip([]), number)

    def _draw(self, row: int, frame: Frame, number: int, marks: Sequence[Mark] = ()) -> list[Strip]:
        strips = self.rows[row].strips(self._width, frame.look, marks)
        return [frame.around(strip, number) for strip in strips]

    def take_over(self, former: "Piece") -> None:
        """Take heights and drawn lines of the rows that stand in ``former`` as well."""
        width = former._width
        if width < 0:
            return
        same = 0
        for row, other in zip(self.rows, former.rows, strict=False):
            if not row.looks_like(other, width):
                break
            same += 1
        heights = (row.height(width) for row in self.rows[same:])
        before = former._ends[:same]
        rest = accumulate(heights, initial=before[-1] if before else 0)
        self._ends = [*before, *islice(rest, 1, None)]
        self._width = width
        self._drawn_as = former._drawn_as
        kept = range(max(same - CACHED_ROWS, 0), same)
        self._strips = {row: drawn for row, drawn in former._strips.items() if row in kept}

    def recolour(self, rows: tuple[Row, ...]) -> None:
        """Take rows of the same text in other colours."""
        if [row.plain for row in rows] == [row.plain for row in self.rows]:
            self._rows = rows
            self._strips = {}

    def fold(self) -> None:
        """Give back what is only needed for drawing; it is far from sight."""
        self._strips = {}
        self._drawn_as = None
        if self.make is not None:
            self._rows = None


def _numbered(strip: Strip, number: int) -> Strip:
    segments = []
    for text, style, control in strip:
        offset = style.meta.get("offset") if style else None
        place = Style.from_meta({"offset": (offset[0], number)}) if offset else None
        segments.append(Segment(text, style + place if style and place else style, control))
    return Strip(segments, strip.cell_length)


@lru_cache(maxsize=16)
def written(piece: Piece) -> list[list[int]]:
    """For each row of a piece, where in its source every character was written."""
    offsets = written_at(piece.source, "".join(row.plain for row in piece.rows))
    found, at = [], 0
    for row in piece.rows:
        found.append(offsets[at : at + len(row.plain)])
        at += len(row.plain)
    return found


def written_at(source: str, shown: str) -> list[int]:
    """Return the offset in Markdown at which each character of its rendered text was written.

    Rendering drops signs and keeps the order of the others, so each character is searched for
    behind the one before it.
    """
    offsets = []
    at = 0
    for sign in shown:
        found = source.find(sign, at)
        if found < 0 or found - at > 400:
            found = min(at, max(len(source) - 1, 0))
        else:
            at = found + 1
        offsets.append(found)
    return offsets
