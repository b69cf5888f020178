"""Markdown: one section per heading."""

from collections.abc import Sequence
from itertools import pairwise

from markdown_it import MarkdownIt

from hga_chat.documents.plain.decode import decode_text
from hga_chat.documents.plain.sections import sections_under, split_lines
from hga_chat.documents.types import LoadedFile

_FRONT_MATTER = "---"


def load_markdown(path: str, data: bytes) -> LoadedFile:
    """Load Markdown as one section per heading, labelled with the trail of headings to it.

    Headings follow CommonMark, except that those in lists and quotes do not count. Text before
    the first heading is labelled with its lines; long sections are cut further.

    Raises:
        UnreadableError: ``data`` is not text.
    """
    lines = split_lines(decode_text(data))
    numbers = range(1, len(lines) + 1)
    return LoadedFile(tuple(sections_under(path, lines, _headings(lines), None, numbers)))


def _headings(lines: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return the line index, level and title of every heading, in order."""
    skipped = _front_matter_lines(lines)
    markdown = MarkdownIt("commonmark")
    markdown.core.ruler.enableOnly(["normalize", "block"])
    tokens = markdown.parse("".join(lines[skipped:]))
    found = []
    for token, content in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map:
            title = " ".join(content.content.split()) or "untitled"
            found.append((skipped + token.map[0], int(token.tag[1:]), title))
    return found


def _front_matter_lines(lines: Sequence[str]) -> int:
    if not lines or lines[0].rstrip() != _FRONT_MATTER:
        return 0
    for index, line in enumerate(lines[1:], start=1):
        if line.rstrip() == _FRONT_MATTER:
            return index + 1
    return 0
