"""The formats that can be read.

A format is a name, how its files are recognised, a size limit and one function from bytes to
sections. A new format is one more entry in ``FORMATS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

from hga_chat.documents.markdown import read_markdown
from hga_chat.documents.pdf import read_pdf
from hga_chat.documents.text import read_text
from hga_chat.documents.types import Reading

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Format:
    """A kind of document."""

    name: str
    read: Callable[[str, bytes], Reading]
    """Takes the path to name in the sections and the file's bytes; raises ``UnreadableError``."""
    max_bytes: int
    suffixes: frozenset[str] = frozenset()
    magic: bytes | None = None
    """Bytes that files of this format begin with."""
    is_text: bool = True


PDF = Format("pdf", read_pdf, 100 * MEGABYTE, frozenset({".pdf"}), b"%PDF-", is_text=False)
MARKDOWN = Format(
    "markdown", read_markdown, 5 * MEGABYTE, frozenset({".md", ".markdown", ".mdown", ".mkd"})
)
TEXT = Format("text", read_text, 5 * MEGABYTE)
FORMATS = (PDF, MARKDOWN)


def format_of(path: str, head: bytes) -> Format:
    """Tell the format of a file by its first bytes, else by its name; else it is text."""
    for candidate in FORMATS:
        if candidate.magic is not None and head.startswith(candidate.magic):
            return candidate
    suffix = PurePath(path).suffix.lower()
    return next((candidate for candidate in FORMATS if suffix in candidate.suffixes), TEXT)
