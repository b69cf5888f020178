"""Plain text and source code: sections of whole lines."""

from hga_chat.documents.plain.decode import decode_lines
from hga_chat.documents.plain.sections import sections_of, split_lines
from hga_chat.documents.plain.terminal import as_shown
from hga_chat.documents.types import LoadedFile


def load_text(path: str, data: bytes) -> LoadedFile:
    """Load a text file as sections of at most 200 lines, as a terminal would show it.

    Raises:
        UnreadableError: ``data`` is not text.
    """
    text, left_out = as_shown(decode_lines(data))
    lines = split_lines(text)
    sections = sections_of(path, lines, None, range(1, len(lines) + 1))
    notes = (f"{what} ({count:,})" for what, count in left_out.items() if count)
    return LoadedFile(tuple(sections), left_out=tuple(notes))
