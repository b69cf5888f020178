"""Plain text and source code: sections of whole lines."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from hga_chat.documents.plain.decode import decode_text
from hga_chat.documents.types import Reading, Section

MAX_SECTION_LINES = 200
MAX_SECTION_CHARS = 20_000


def read_text(path: str, data: bytes) -> Reading:
    """Read a text file into sections of at most 200 lines.

    Raises:
        UnreadableError: ``data`` is not text.
    """
    lines = split_lines(decode_text(data))
    return Reading(tuple(sections_of(path, lines, None, range(1, len(lines) + 1))))


def split_lines(text: str) -> list[str]:
    r"""Split at ``\n`` alone, each line with its end; joined they are ``text`` again."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def sections_of(
    path: str, lines: Sequence[str], label: str | None, numbers: Sequence[int] | None
) -> list[Section]:
    """Cut ``lines`` into sections, between blocks of text where that is possible.

    Args:
        path: Named in the sections.
        lines: With their ends.
        label: Of every section; None labels each with its lines. Without lines, the second and
            later ones are numbered as parts.
        numbers: Line of the file in which each of ``lines`` begins, from 1; None for a format
            without lines, which then needs a label.
    """
    sections: list[Section] = []
    start = 0
    while start < len(lines):
        end = _cut(lines, start)
        text = "".join(lines[start:end])
        if numbers is None:
            part = f", part {len(sections) + 1}" if sections else ""
            sections.append(Section(path, f"{label}{part}", text, None, None, page=None))
        else:
            first, last = numbers[start], numbers[end - 1]
            own = f"lines {first}-{last}" if last > first else f"line {first}"
            follow = list(numbers[start:end])
            lines_of_text = None if follow == list(range(first, last + 1)) else tuple(follow)
            sections.append(Section(path, label or own, text, first, last, None, lines_of_text))
        start = end
    return sections


def _cut(lines: Sequence[str], start: int) -> int:
    sizes = accumulate(map(len, lines[start : start + MAX_SECTION_LINES]))
    end = start + max(bisect_right([*sizes], MAX_SECTION_CHARS), 1)
    if end == len(lines):
        return end
    # The last unindented line after a blank one begins the next section.
    for index in range(end, start + (end - start) // 2, -1):
        if lines[index - 1].isspace() and not lines[index][0].isspace():
            return index
    return end
