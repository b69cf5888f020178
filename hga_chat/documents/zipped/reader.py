"""Documents in ZIP archives: EPUB and Word."""

from pathlib import Path

from hga_chat.documents.plain.extracted_text import ExtractedText
from hga_chat.documents.sandbox.limits import Limits
from hga_chat.documents.sandbox.processes import extract
from hga_chat.documents.types import LoadedFile

LIMITS = Limits(seconds=60)
_WORKER = Path(__file__).with_name("worker.py")


def load_zipped(path: str, data: bytes) -> LoadedFile:
    """Load EPUB or Word as one section per heading, labelled with the trail of headings to it.

    There are no line numbers or pages: the label is the address.

    Raises:
        UnreadableError: The archive is damaged, encrypted, of another format, or over the limits
            on entries, size, compression ratio, text, memory or time.
    """
    answer = extract(_WORKER, data, "ZIP archive", LIMITS)
    text = ExtractedText.from_answer(answer)
    preamble = text.title or ("beginning" if text.headings else "text")
    sections = text.sections(path, preamble)
    return LoadedFile(
        tuple(sections), tuple(answer["notes"]), answer["format"], text.notes(), text.title
    )
