from hga_chat.documents.plain.table_grid import Grid


def place(grid: Grid[str], *cells: tuple[str, int, int]) -> list[str]:
    return grid.place([(text, text, width, height) for text, width, height in cells])


def test_a_cell_that_spans_rows_moves_those_of_the_next_rows() -> None:
    grid: Grid[str] = Grid()
    assert place(grid, ("a", 1, 3), ("b", 1, 1), ("c", 1, 2)) == ["a", "b", "c"]
    assert place(grid, ("d", 1, 1)) == ["a", "d", "c"]
    assert place(grid, ("e", 2, 1)) == ["a", "e", ""]
    assert place(grid, ("f", 1, 1)) == ["f"]


def test_what_spans_both_ways_is_repeated_once_a_row() -> None:
    grid: Grid[str] = Grid()
    assert place(grid, ("a", 2, 2), ("b", 1, 1)) == ["a", "", "b"]
    assert place(grid, ("c", 1, 1)) == ["a", "", "c"]


def test_long_texts_are_not_repeated() -> None:
    grid: Grid[str] = Grid()
    place(grid, ("a" * 100, 1, 2), ("b", 1, 1))
    assert place(grid, ("c", 1, 1)) == ["", "c"]


def test_huge_spans_stay_small() -> None:
    grid: Grid[str] = Grid()
    row = [("a", 1000, 60_000)] * 1000
    assert len(place(grid, *row)) < 1100
    sizes = [len("".join(place(grid, ("b", 1, 1)))) for _ in range(3000)]
    assert sum(sizes) < 10_000
