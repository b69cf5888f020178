"""Lines of text with headings among them, and the sections they make."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hga_chat.documents.plain.text import sections_of
from hga_chat.documents.types import Section


@dataclass(frozen=True)
class Outline:
    """The text of a document, as a reader of marked-up formats finds it."""

    lines: list[str]
    """Without their ends."""
    headings: list[tuple[int, int, str]]
    """Index of the line, level and title of each heading, in order; a lower level holds others."""
    numbers: list[int] | None = None
    """Line of the source in which each line begins, from 1; None where the source has no lines."""
    title: str = ""
    anchors: dict[str, int] = field(default_factory=dict)
    """Index of the line that each name stands for."""

    @classmethod
    def from_answer(cls, answer: dict[str, Any]) -> "Outline":
        """Build one from the answer of a worker."""
        headings = [(index, level, title) for index, level, title in answer["headings"]]
        return cls(answer["lines"], headings, answer.get("numbers"), answer.get("title", ""))

    def answer(self) -> dict[str, Any]:
        """Return what ``from_answer`` takes."""
        return {
            "lines": self.lines,
            "headings": self.headings,
            "numbers": self.numbers,
            "title": self.title,
        }

    def sections(self, path: str, beginning: str | None = None) -> list[Section]:
        """Return a section a heading; ``beginning`` labels what stands before the first."""
        ended = [f"{line}\n" for line in self.lines]
        return sections_under(path, ended, self.headings, beginning, self.numbers)


def sections_under(
    path: str,
    lines: Sequence[str],
    headings: Iterable[tuple[int, int, str]],
    beginning: str | None = None,
    numbers: Sequence[int] | None = None,
) -> list[Section]:
    """Cut ``lines`` into one section a heading, labelled with the trail of headings to it.

    Args:
        path: Named in the sections.
        lines: With their ends.
        headings: Index of the line, level and title of each, in order.
        beginning: Label of what stands before the first heading; None labels it with its lines.
        numbers: As for ``sections_of``.
    """
    found = list(headings)
    starts = [start for start, _, _ in found] + [len(lines)]
    own = numbers[: starts[0]] if numbers is not None else None
    sections = sections_of(path, lines[: starts[0]], beginning, own)
    trail: list[tuple[int, str]] = []
    for (start, level, title), end in zip(found, starts[1:], strict=True):
        trail = [entry for entry in trail if entry[0] < level] + [(level, title)]
        label = " > ".join(title for _, title in trail)
        own = numbers[start:end] if numbers is not None else None
        sections += sections_of(path, lines[start:end], label, own)
    return sections
