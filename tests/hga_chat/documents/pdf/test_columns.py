from hga_chat.documents.pdf.columns import in_reading_order
from hga_chat.documents.pdf.lines import Line, Piece


def _piece(text: str, left: float, baseline: float, width: float = 200) -> Piece:
    return Piece(text, left, left + width, baseline, 10, "")


def _page(left: list[Piece], right: list[Piece]) -> list[Line]:
    """Return a page whose file alternates between the columns."""
    return [Line(pair) for pair in zip(left, right, strict=True)]


LEFT = [_piece(f"and so the left column goes on {n}", 50, 700 - 12 * n) for n in range(8)]
RIGHT = [_piece(f"while the right one waits {n}", 270, 700 - 12 * n) for n in range(8)]


def _texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def test_the_left_column_comes_first() -> None:
    ordered = _texts(in_reading_order(_page(LEFT, RIGHT)))
    assert ordered == [piece.text for piece in LEFT + RIGHT]


def test_three_columns_come_one_after_another() -> None:
    columns = [
        [_piece(f"so {name} goes on {n}", left, 700 - 12 * n, 150) for n in range(8)]
        for name, left in (("the left", 50), ("the middle", 215), ("the right", 380))
    ]
    across = Line((_piece("A heading over two of the columns", 215, 652, 315),))
    rows = [Line(row) for row in zip(*columns, strict=True)]
    ordered = _texts(in_reading_order([*rows[:4], across, *rows[5:]]))
    for column in columns:
        del column[4]
    assert ordered == [
        *(piece.text for column in columns for piece in column[:4]),
        "A heading over two of the columns",
        *(piece.text for column in columns for piece in column[4:]),
    ]


def test_a_table_of_three_columns_is_unchanged() -> None:
    rows = [
        Line(tuple(_piece(f"cell {n} of {c}", 50 + 165 * c, 700 - 12 * n, 60) for c in range(3)))
        for n in range(9)
    ]
    wide = _piece("where the text of a single cell is long", 380, 600, 150)
    table = [*rows, Line((wide,))]
    assert in_reading_order(table) == table


def test_text_across_the_columns_divides_them() -> None:
    across = Line((_piece("A heading over both of the columns", 100, 652, 300),))
    lines = _page(LEFT, RIGHT)
    later = [
        _page([_piece(f"below {n}", 50, 640 - 12 * n)], [_piece(f"beside {n}", 270, 640 - 12 * n)])
        for n in range(6)
    ]
    shifted = [line for page in later for line in page]
    upper = [line for line in lines if line.pieces[0].baseline > 652]
    ordered = _texts(in_reading_order([*upper, across, *shifted]))
    count = len(upper)
    assert ordered == [
        *(piece.text for piece in LEFT[:count]),
        *(piece.text for piece in RIGHT[:count]),
        "A heading over both of the columns",
        *(f"below {n}" for n in range(6)),
        *(f"beside {n}" for n in range(6)),
    ]


def test_pages_that_stay_in_the_order_of_the_file() -> None:
    one_after_the_other = [Line((piece,)) for piece in LEFT + RIGHT]
    few = _page(LEFT[:5], RIGHT[:5])
    names = [_piece(f"Name {n}", 50, 700 - 12 * n) for n in range(8)]
    places = [_piece(f"Place {n}", 270, 700 - 12 * n) for n in range(8)]
    short = [_piece("a", 50, 700 - 12 * n, 10 if n else 200) for n in range(8)]
    single = [Line((_piece("all of the text stands in one column", 50, 700),))] * 20
    for lines in (one_after_the_other, few, _page(names, places), _page(short, RIGHT), single, []):
        assert in_reading_order(lines) == lines


def test_rotated_text_stays_last() -> None:
    stamp = Line((Piece("Received", 10, 20, 300, 10, "", 1),))
    assert in_reading_order([*_page(LEFT, RIGHT), stamp])[-1] == stamp


def test_lines_in_no_order_are_read_from_the_top(text_of) -> None:
    order = [7, 2, 11, 0, 9, 4, 1, 10, 3, 8, 5, 6, 15, 12, 14, 13, 17, 16]
    content = b"BT /F1 12 Tf %b ET" % b" ".join(
        b"1 0 0 1 72 %d Tm (Item %c) Tj" % (700 - 30 * n, 65 + n) for n in order
    )
    assert text_of(content) == "\n".join(f"Item {chr(65 + n)}" for n in range(18))
