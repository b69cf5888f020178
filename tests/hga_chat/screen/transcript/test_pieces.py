"""A growing piece reuses layout and drawn lines, and looks like a new one."""

import pytest
from rich.style import Style as RichStyle
from textual.strip import Strip
from textual.style import Style

from hga_chat.screen.transcript.markdown import open_table, plain_fence, render
from hga_chat.screen.transcript.pieces import Frame, Piece, written_at
from hga_chat.screen.transcript.rows import Look, rows_of

FRAME = Frame(Look(Style(), lambda _: Style()), Strip([]), 30, 30, RichStyle())
FENCE = ["```python", *[f"total{n} = total + {n}  # a line that is wrapped" for n in range(9)]]
LISTED = [
    "|" + "|".join(f"h{n}" for n in range(5)) + "|",
    "|--|--|--|--|--|",
    *["|" + "|".join(f"cell {n} {m}" for n in range(5)) + "|" for m in range(4)],
]
TABLE = ["| name | what |", "|--|--|", *[f"| row{n} | {'wide ' * n} |" for n in range(9)]]
PROSE = ["one two three four five six seven eight nine ten"] * 3


def piece(lines):
    text = "\n".join(lines)
    parts = plain_fence(text) or open_table(text) or render(text, colours=False)
    return Piece("answer", rows_of(parts), text)


def drawn(piece):
    found = []
    for y in range(piece.height(30)):
        row, line = piece.row_at(y)
        found.append(piece.strip(row, line, FRAME, 7 + row))
    return found


@pytest.mark.parametrize(
    "lines", [FENCE, TABLE, LISTED, PROSE], ids=["fence", "table", "listed", "prose"]
)
def test_a_growing_piece_looks_like_a_new_one(lines):
    growing = piece(lines[:2])
    for end in range(2, len(lines) + 1):
        former, growing = growing, piece(lines[:end])
        drawn(former)
        growing.take_over(former)
        assert growing.is_measured(30)
        anew = piece(lines[:end])
        assert growing.height(30) == anew.height(30)
        assert [strip.text for strip in drawn(growing)] == [strip.text for strip in drawn(anew)]


def test_rows_that_stay_are_not_drawn_again():
    former, growing = piece(FENCE[:6]), piece(FENCE[:8])
    kept = drawn(former)
    growing.take_over(former)
    assert all(one is other for one, other in zip(kept, drawn(growing), strict=False))


@pytest.mark.parametrize(
    ("source", "shown", "offsets"),
    [
        ("a **b** c", "a b c", [0, 1, 4, 7, 8]),
        ("`x` y", "x y", [1, 3, 4]),
        ("- item", "item", [2, 3, 4, 5]),
        # The characters of a formula are spread over its source.
        ("a $x^2$ x", "a x² x", [0, 1, 2, 4, 7, 8]),
        ("x is \\(\\alpha\\) / b", "x is α / b", [0, 1, 2, 3, 4, 5, 15, 16, 17, 18]),
        ("`$x^2$` x", "$x^2$ x", [1, 2, 3, 4, 5, 7, 8]),
    ],
)
def test_rendered_characters_map_to_offsets_in_the_source(source, shown, offsets):
    assert written_at(source, shown) == offsets


def test_a_wide_table_is_wrapped_and_one_of_many_columns_is_listed():
    wide = piece(["| name | what it is |", "|--|--:|", "| mast | long and thin and of wood |"])
    assert [strip.text.rstrip() for strip in drawn(wide)] == [
        "name │              what it is",
        "─────┼────────────────────────",
        "mast │    long and thin and of",
        "     │                    wood",
    ]
    text = "\n".join(strip.text.rstrip() for strip in drawn(piece(LISTED[:4])))
    rows = [[f"h{n}  cell {n} {m}" for n in range(5)] for m in range(2)]
    assert text == "\n".join([*rows[0], "─" * 24, *rows[1]])
