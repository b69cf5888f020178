"""Extracts the text of EPUB and Word documents; a worker of the sandbox."""

import re
from typing import Any

from hga_chat.documents.plain.extracted_text import ExtractedText
from hga_chat.documents.sandbox.limits import MAX_TEXT_CHARS, TOO_MUCH_TEXT
from hga_chat.documents.types import UnreadableError
from hga_chat.documents.zipped.docx_text import extract_docx
from hga_chat.documents.zipped.epub_text import CONTAINER, extract_epub
from hga_chat.documents.zipped.members import Members

# What only the container of a book says.
_PACKAGE = re.compile(rb"epub|oebps-package|\.opf\b", re.IGNORECASE)
_WORD_FOLDER = "word/"
_CONTENT_TYPES = "[Content_Types].xml"
# A member that identifies another kind of archive, what that is, and what to do about it.
_OTHER_KINDS = (
    ("xl/workbook.xml", "an Excel workbook; save its sheets as CSV first"),
    ("ppt/presentation.xml", "a PowerPoint presentation; save it as PDF first"),
    ("AndroidManifest.xml", "an Android app"),
    ("META-INF/MANIFEST.MF", "a Java archive"),
)
_OPEN_DOCUMENT = b"application/vnd.oasis.opendocument."


def extract(data: bytes) -> dict[str, Any]:
    """Return the text of an EPUB or Word file as JSON, or ``{"error": reason}``."""
    try:
        kind, text, notes = _extract(Members(data))
    except UnreadableError as error:
        return {"error": str(error)}
    if not any(line.strip() for line in text.lines):
        return {"error": notes[0] if notes else f"no text in this {kind.upper()} file"}
    if sum(map(len, text.lines)) > MAX_TEXT_CHARS:
        return {"error": TOO_MUCH_TEXT}
    return {"format": kind, "notes": notes, **text.answer()}


def _extract(members: Members) -> tuple[str, ExtractedText, list[str]]:
    if _is_epub(members):
        return "epub", *extract_epub(members)
    names = members.names
    if _CONTENT_TYPES in members and any(name.startswith(_WORD_FOLDER) for name in names):
        return "docx", *extract_docx(members)
    raise UnreadableError(_other_kind(members))


def _is_epub(members: Members) -> bool:
    container = members.find(CONTAINER)
    if container is not None and _PACKAGE.search(members.read(container)):
        return True
    return b"epub" in _mimetype(members)


def _mimetype(members: Members) -> bytes:
    return members.read("mimetype") if "mimetype" in members else b""


def _other_kind(members: Members) -> str:
    if not members.names:
        return "an empty ZIP archive"
    if _mimetype(members).startswith(_OPEN_DOCUMENT):
        return "an OpenDocument file; save it as .docx or PDF first"
    for name, kind in _OTHER_KINDS:
        if name in members:
            return kind
    return "a ZIP archive; unpack it first"
