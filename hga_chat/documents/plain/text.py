"""Plain text and source code: sections of whole lines."""

from hga_chat.documents.plain.decode import decode_text
from hga_chat.documents.plain.sections import sections_of, split_lines
from hga_chat.documents.types import LoadedFile


def load_text(path: str, data: bytes) -> LoadedFile:
    """Load a text file as sections of at most 200 lines.

    Raises:
        UnreadableError: ``data`` is not text.
    """
    lines = split_lines(decode_text(data))
    return LoadedFile(tuple(sections_of(path, lines, None, range(1, len(lines) + 1))))
