from collections.abc import Callable

import pytest

from hga_chat.documents.pdf.headers_footers import without_headers_and_footers
from hga_chat.documents.pdf.lines import Line, Piece
from hga_chat.documents.pdf.outline import Heading


def line(text: str, baseline: float, size: float = 10, font: str = "/Text") -> Line:
    """Return a line; bars in the text separate its pieces."""
    pieces = [
        Piece(part, 50 + 200 * at, 150 + 200 * at, baseline, size, font)
        for at, part in enumerate(text.split("|"))
    ]
    return Line(tuple(pieces))


def page(*margins: Line) -> list[Line]:
    body = [line(f"the body's text goes on in line {row}", 600 - 12 * row) for row in range(20)]
    return [*margins, *body]


def kept(pages: list[list[Line]], *headings: Heading) -> list[list[str]]:
    labels = [str(number) for number in range(1, len(pages) + 1)]
    left = without_headers_and_footers(pages, labels, headings)
    return [[x.text for x in lines if not x.text.startswith("the body's text")] for lines in left]


@pytest.mark.parametrize(
    "head",
    [
        lambda n: f"- {n + 1} -",
        lambda n: f"Page {n + 1} of 9",
        lambda n: f"{n + 1}/9",
        lambda n: ["ii", "iii", "iv", "v", "vi"][n],
    ],
)
def test_page_numbers_are_removed(head: Callable[[int], str]) -> None:
    for height in (700, 200):
        pages = [page(line(head(number), height)) for number in range(5)]
        assert kept(pages) == [[]] * 5


@pytest.mark.parametrize(
    ("head", "stay"),
    [
        (lambda n: "Annual Report", [0]),
        (lambda n: f"Annual Report|{n + 1}", [0]),
        (lambda n: f"{n + 31}|Annual Report" if n % 2 else f"Tides|{n + 31}", [0, 1]),
        (lambda n: f"Field notes, May – {n + 1}", [0]),
        (lambda n: f"3-{n + 1}|Engines", [0]),
    ],
)
def test_headers_and_footers_stay_where_they_first_say_something(
    head: Callable[[int], str], stay: list[int]
) -> None:
    for height in (700, 200):
        pages = [page(line(head(number), height)) for number in range(5)]
        assert kept(pages) == [
            [head(number).replace("|", "")] if number in stay else [] for number in range(5)
        ]


@pytest.mark.parametrize(
    "head",
    [
        lambda n: f"Question {n + 1}",
        lambda n: f"{n + 1}. Why does the tide turn?",
        lambda n: f"{n * n + 1}",
        lambda n: ["Apples", "Pears", "Plums", "Quinces", "Medlars"][n],
        lambda n: f"Total|{n * 7 + 3}",
    ],
)
def test_lines_that_change_in_other_ways_stay(head: Callable[[int], str]) -> None:
    pages = [page(line(head(number), 700)) for number in range(5)]
    assert kept(pages) == [[head(number).replace("|", "")] for number in range(5)]


def test_two_pages_are_too_few() -> None:
    pages = [page(line("Annual Report", 700)) for _ in range(2)]
    assert kept([*pages, page()]) == [["Annual Report"], ["Annual Report"], []]


def test_only_nearby_pages_count() -> None:
    pages = [page(line("Example:", 700)) if number % 6 == 0 else page() for number in range(30)]
    assert [text for left in kept(pages) for text in left] == ["Example:"] * 5


def test_a_place_where_other_pages_have_text_is_not_a_margin() -> None:
    heads = ["Example:", "a line", "Example:", "one more", "and another", "Example:", "the last"]
    assert kept([page(line(head, 700)) for head in heads]) == [[head] for head in heads]


def test_a_repeated_table_head_stays() -> None:
    pages = [page(line("Annual Report", 700), line("Port|Time", 612)) for _ in range(4)]
    assert kept(pages) == [["Annual Report", "PortTime"], *[["PortTime"]] * 3]


def test_large_titles_stay() -> None:
    pages = [page(line("Results", 700, size=20)) for _ in range(4)]
    assert kept(pages) == [["Results"]] * 4


def test_a_line_between_header_and_text_ends_the_header() -> None:
    pages = [
        page(line("Annual Report", 700), line(word, 670), line("Confidential", 650))
        for word in ("one", "two", "three")
    ]
    left = [[word, "Confidential"] for word in ("one", "two", "three")]
    assert kept(pages) == [["Annual Report", *left[0]], *left[1:]]


def test_titles_of_chapters_that_began_earlier_are_removed() -> None:
    headings = [Heading("1 Tides", 0, None), Heading("2 Moons", 2, None), Heading("3 Sun", 4, None)]
    heads = ["1 Tides", "TIDES", "2 Moons", "2. MOONS", "3 Sun", "Chapter 3. Sun"]
    pages = [page(line(head, 700, font="/Head")) for head in heads]
    assert kept(pages, *headings) == [["1 Tides"], [], ["2 Moons"], [], ["3 Sun"], []]


def test_a_title_in_the_header_and_on_the_page_itself() -> None:
    headings = [
        Heading(title, number, None) for number, title in enumerate(("Tides", "Moons", "Sun"))
    ]
    pages = [
        [line(h.title, 700, font="/Head"), line(h.title, 650, size=18), *page()] for h in headings
    ]
    assert kept(pages, *headings) == [["Tides"], ["Moons"], ["Sun"]]


def test_titles_next_to_constant_parts_stay_where_they_begin() -> None:
    headings = [Heading(title, 2 * n, None) for n, title in enumerate(("Tides", "Moons", "Sun"))]
    titles = [headings[n // 2].title for n in range(6)]
    pages = [page(line(f"Almanac|{title}", 700)) for title in titles]
    left = [[f"Almanac{title}"] if not n % 2 else [] for n, title in enumerate(titles)]
    assert kept(pages, *headings) == left
    for number, title in enumerate(titles[::2]):
        pages[2 * number].append(line(title, 650, size=18))
    assert [len(lines) for lines in kept(pages, *headings)] == [2, 0, 1, 0, 1, 0]


def test_pages_with_nothing_but_a_header() -> None:
    alone = [line("Annual Report", 700)]
    pages = [page(*alone), alone, [], page(*alone), page(*alone)]
    assert kept(pages) == [["Annual Report"], ["Annual Report"], [], [], []]


def test_text_without_size_or_position() -> None:
    nowhere = Line((Piece("x", 0, 0, 0, 0, ""),))
    assert (
        without_headers_and_footers([[nowhere, nowhere]] * 2, ["1", "2"], []) == [[nowhere] * 2] * 2
    )
