"""The outline of a PDF as headings of its pages."""

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
_LEAST_OF_TITLE = 8

# Where in a destination the height stands, by the kind of destination (PDF 2.0, table 149).
_HEIGHT_AT = {"/XYZ": 3, "/FitH": 2, "/FitBH": 2, "/FitR": 5}


@dataclass(frozen=True)
class Heading:
    """An entry of the outline. ``page`` counts from 0; ``top`` is its height on it in points."""

    title: str
    page: int
    top: float | None


def extract_headings(reader: PdfReader) -> list[Heading]:
    """Return the outline's entries that lead to a page of the document, in order of the pages.

    Entries that are damaged or lead elsewhere are left out; each is looked at once, so that a
    loop ends, and no more than ``MAX_HEADINGS``.
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
    """Entries with those below them, each once."""
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
    """The destination of an entry: a page and how to show it."""
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
    """The object behind a reference, None if there is none or it is damaged."""
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

    It is the heading in force at the page's start, which may be one that begins there; before
    the first heading of all, the first that begins on the page.

    Args:
        headings: In order of the pages.
        pages: The lines of each page, in reading order.
    """
    begun = {number: list(group) for number, group in groupby(headings, lambda h: h.page)}
    titles: list[str | None] = []
    current: str | None = None
    for number, lines in enumerate(pages):
        here = begun.get(number, [])
        title = _at_start(here, [line for line in lines if not line.is_blank]) or current
        titles.append(title or (here[0].title if here else None))
        if here:
            current = here[-1].title
    return titles


def _at_start(headings: Sequence[Heading], lines: Sequence[Line]) -> str | None:
    """The last of the headings that only headings stand above."""
    title, above = None, 0
    for heading in headings:
        begins = _begins(heading, lines)
        if begins > above:
            break
        title = heading.title
        above = max(above, begins + _height_in_lines(heading, lines[begins : begins + 4]))
    return title


def _height_in_lines(heading: Heading, lines: Sequence[Line]) -> int:
    wanted, found = squeezed(heading.title), ""
    for count, line in enumerate(lines, start=1):
        found += squeezed(line.text)
        if wanted in found:
            return count
    return 0


def _begins(heading: Heading, lines: Sequence[Line]) -> int:
    """How many lines stand above a heading; none if that cannot be told."""
    wanted = squeezed(heading.title)
    for number, line in enumerate(lines):
        found = squeezed(line.text)
        if found == wanted or (len(found) >= _LEAST_OF_TITLE and wanted.startswith(found)):
            return number
    if heading.top is None:
        return 0
    return sum(line.main.baseline > heading.top for line in lines)


def squeezed(text: str) -> str:
    """Letters and digits alone, for comparing titles with lines."""
    return re.sub(r"\W+", "", plain(text)).casefold()
