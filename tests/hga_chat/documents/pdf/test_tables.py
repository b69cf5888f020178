"""Tables with empty cells, in files made here."""

ROWS = (
    ("Month", "Rent", "Heating", "Paid"),
    ("January", "800", "", "920"),
    ("February", "", "75", "875"),
    ("", "118", "40", "158"),
)
LEFT = (72, 150, 220, 300)


def _cell(text: str, x: float, y: float) -> bytes:
    return b"BT /F1 10 Tf %g %g Td (%b) Tj ET" % (x, y, text.encode())


def _expected() -> str:
    return "\n".join(" ".join(" | ".join(row).split()) for row in ROWS)


def test_cells_written_row_by_row(text_of) -> None:
    cells = [
        _cell(text, x, 700 - 14 * n)
        for n, row in enumerate(ROWS)
        for text, x in zip(row, LEFT, strict=True)
        if text
    ]
    assert text_of(b" ".join(cells)) == _expected()


def test_cells_written_column_by_column(text_of) -> None:
    cells = [
        _cell(ROWS[n][column], x, 700 - 14 * n)
        for column, x in enumerate(LEFT)
        for n in range(len(ROWS))
        if ROWS[n][column]
    ]
    assert text_of(b" ".join(cells)) == _expected()


def test_numbers_set_flush_right(text_of) -> None:
    # Helvetica's digits are 5.56 points wide at this size.
    cells = [
        _cell(text, x if not text.isdigit() else x + 30 - 5.56 * len(text), 700 - 14 * n)
        for n, row in enumerate(ROWS)
        for text, x in zip(row, LEFT, strict=True)
        if text
    ]
    assert text_of(b" ".join(cells)) == _expected()


def test_one_array_with_wide_gaps(text_of) -> None:
    lines = (
        b"BT /F1 10 Tf 72 700 Td [(Month) -4000 (Rent) -4000 (Paid)] TJ ET "
        b"BT /F1 10 Tf 72 686 Td [(March) -11000 (158)] TJ ET "
        b"BT /F1 10 Tf 72 672 Td [(April) -4300 (118) -4500 (160)] TJ ET"
    )
    assert text_of(lines) == "Month | Rent | Paid\nMarch | | 158\nApril | 118 | 160"


def test_text_around_a_table_stays_in_place(text_of) -> None:
    cells = [
        _cell(text, x, 680 - 14 * n)
        for n, row in enumerate(ROWS)
        for text, x in zip(row, LEFT, strict=True)
        if text
    ]
    before = _cell("The costs of the flat, by month, in euros:", 72, 720)
    after = _cell("They rise every year.", 72, 600)
    assert text_of(b" ".join([before, *cells, after])) == (
        f"The costs of the flat, by month, in euros:\n{_expected()}\nThey rise every year."
    )
