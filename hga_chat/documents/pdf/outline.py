"""Takes headings from a PDF's outline and finds the one that each page belongs to."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pypdf import PdfReader
from pypdf.generic import ArrayObject, DictionaryObject, IndirectObject

from hga_chat.documents.pdf.lines import Line
from hga_chat.documents.pdf.text_repair import plain

MAX_HEADINGS = 10_000
MAX_TITLE_CHARS = 120
_MIN_TITLE_CHARS = 8

# Index of the height in a destination, by its type (PDF 2.0, table 149).
_HEIGHT_AT = {"/XYZ": 3, "/FitH": 2, "/FitBH": 2, "/FitR": 5}


@dataclass(frozen=True)
class Heading:
    """An entry of the outline. ``page`` counts from 0; ``top`` is its height there in points."""

    title: str
    page: int
    top: float | None


def extract_headings(reader: PdfReader) -> list[Heading]:
    """Return the outline's entries that point to a page of the document, in page order.

    Damaged entries and links to elsewhere are left out. Each entry is visited once, so that loops
    end, and at most ``MAX_HEADINGS`` are.
    """
    headings: list[Heading] = []
    try:
        outlines = reader.root_object.get("/Outlines")
        first = outlines.get_object().raw_get("/First") if outlines is not None else None
        named = reader.named_destinations if first is not None else {}
        numbers = {
            page.indirect_reference.idnum: number
            for number, page in enumerate(reader.pages)
            if page.indirect_reference is not None
        }
    except Exception:  # noqa: BLE001 - a damaged catalogue raises anything
        return []
    for entry in _entries(first):
        heading = _heading(entry, named, numbers, len(reader.pages))
        if heading is not None:
            headings.append(heading)
    return sorted(headings, key=lambda heading: heading.page)


def _entries(first: Any) -> Iterator[DictionaryObject]:
    """Yield entries and their descendants, each once."""
    seen: dict[int, DictionaryObject] = {}
    waiting = [first]
    while waiting and len(seen) < MAX_HEADINGS:
        entry = _resolved(waiting.pop())
        if not isinstance(entry, DictionaryObject) or id(entry) in seen:
            continue
        seen[id(entry)] = entry
        yield entry
        waiting += [entry.raw_get(key) for key in ("/Next", "/First") if key in entry]


def _heading(
    entry: DictionaryObject, named: dict[str, Any], numbers: dict[int, int], count: int
) -> Heading | None:
    title = " ".join(plain(str(entry.get("/Title", ""))).replace("\u00ad", "").split())
    if len(title) > MAX_TITLE_CHARS:
        title = title[: MAX_TITLE_CHARS - 1].rstrip() + "…"
    try:
        target = _target(entry, named)
        page = target[0]
        number = numbers.get(page.idnum) if isinstance(page, IndirectObject) else int(page)
    except Exception:  # noqa: BLE001 - a damaged entry raises anything
        return None
    if not title or number is None or not 0 <= number < count:
        return None
    return Heading(title, number, _height(target))


def _target(entry: DictionaryObject, named: dict[str, Any]) -> ArrayObject:
    """Return the destination of an entry: a page and how to show it."""
    target = _resolved(entry.get("/Dest"))
    if target is None:
        action: Any = entry["/A"]
        target = _resolved(action["/D"]) if action["/S"] == "/GoTo" else None
    if isinstance(target, str | bytes):
        name = target if isinstance(target, str) else target.decode("latin-1")
        target = named[name].dest_array
    if isinstance(target, DictionaryObject):
        target = _resolved(target["/D"])
    if not isinstance(target, ArrayObject):
        raise TypeError("no destination in this document")
    return target


def _resolved(value: Any) -> Any:
    """Return the object behind a reference; None if it is missing or damaged."""
    try:
        return value.get_object()
    except Exception:  # noqa: BLE001 - a damaged reference raises anything
        return None


def _height(target: ArrayObject) -> float | None:
    at = _HEIGHT_AT.get(str(target[1])) if len(target) > 1 else None
    value = _resolved(target[at]) if at is not None and len(target) > at else None
    return float(value) if isinstance(value, int | float) else None


def headings_of_pages(
    headings: Sequence[Heading], pages: Sequence[Sequence[Line]]
) -> list[str | None]:
    """Return the title to name each page by.

    This is the heading in force at the top of the page, which may begin there; on pages before
    any heading is in force, the first heading on the page.

    Args:
        headings: Headings in page order.
        pages: The lines of each page, in reading order.
    """
    by_page = {number: list(group) for number, group in groupby(headings, lambda h: h.page)}
    titles: list[str | None] = []
    current: str | None = None
    for number, lines in enumerate(pages):
        here = by_page.get(number, [])
        title = _at_start(here, [line for line in lines if not line.is_blank]) or current
        titles.append(title or (here[0].title if here else None))
        if here:
            current = here[-1].title
    return titles


def _at_start(headings: Sequence[Heading], lines: Sequence[Line]) -> str | None:
    """Return the title of the last heading with nothing but headings above it."""
    title, above = None, 0
    for heading in headings:
        at = _lines_above(heading, lines)
        if at > above:
            break
        title = heading.title
        above = max(above, at + _height_in_lines(heading, lines[at : at + 4]))
    return title


def _height_in_lines(heading: Heading, lines: Sequence[Line]) -> int:
    title, found = letters_and_digits(heading.title), ""
    for count, line in enumerate(lines, start=1):
        found += letters_and_digits(line.text)
        if title in found:
            return count
    return 0


def _lines_above(heading: Heading, lines: Sequence[Line]) -> int:
    """Return the number of lines above a heading; 0 if unknown."""
    title = letters_and_digits(heading.title)
    for number, line in enumerate(lines):
        found = letters_and_digits(line.text)
        if found == title or (len(found) >= _MIN_TITLE_CHARS and title.startswith(found)):
            return number
    if heading.top is None:
        return 0
    return sum(line.main.baseline > heading.top for line in lines)


def letters_and_digits(text: str) -> str:
    """Return the letters and digits of ``text``, case-folded, to compare titles with lines."""
    return re.sub(r"\W+", "", plain(text)).casefold()
