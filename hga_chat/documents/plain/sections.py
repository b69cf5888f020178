"""Cuts lines of text into sections: by length, and at headings."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from hga_chat.documents.types import HEADING_JOINT, Section

MAX_SECTION_LINES = 200
MAX_SECTION_CHARS = 20_000


def split_lines(text: str) -> list[str]:
    r"""Split ``text`` after each ``\n`` and nowhere else; joined, the lines are ``text`` again."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def sections_of(
    path: str, lines: Sequence[str], label: str | None, numbers: Sequence[int] | None
) -> list[Section]:
    """Cut ``lines`` into sections, between blocks of text where possible.

    Args:
        path: The path to name in the sections.
        lines: Lines with their line ends.
        label: Label of every section; None labels each with its lines. Without ``numbers``, the
            second and later sections are labelled as parts.
        numbers: For each line, its line in the file, from 1; None for a format without lines,
            which needs a label.
    """
    sections: list[Section] = []
    start = 0
    while start < len(lines):
        end = _section_end(lines, start)
        text = "".join(lines[start:end])
        if numbers is None:
            part = f", part {len(sections) + 1}" if sections else ""
            sections.append(Section(path, f"{label}{part}", text, None, None, page=None))
        else:
            first, last = numbers[start], numbers[end - 1]
            own = f"lines {first}-{last}" if last > first else f"line {first}"
            of_lines = list(numbers[start:end])
            is_consecutive = of_lines == list(range(first, last + 1))
            lines_of_text = None if is_consecutive else tuple(of_lines)
            sections.append(Section(path, label or own, text, first, last, None, lines_of_text))
        start = end
    return sections


def sections_under(
    path: str,
    lines: Sequence[str],
    headings: Iterable[tuple[int, int, str]],
    preamble: str | None = None,
    numbers: Sequence[int] | None = None,
) -> list[Section]:
    """Cut ``lines`` into one section per heading, labelled with the trail of headings to it.

    Args:
        path: The path to name in the sections.
        lines: Lines with their line ends.
        headings: Line index, level and title of each heading, in order.
        preamble: Label of the text before the first heading; None labels it with its lines.
        numbers: As for ``sections_of``.
    """
    found = list(headings)
    starts = [start for start, _, _ in found] + [len(lines)]
    own = numbers[: starts[0]] if numbers is not None else None
    sections = sections_of(path, lines[: starts[0]], preamble, own)
    trail: list[tuple[int, str]] = []
    for (start, level, title), end in zip(found, starts[1:], strict=True):
        trail = [entry for entry in trail if entry[0] < level] + [(level, title)]
        label = HEADING_JOINT.join(title for _, title in trail)
        own = numbers[start:end] if numbers is not None else None
        sections += sections_of(path, lines[start:end], label, own)
    return sections


def _section_end(lines: Sequence[str], start: int) -> int:
    sizes = accumulate(map(len, lines[start : start + MAX_SECTION_LINES]))
    end = start + max(bisect_right([*sizes], MAX_SECTION_CHARS), 1)
    if end == len(lines):
        return end
    # The next section starts at the last unindented line after a blank one.
    for index in range(end, start + (end - start) // 2, -1):
        if lines[index - 1].isspace() and not lines[index][0].isspace():
            return index
    return end
