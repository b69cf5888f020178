"""Reading order of pages whose text was written across two columns.

Most programs write one column after the other, and then pypdf's order is right. Some write from
the top of the page to its bottom, so that the lines of both columns alternate.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from hga_chat.documents.pdf_lines import Line, Piece

_LEAST_LINES = 6
_LEAST_FILL = 0.6
_LEAST_ALTERNATION = 0.6
_LEAST_FLOW = 0.3
_MAX_CANDIDATES = 8


@dataclass(frozen=True)
class _Columns:
    left: list[Piece]
    right: list[Piece]
    across: list[Piece]
    sides: str
    """``l`` and ``r`` in the order in which the pieces were written."""


def in_reading_order(lines: Sequence[Line]) -> list[Line]:
    """Return a page's lines, the left column before the right one where they were mixed up.

    Text across both columns divides the page into bands; in each the left column comes first.
    What must hold, so that neither tables nor code are torn apart: at least six lines on either
    side of the gutter; the lines alternate between the sides as they were written, where a table
    with wrapped cells is written cell by cell; on both sides they fill most of the column; and on
    both sides they run on, so that a good part begins in the middle of a sentence.
    """
    pieces = [piece for line in lines for piece in line.pieces if piece.text.strip()]
    upright = [piece for piece in pieces if not piece.quarter]
    columns = _find_columns(upright)
    if columns is None or not _is_running_text(columns):
        return list(lines)
    ordered = list(_by_bands(columns))
    return ordered + [line for line in lines if line.pieces[0].quarter]


def _find_columns(pieces: Sequence[Piece]) -> _Columns | None:
    """Split at the left edge in the middle of the page that most pieces respect."""
    if len(pieces) < 2 * _LEAST_LINES:
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
        if count < _LEAST_LINES // 2:
            break
        split = _split(pieces, edge)
        if best is None or _support(split) > _support(best):
            best = split
    return best


def _split(pieces: Sequence[Piece], edge: float) -> _Columns:
    left, right, across, sides = [], [], [], []
    for piece in pieces:
        slack = 0.3 * piece.size
        if piece.right <= edge - slack:
            left.append(piece)
            sides.append("l")
        elif piece.left >= edge - slack:
            right.append(piece)
            sides.append("r")
        else:
            across.append(piece)
    return _Columns(left, right, across, "".join(sides))


def _support(columns: _Columns) -> int:
    return min(len(columns.left), len(columns.right)) - len(columns.across)


def _is_running_text(columns: _Columns) -> bool:
    sides = columns.sides
    if min(len(columns.left), len(columns.right)) < _LEAST_LINES:
        return False
    if sides.count("lr") + sides.count("rl") < _LEAST_ALTERNATION * len(sides):
        return False
    return all(_fill(side) and _flows(side) for side in (columns.left, columns.right))


def _fill(side: Sequence[Piece]) -> bool:
    start = min(piece.left for piece in side)
    width = max(piece.right for piece in side) - start
    filled = median(piece.right - piece.left for piece in side)
    return filled >= _LEAST_FILL * width


def _flows(side: Sequence[Piece]) -> bool:
    begun = [piece.text.lstrip()[0] for piece in side]
    return sum(letter.islower() for letter in begun) >= _LEAST_FLOW * len(begun)


def _by_bands(columns: _Columns) -> Iterator[Line]:
    left, right = _joined(columns.left), _joined(columns.right)
    for line in _joined(columns.across):
        for side in (left, right):
            while side and side[0].pieces[0].baseline > line.pieces[0].baseline:
                yield side.pop(0)
        yield line
    yield from left
    yield from right


def _joined(pieces: Sequence[Piece]) -> list[Line]:
    """Lines from top to bottom of the pieces that stand beside each other."""
    rows: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -piece.baseline):
        if rows and rows[-1][0].baseline - piece.baseline < 0.4 * piece.size:
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return [_line_of(sorted(row, key=lambda piece: piece.left)) for row in rows]


def _line_of(row: Sequence[Piece]) -> Line:
    """Pieces side by side, a space between them; pypdf's stands where they were split."""
    texts = [piece.text.strip() for piece in row]
    spaced = [f"{text} " for text in texts[:-1]] + texts[-1:]
    return Line(tuple(replace(p, text=text) for p, text in zip(row, spaced, strict=True)))
