"""HTML: the text a reader would see, a section a heading."""

from pathlib import Path

from hga_chat.documents.plain.extracted_text import ExtractedText
from hga_chat.documents.sandbox.processes import Limits, extract
from hga_chat.documents.types import LoadedFile

LIMITS = Limits(seconds=30)
_WORKER = Path(__file__).with_name("worker.py")


def load_html(path: str, data: bytes) -> LoadedFile:
    """Read HTML into one section a heading, labelled with the trail of headings to it.

    Lines are those of the source. What stands before the first heading is labelled with the
    page's title, or with its lines.

    Raises:
        UnreadableError: ``data`` is not text, has no text to read, or takes too long.
    """
    outline = ExtractedText.from_answer(extract(_WORKER, data, "HTML", LIMITS))
    return LoadedFile(tuple(outline.sections(path, outline.title or None)))
