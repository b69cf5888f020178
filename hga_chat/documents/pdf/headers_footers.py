"""Removes headers and footers, the lines that repeat on page after page, but for the first."""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import median

from hga_chat.documents.pdf.lines import Line
from hga_chat.documents.pdf.outline import Heading, letters_and_digits

_MIN_PAGES = 3
_AROUND = 4
_MAX_ROWS = 3
_MAX_SIZE_OF_BODY = 1.25
_MIN_GAP_PITCHES = 1.5
_SAME_HEIGHT_POINTS = 1.0
_PAGE_NUMBER = re.compile(
    r"\W*(?:page|p\.|pg\.|seite|sheet|slide)?\s*(?P<before>(?:[A-Z]|\d{1,2})[-–.])?"
    r"(?P<number>\d{1,5}|[ivxlc]{1,8}|[IVXLC]{1,8})(?:\s*(?:/|of|von)\s*\d+)?\W*",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"\s+[|·•–—-]\s+|\s{2,}")
_CHAPTER_NUMBER = re.compile(r"^(?:(?:chapter|part|section|appendix)\s*)?[\d.]*", re.IGNORECASE)
_ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}


@dataclass(frozen=True)
class _Row:
    """The lines on one baseline near the top or bottom of a page."""

    page: int
    edge: str
    lines: tuple[Line, ...]
    gap: float
    """Distance to the next row inwards, relative to the usual line pitch of the page."""

    @property
    def text(self) -> str:
        return " ".join(" ".join(line.text for line in self.lines).split())

    @property
    def height(self) -> int:
        return round(self.lines[0].main.baseline / _SAME_HEIGHT_POINTS)

    @property
    def place(self) -> tuple[str, int, int, str]:
        main = self.lines[0].main
        return self.edge, self.height, round(main.size), main.font

    def parts(self) -> list[str]:
        """Return the parts of the row that are set apart from each other."""
        pieces = [piece.text for line in self.lines for piece in line.pieces]
        return [part.strip() for text in pieces for part in _SEPARATOR.split(text) if part.strip()]


@dataclass(frozen=True)
class _Number:
    """A possible page number, and the parts next to it."""

    text: str
    value: int
    beside: tuple[str, ...]


def _number_of(parts: Sequence[str]) -> _Number | None:
    """Return the page number, if the first or last part is one."""
    for at in (0, len(parts) - 1):
        match = _PAGE_NUMBER.fullmatch(parts[at]) if parts else None
        if match is not None:
            before = match["before"] or ""
            beside = (*parts[:at], before, *parts[at + 1 :])
            return _Number(before + match["number"], _value(match["number"]), beside)
    return None


def without_headers_and_footers(
    pages: Sequence[Sequence[Line]], labels: Sequence[str], headings: Sequence[Heading]
) -> list[list[Line]]:
    """Return the pages without their headers and footers, except where each first says something.

    Nothing is lost: a row stays on the first page that has it, unless it is a page number or the
    title of a heading that began earlier, and a page that has nothing else keeps its rows.

    Candidates are the outermost three rows at the top and bottom of a page, if they are not larger
    than normal text and a gap separates them from it (a repeated table head has no gap). One of
    these must hold on three of the nine surrounding pages: the same text at the same height; or,
    at the same height and in the same font, the page's label, a number that increases with the
    pages, or the title of a heading that began earlier, alone or next to constant parts. In
    addition, at most half of the surrounding pages may have other lines at that height and font.
    """
    sizes = _sizes(line for lines in pages for line in lines)
    edges = [_edges(number, lines, _usual(sizes)) for number, lines in enumerate(pages)]
    found = [row for page in edges for rows in page for row in rows]
    repeated = _repeated(found, pages, labels, headings)
    titles = _first_pages(headings)
    kept = []
    shown: set[str] = set()
    for lines, page in zip(pages, edges, strict=True):
        dropped: set[int] = set()
        new: set[str] = set()
        for rows in page:
            count = 0
            for at, row in enumerate(rows, start=1):
                if id(row) not in repeated:
                    break
                if row.gap >= _MIN_GAP_PITCHES:
                    count = at
            for row in rows[:count]:
                said = _said(row, lines, titles)
                if said - shown:
                    new |= said
                else:
                    dropped.update(id(line) for line in row.lines)
        shown |= new
        left = [line for line in lines if id(line) not in dropped]
        kept.append(left if any(not line.is_blank for line in left) else list(lines))
    return kept


def _said(row: _Row, lines: Sequence[Line], titles: dict[str, int]) -> set[str]:
    """Return the parts that a row says beside the page's number and titles that stand elsewhere."""
    parts = row.parts()
    number = _number_of(parts)
    elsewhere = {_core(line.text) for line in lines if line not in row.lines}
    cores = [core for core in map(_core, number.beside if number else parts) if core]
    return {
        core
        for core in cores
        if titles.get(core, row.page + 1) > row.page
        or (titles[core] == row.page and core not in elsewhere)
    }


def _sizes(lines: Iterable[Line]) -> Counter[float]:
    """Count the characters of each font size."""
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[round(line.main.size, 1)] += len(line.text)
    return sizes


def _usual(sizes: Counter[float]) -> float:
    return sizes.most_common(1)[0][0] if sizes else 0.0


