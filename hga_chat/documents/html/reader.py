"""HTML: the visible text, one section per heading."""

from pathlib import Path

from hga_chat.documents.plain.extracted_text import ExtractedText
from hga_chat.documents.sandbox.limits import Limits
from hga_chat.documents.sandbox.processes import extract
from hga_chat.documents.types import LoadedFile

LIMITS = Limits(seconds=30)
_WORKER = Path(__file__).with_name("worker.py")


def load_html(path: str, data: bytes) -> LoadedFile:
    """Load HTML as one section per heading, labelled with the trail of headings to it.

    Line numbers are those of the source. Text before the first heading is labelled with the page's
    title or, without one, with its lines.

    Raises:
        UnreadableError: ``data`` is not text, contains no text, or takes too long to parse.
    """
    text = ExtractedText.from_answer(extract(_WORKER, data, "HTML", LIMITS))
    sections = text.sections(path, text.title or None)
    return LoadedFile(tuple(sections), left_out=text.notes(), title=text.title)
