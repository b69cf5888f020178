"""The text extracted from a marked-up document: lines with headings among them."""

from dataclasses import dataclass, field
from typing import Any

from hga_chat.documents.plain.sections import sections_under
from hga_chat.documents.types import Section


@dataclass(frozen=True)
class ExtractedText:
    """The lines and headings of an HTML, Word or EPUB document."""

    lines: list[str]
    """Lines without their line ends."""
    headings: list[tuple[int, int, str]]
    """Line index, level and title of each heading, in order; lower levels contain higher ones."""
    numbers: list[int] | None = None
    """For each line, its line in the source, from 1; None if the source has no lines."""
    title: str = ""
    anchors: dict[str, int] = field(default_factory=dict)
    """Line index of each anchor, by name."""
    left_out: dict[str, int] = field(default_factory=dict)
    """What of the document is not in the lines, such as ``scripts``, and how often."""

    @classmethod
    def from_answer(cls, answer: dict[str, Any]) -> "ExtractedText":
        """Build the text from a worker's JSON answer."""
        headings = [(index, level, title) for index, level, title in answer["headings"]]
        return cls(
            *(answer["lines"], headings, answer.get("numbers"), answer.get("title", "")),
            left_out=answer.get("left_out", {}),
        )

    def answer(self) -> dict[str, Any]:
        """Return the JSON object that ``from_answer`` takes; anchors are not part of it."""
        return {
            "lines": self.lines,
            "headings": self.headings,
            "numbers": self.numbers,
            "title": self.title,
            "left_out": self.left_out,
        }

    def notes(self) -> tuple[str, ...]:
        """Return in a few words each what is left out, such as ``scripts (3)``."""
        return tuple(f"{what} ({count:,})" for what, count in self.left_out.items() if count)

    def sections(self, path: str, preamble: str | None = None) -> list[Section]:
        """Return one section per heading; ``preamble`` labels the text before the first."""
        ended = [f"{line}\n" for line in self.lines]
        return sections_under(path, ended, self.headings, preamble, self.numbers)