def _edges(page: int, lines: Sequence[Line], usual: float) -> list[list[_Row]]:
    """Return the candidate rows at the top and those at the bottom, outermost first.

    ``usual`` is the font size of most of the document's text.
    """
    upright = [line for line in lines if not line.is_blank and not line.pieces[0].turn]
    grouped: list[list[Line]] = []
    for line in sorted(upright, key=lambda line: -line.main.baseline):
        if grouped and grouped[-1][0].main.baseline - line.main.baseline < 0.3 * line.main.size:
            grouped[-1].append(line)
        else:
            grouped.append([line])
    if not grouped:
        return []
    heights = [group[0].main.baseline for group in grouped]
    pitch = median([upper - lower for upper, lower in pairwise(heights)] or [0.0]) or 1.0
    largest = _MAX_SIZE_OF_BODY * max(usual, _usual(_sizes(upright)))
    return [
        list(_outermost(page, edge, ordered, pitch, largest))
        for edge, ordered in (("top", grouped), ("bottom", grouped[::-1]))
    ]


def _outermost(
    page: int, edge: str, grouped: Sequence[list[Line]], pitch: float, largest: float
) -> Iterator[_Row]:
    for at, group in enumerate(grouped[:_MAX_ROWS]):
        if max(line.main.size for line in group) > largest:
            return
        gap = float("inf")
        if at + 1 < len(grouped):
            gap = abs(group[0].main.baseline - grouped[at + 1][0].main.baseline) / pitch
        # From left to right, whatever the order in the file.
        lines = tuple(sorted(group, key=lambda line: line.pieces[0].left))
        yield _Row(page, edge, lines, gap)


def _repeated(
    rows: Sequence[_Row],
    pages: Sequence[Sequence[Line]],
    labels: Sequence[str],
    headings: Sequence[Heading],
) -> set[int]:
    """Return the ids of the rows with a sign of repetition shared by three or more pages."""
    first_pages = _first_pages(headings)
    pages_of = _pages_of_parts(rows)
    shown: defaultdict[Hashable, set[int]] = defaultdict(set)
    signs: list[tuple[_Row, list[Hashable]]] = []
    for row in rows:
        parts = row.parts()
        number = _number_of(parts)
        forms = [row.text]
        own: list[Hashable] = []
        if number:
            forms.append(f"{' '.join(number.beside)}\0{number.value - row.page}")
            own.append((row.place, number.value - row.page))
            if number.text.casefold() == labels[row.page].casefold():
                own.append((row.place, "label"))
        beside = [part for part in (number.beside if number else parts) if part]
        changing = [part for part in beside if not _agree(pages_of[row.place, part], row.page)]
        if _are_titles(changing, row, first_pages, pages[row.page], alone=changing == beside):
            own.append((row.place, "heading"))
        own += [(row.edge, form, row.height) for form in forms]
        signs.append((row, own))
        for sign in own:
            shown[sign].add(row.page)
        # Heights are rounded: also count the neighbouring steps.
        for form in forms:
            shown[row.edge, form, row.height - 1].add(row.page)
            shown[row.edge, form, row.height + 1].add(row.page)
    likely = [row for row, own in signs if any(_agree(shown[sign], row.page) for sign in own)]
    taken: defaultdict[Hashable, set[int]] = defaultdict(set)
    agreed: defaultdict[Hashable, set[int]] = defaultdict(set)
    for row in rows:
        taken[row.place].add(row.page)
    for row in likely:
        agreed[row.place].add(row.page)
    # If other pages have body text in the same place, it is not a margin.
    return {
        id(row)
        for row in likely
        if 2 * len(agreed[row.place].intersection(_around(row.page)))
        >= len(taken[row.place].intersection(_around(row.page)))
    }


def _first_pages(headings: Sequence[Heading]) -> dict[str, int]:
    """Return the first page of each title."""
    first_pages: dict[str, int] = {}
    for heading in headings:
        first_pages.setdefault(_core(heading.title), heading.page)
    first_pages.pop("", None)
    return first_pages


def _agree(shown: set[int], page: int) -> bool:
    """Whether at least three of the pages around ``page`` are among ``shown``."""
    return len(shown.intersection(_around(page))) >= _MIN_PAGES


def _around(page: int) -> range:
    return range(page - _AROUND, page + _AROUND + 1)


def _pages_of_parts(rows: Sequence[_Row]) -> defaultdict[Hashable, set[int]]:
    """Return the pages on which each part occurs in its place."""
    pages: defaultdict[Hashable, set[int]] = defaultdict(set)
    for row in rows:
        for part in row.parts():
            pages[row.place, part].add(row.page)
    return pages


def _are_titles(
    parts: Sequence[str],
    row: _Row,
    first_pages: dict[str, int],
    lines: Sequence[Line],
    *,
    alone: bool,
) -> bool:
    """Whether all parts are titles of headings that began on this page or earlier.

    If they stand ``alone``, a title that begins on this page may be the heading itself, so it must
    occur on the page a second time.
    """
    cores = [core for core in map(_core, parts) if core]
    if not cores or any(first_pages.get(core, row.page + 1) > row.page for core in cores):
        return False
    here = {core for core in cores if first_pages[core] == row.page}
    return not (here and alone) or here <= {_core(x.text) for x in lines if x not in row.lines}


@lru_cache(maxsize=10_000)
def _core(text: str) -> str:
    return letters_and_digits(_CHAPTER_NUMBER.sub("", text.strip()))


def _value(number: str) -> int:
    if number.isdigit():
        return int(number)
    values = [_ROMAN[letter] for letter in number.lower()]
    return sum(
        -value if value < later else value
        for value, later in zip(values, [*values[1:], 0], strict=True)
    )
