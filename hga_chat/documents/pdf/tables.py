"""Keeps the cells of tables apart, so that each value can be told to its column."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hga_chat.documents.pdf.columns import is_text_column
from hga_chat.documents.pdf.lines import Line, Piece

_MIN_COLUMNS = 3
_MIN_ROWS = 2
_MAX_ROW_PITCH = 3.5
_SEPARATOR = " | "


@dataclass
class _Column:
    """A column by the extent of its cells."""

    left: float
    right: float
    cells: list[Piece]


def with_cells_apart(lines: Sequence[Line]) -> list[Line]:
    """Return a page's lines with the rows of tables as ``January | 800 | | 920``.

    A table is two or more rows that follow each other down the page, with pieces in three or more
    columns that do not overlap, none of which is running text. Cells that the file has one by one
    are put together to rows.
    """
    upright = [line for line in lines if not line.is_blank and not line.pieces[0].turn]
    tables = [table for block in _blocks(_rows(upright)) if (table := _table(block))]
    if not tables:
        return list(lines)
    row_of: dict[int, tuple[int, Line]] = {}
    for table in tables:
        for number, (row, line) in enumerate(table):
            for piece in row:
                row_of[id(piece)] = (number, line)
    done: set[int] = set()
    kept = []
    table_of = {id(line): table for table in tables for _, line in table}
    for line in lines:
        found = next((row_of[id(p)] for p in line.pieces if id(p) in row_of), None)
        if found is None:
            kept.append(line)
            continue
        # The whole table stands where the file has its first cell.
        table = table_of[id(found[1])]
        if id(table) not in done:
            done.add(id(table))
            kept += [row for _, row in table]
        others = tuple(piece for piece in line.pieces if id(piece) not in row_of)
        if any(piece.text.strip() for piece in others):
            kept.append(Line(others))
    return kept


def _rows(lines: Sequence[Line]) -> list[list[Piece]]:
    """Group the pieces of a page by their baselines, from the top down."""
    pieces = [piece for line in lines for piece in line.pieces if piece.text.strip()]
    rows: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -piece.baseline):
        if rows and rows[-1][0].baseline - piece.baseline < 0.35 * piece.size:
            rows[-1].append(piece)
        else:
            rows.append([piece])
    for row in rows:
        row.sort(key=lambda piece: piece.left)
    return rows


def _blocks(rows: Sequence[list[Piece]]) -> list[list[list[Piece]]]:
    """Return runs of rows with two or more pieces that follow each other closely."""
    blocks: list[list[list[Piece]]] = [[]]
    for row in rows:
        block = blocks[-1]
        if len(row) < 2 or any(left.right > right.left + 0.5 for left, right in pairwise(row)):
            blocks.append([])
            continue
        if block and block[-1][0].baseline - row[0].baseline > _MAX_ROW_PITCH * max(
            row[0].size, block[-1][0].size
        ):
            blocks.append([])
        blocks[-1].append(row)
    return [block for block in blocks if len(block) >= _MIN_ROWS]


def _table(block: list[list[Piece]]) -> list[tuple[list[Piece], Line]] | None:
    """Return each row with its line; None if the rows are no table."""
    columns: list[_Column] = []
    for row in sorted(block, key=len, reverse=True):
        for piece in row:
            inside = [c for c in columns if c.left < piece.right and piece.left < c.right]
            if not inside:
                columns.append(_Column(piece.left, piece.right, [piece]))
            elif len(inside) == 1:
                column = inside[0]
                column.left = min(column.left, piece.left)
                column.right = max(column.right, piece.right)
                column.cells.append(piece)
            else:
                return None  # a cell that spans columns: leave the rows as they are
    columns.sort(key=lambda column: column.left)
    often = [column for column in columns if len(column.cells) >= _MIN_ROWS]
    if (
        len(often) < _MIN_COLUMNS
        or any(a.right > b.left for a, b in pairwise(columns))
        or any(is_text_column(column.cells) for column in columns)
    ):
        return None
    return [(row, _row_line(row, columns)) for row in block]


def _row_line(row: Sequence[Piece], columns: Sequence[_Column]) -> Line:
    at = {id(piece): n for n, column in enumerate(columns) for piece in column.cells}
    texts = [""] * len(columns)
    for piece in row:
        texts[at[id(piece)]] = f"{texts[at[id(piece)]]} {piece.text.strip()}".strip()
    text = " ".join(_SEPARATOR.join(texts).split())
    first = row[0]
    return Line(
        (
            Piece(
                text,
                first.left,
                row[-1].right,
                *(first.baseline, first.size, first.font),
            ),
        )
    )
