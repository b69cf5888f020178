"""Pieces of the transcript: the units of layout, selection and copying."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field
from functools import lru_cache
from itertools import accumulate, islice
from typing import Literal

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from hga_chat.screen.transcript.math_rules import formulas
from hga_chat.screen.transcript.rows import Look, Mark, Row

CACHED_ROWS = 100
"""Rows of a growing piece whose drawn lines are cached: as many as a screen may show."""

Kind = Literal["card", "notice", "question", "answer", "note", "error", "source", "thought"]


@dataclass(frozen=True)
class Frame:
    """Style and surroundings of a piece's lines."""

    look: Look
    left: Strip
    """Cells left of the text."""
    text_width: int
    """Cells in the colours of the piece, including those left of the text."""
    width: int
    """Cells of the whole line."""
    ground: Style

    def around(self, strip: Strip, number: int) -> Strip:
        """Return a framed line whose characters carry ``number``, their row among all rows."""
        line = Strip.join([self.left, _numbered(strip, number)])
        style = self.look.style.rich_style
        return line.extend_cell_length(self.text_width, style).extend_cell_length(
            self.width, self.ground
        )


@dataclass(eq=False)
class Piece:
    """Rows of one kind. A piece is replaced, not changed, so its layout stays valid."""

    kind: Kind
    made: InitVar[tuple[Row, ...]]
    source: str = ""
    """Text to copy: as written, before rendering."""
    gap: bool = False
    """Whether an empty line comes before it."""
    begin: int = 0
    """Offset of ``source`` in the answer."""
    number: int = 0
    """Number of the source among those of the answer."""
    make: Callable[[], tuple[Row, ...]] | None = None
    """Makes the rows again after ``fold``; None if they cannot be dropped."""
    count: int = field(default=0, init=False)
    """Number of rows."""
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
        """The rows; folded ones are made again for each call."""
        if self._rows is not None:
            return self._rows
        assert self.make is not None
        return self.make()

    def is_measured(self, width: int) -> bool:
        """Return whether the height at this width is known."""
        return self._width == width

    def height(self, width: int) -> int:
        """Return the number of lines at ``width`` cells, including the gap."""
        if self._width != width:
            self._width = width
            self._strips = {}
            self._ends = list(accumulate(row.height(width) for row in self.rows))
        return self.gap + (self._ends[-1] if self._ends else 0)

    def guess(self, width: int) -> int:
        """Estimate the height without layout, from the height at another width if it is known."""
        if self._ends and self._width > 0:
            return self.gap + max(self.count, self._ends[-1] * self._width // width)
        return self.gap + sum(1 + len(row.plain) // width for row in self.rows)

    def row_at(self, y: int) -> tuple[int, int]:
        """Return the row at line ``y`` and the line within it; row -1 is the gap."""
        y -= self.gap
        if y < 0:
            return -1, 0
        row = min(bisect_right(self._ends, y), self.count - 1)
        return row, y - (self._ends[row - 1] if row else 0)

    def line_of(self, row: int) -> int:
        """Return the line at which a row begins."""
        return self.gap + (self._ends[row - 1] if row else 0)

    def strip(
        self, row: int, line: int, frame: Frame, number: int, marks: Sequence[Mark] = ()
    ) -> Strip:
        """Return a line of the screen; lines without marks are cached.

        Args:
            row: row of this piece.
            line: line of the row.
            frame: style and surroundings.
            number: number of the row among those of all pieces, for selecting text.
            marks: marked characters of the row.
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
        """Reuse heights and drawn lines of the rows that ``former`` begins with as well."""
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
        cached = range(max(same - CACHED_ROWS, 0), same)
        self._strips = {row: drawn for row, drawn in former._strips.items() if row in cached}

    def recolour(self, rows: tuple[Row, ...]) -> None:
        """Replace the rows by the same text in other colours."""
        if [row.plain for row in rows] == [row.plain for row in self.rows]:
            self._rows = rows
            self._strips = {}

    def fold(self) -> None:
        """Drop what is only needed for drawing."""
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
def source_offsets(piece: Piece) -> list[list[int]]:
    """Return for each row the offsets of its characters in the piece's source."""
    offsets = written_at(piece.source, "".join(row.plain for row in piece.rows))
    found, at = [], 0
    for row in piece.rows:
        found.append(offsets[at : at + len(row.plain)])
        at += len(row.plain)
    return found


def written_at(source: str, shown: str) -> list[int]:
    """Return the offset in Markdown at which each character of its rendered text was written.

    Rendering drops signs and keeps the order of the others, so each character is searched for
    behind the one before it. The characters of a formula are spread over its source.
    """
    offsets: list[int] = []
    begin = 0
    for start, end, text in formulas(source):
        text = text.replace("\n", "")
        done = len(offsets)
        before = sum(map(str.isalnum, source[begin:start]))
        found = shown.find(text, done)
        while found >= 0 and sum(map(str.isalnum, shown[done:found])) < before:
            found = shown.find(text, found + 1)
        if found >= 0:
            offsets += _written_between(source, begin, start, shown[done:found])
            offsets += [start + n * (end - start) // len(text) for n in range(len(text))]
            begin = end
    return offsets + _written_between(source, begin, len(source), shown[len(offsets) :])


def _written_between(source: str, at: int, end: int, shown: str) -> list[int]:
    offsets = []
    for sign in shown:
        found = source.find(sign, at, end)
        if found < 0 or found - at > 400:
            found = max(min(at, end - 1), 0)
        else:
            at = found + 1
        offsets.append(found)
    return offsets
