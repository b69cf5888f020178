"""Documents that come as ZIP archives: EPUB and DOCX."""

from pathlib import Path

from hga_chat.documents.plain.extracted_text import ExtractedText
from hga_chat.documents.sandbox.processes import Limits, extract
from hga_chat.documents.types import LoadedFile

LIMITS = Limits(seconds=60)
_WORKER = Path(__file__).with_name("worker.py")


def load_zipped(path: str, data: bytes) -> LoadedFile:
    """Read EPUB or DOCX into one section a heading, labelled with the trail of headings to it.

    There are neither lines nor pages: the label is the address.

    Raises:
        UnreadableError: The archive is damaged, encrypted, neither of the two, or beyond the
            limits on entries, size, ratio, text, memory or time.
    """
    answer = extract(_WORKER, data, "ZIP archive", LIMITS)
    outline = ExtractedText.from_answer(answer)
    beginning = "beginning" if outline.headings else "text"
    sections = outline.sections(path, outline.title or beginning)
    return LoadedFile(tuple(sections), tuple(answer["notes"]), answer["format"])
