"""Puts the columns of a page in reading order.

Most programs write one column after another, and then pypdf's order is right. Some write from the
top of the page to the bottom, so that lines of different columns alternate, and some in no order.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from hga_chat.documents.pdf.lines import Line, Piece

_MIN_LINES = 6
_MIN_FILL = 0.6
_MIN_ALTERNATION = 0.6
_MIN_LOWERCASE_STARTS = 0.3
_MAX_CANDIDATES = 8
_MIN_RETURN_EM = 2.0
_MIN_RETURNS = 6
_MIN_RETURN_SHARE = 0.08


@dataclass(frozen=True)
class _Columns:
    columns: tuple[list[Piece], ...]
    """From left to right, each column's pieces in the order of the file."""
    across: list[Piece]
    """Pieces that span columns."""


def in_reading_order(lines: Sequence[Line]) -> list[Line]:
    """Return a page's lines, column after column if they were interleaved.

    Text that spans the columns divides the page into bands; within each, the left column comes
    first. To leave tables and code alone, all of this must hold: each column has at least six
    lines; the lines alternate between columns in the file (a table with wrapped cells is written
    cell by cell); they fill most of their column's width; and many of them start within a
    sentence.
    """
    pieces = [piece for line in lines for piece in line.pieces if piece.text.strip()]
    upright = [piece for piece in pieces if not piece.turn]
    found = _find_columns(upright)
    if (
        found is None
        or not _alternate(found, upright)
        or not all(map(is_text_column, found.columns))
    ):
        if (found is None or not all(map(is_text_column, found.columns))) and _is_scattered(lines):
            return _from_top(lines)
        return list(lines)
    ordered = list(_by_bands(found))
    return ordered + [line for line in lines if line.pieces[0].turn]


def _is_scattered(lines: Sequence[Line]) -> bool:
    """Whether the file has the lines in no order, as programs that fill in forms write them."""
    mains = [line.main for line in lines if not line.is_blank and not line.pieces[0].turn]
    returns = sum(
        after.baseline - before.baseline > _MIN_RETURN_EM * max(before.size, after.size)
        for before, after in pairwise(mains)
    )
    return returns >= max(_MIN_RETURNS, _MIN_RETURN_SHARE * len(mains))


def _from_top(lines: Sequence[Line]) -> list[Line]:
    """Return the lines by their place, from the top down."""
    upright = [line for line in lines if line.pieces and not line.pieces[0].turn]
    pieces = [piece for line in upright for piece in line.pieces if piece.text.strip()]
    return _joined(pieces) + [line for line in lines if line.pieces and line.pieces[0].turn]


def _find_columns(pieces: Sequence[Piece]) -> _Columns | None:
    """Split at the left edge near the middle that separates best, then split each half."""
    if len(pieces) < 2 * _MIN_LINES:
        return None
    first = min(piece.left for piece in pieces)
    last = max(piece.right for piece in pieces)
    edges = Counter(
        round(piece.left)
        for piece in pieces
        if 0.3 * (last - first) < piece.left - first < 0.7 * (last - first)
    )
    best: _Columns | None = None
    for edge, count in edges.most_common(_MAX_CANDIDATES):
        if count < _MIN_LINES // 2:
            break
        split = _split(pieces, edge)
        if best is None or _support(split) > _support(best):
            best = split
    if best is None:
        return None
    columns: list[list[Piece]] = []
    across = list(best.across)
    for half in best.columns:
        is_less = 0 < len(half) < len(pieces)
        divided = _find_columns(half) if is_less and _fill(half) < _MIN_FILL else None
        if divided is None or not all(map(is_text_column, divided.columns)):
            columns.append(half)
        else:
            columns += divided.columns
            across += divided.across
    return _Columns(tuple(columns), across)


def _split(pieces: Sequence[Piece], edge: float) -> _Columns:
    left, right, across = [], [], []
    for piece in pieces:
        slack = 0.3 * piece.size
        if piece.right <= edge - slack:
            left.append(piece)
        elif piece.left >= edge - slack:
            right.append(piece)
        else:
            across.append(piece)
    return _Columns((left, right), across)


def _support(split: _Columns) -> int:
    return min(map(len, split.columns)) - len(split.across)


def _alternate(found: _Columns, written: Sequence[Piece]) -> bool:
    """Whether consecutive pieces of the file are mostly in different columns."""
    column_of = {id(piece): n for n, column in enumerate(found.columns) for piece in column}
    order = [column_of[id(piece)] for piece in written if id(piece) in column_of]
    changes = sum(one != other for one, other in pairwise(order))
    return changes >= _MIN_ALTERNATION * len(order)


def is_text_column(column: Sequence[Piece]) -> bool:
    """Whether the pieces are lines of running text."""
    return len(column) >= _MIN_LINES and _fill(column) >= _MIN_FILL and _is_prose(column)


def _fill(column: Sequence[Piece]) -> float:
    """Return the share of the column's width that its lines take."""
    start = min(piece.left for piece in column)
    width = max(piece.right for piece in column) - start
    return median(piece.right - piece.left for piece in column) / width if width > 0 else 1.0


def _is_prose(column: Sequence[Piece]) -> bool:
    first_letters = [piece.text.lstrip()[0] for piece in column]
    return sum(letter.islower() for letter in first_letters) >= _MIN_LOWERCASE_STARTS * len(
        first_letters
    )


def _by_bands(found: _Columns) -> Iterator[Line]:
    columns = [_joined(column) for column in found.columns]
    for line in _joined(found.across):
        for column in columns:
            while column and column[0].pieces[0].baseline > line.pieces[0].baseline:
                yield column.pop(0)
        yield line
    for column in columns:
        yield from column


def _joined(pieces: Sequence[Piece]) -> list[Line]:
    """Join pieces on one baseline into lines, from top to bottom."""
    rows: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -piece.baseline):
        if rows and rows[-1][0].baseline - piece.baseline < 0.4 * piece.size:
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return [_line_of(sorted(row, key=lambda piece: piece.left)) for row in rows]


def _line_of(row: Sequence[Piece]) -> Line:
    """Join pieces with single spaces; pypdf's own spaces are where they were split."""
    texts = [piece.text.strip() for piece in row]
    spaced = [f"{text} " for text in texts[:-1]] + texts[-1:]
    return Line(tuple(replace(p, text=text) for p, text in zip(row, spaced, strict=True)))
