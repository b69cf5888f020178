"""The supported formats, and which of them a file has.

A format is a name, a way to recognise its files, a size limit and one function from bytes to
sections. To add a format, add an entry to ``FORMATS``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

from hga_chat.documents.html.reader import load_html
from hga_chat.documents.notebook.reader import load_notebook
from hga_chat.documents.pdf.reader import load_pdf
from hga_chat.documents.plain.decode import is_binary
from hga_chat.documents.plain.markdown import load_markdown
from hga_chat.documents.plain.table import load_table
from hga_chat.documents.plain.text import load_text
from hga_chat.documents.types import LoadedFile
from hga_chat.documents.zipped.reader import load_zipped

MEGABYTE = 1_000_000

_PDF_MARK = b"%PDF-"
_PDF_MARK_BYTES = 1024
_ZIP_MARKS = (b"PK\x03\x04", b"PK\x05\x06")
_HTML_BEGINNING = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--(?:(?!-->).){0,1000}-->\s*){0,4}"
    rb"(?:<!doctype\s+html\b|<html[\s>])",
    re.IGNORECASE | re.DOTALL,
)
# A page with server-side instructions is source code.
_TEMPLATE = re.compile(rb"<\?php|<\?=|<%|\{%")
_NOTEBOOK_BEGINNING = re.compile(rb"""(?:\xef\xbb\xbf)?\s*\{\s*"(?:cells|nbformat|metadata)"\s*:""")
_NOTEBOOK_FIELDS = re.compile(rb""""(?:nbformat|cell_type)"\s*:""")


def _never(head: bytes) -> bool:  # noqa: ARG001
    return False


@dataclass(frozen=True)
class Format:
    """A file format: how to recognise and load it."""

    name: str
    load: Callable[[str, bytes], LoadedFile]
    """Takes the path to name in the sections and the file's bytes; raises ``UnreadableError``."""
    max_bytes: int
    suffixes: frozenset[str] = frozenset()
    begins: Callable[[bytes], bool] = _never
    """Whether a file that starts with these bytes has this format, whatever its name."""
    may_begin: Callable[[bytes], bool] = lambda _: True
    """Whether a file with one of ``suffixes`` that starts with these bytes can have this format."""
    is_text: bool = True


def _begins_as_notebook(head: bytes) -> bool:
    return bool(_NOTEBOOK_BEGINNING.match(head) and _NOTEBOOK_FIELDS.search(head))


def _begins_as_html(head: bytes) -> bool:
    return bool(_HTML_BEGINNING.match(head)) and not _TEMPLATE.search(head)


def _may_begin_pdf(head: bytes) -> bool:
    return _PDF_MARK in head[:_PDF_MARK_BYTES] or is_binary(head)


PDF = Format(
    "pdf",
    load_pdf,
    100 * MEGABYTE,
    frozenset({".pdf"}),
    begins=lambda head: head.startswith(_PDF_MARK),
    may_begin=_may_begin_pdf,
    is_text=False,
)
ZIPPED = Format(
    "zip",
    load_zipped,
    100 * MEGABYTE,
    begins=lambda head: head.startswith(_ZIP_MARKS),
    is_text=False,
)
NOTEBOOK = Format(
    "notebook",
    load_notebook,
    50 * MEGABYTE,
    frozenset({".ipynb"}),
    begins=_begins_as_notebook,
    may_begin=lambda head: head.lstrip().startswith((b"{", b"\xef\xbb\xbf{")),
)
HTML = Format(
    "html",
    load_html,
    5 * MEGABYTE,
    frozenset({".html", ".htm", ".xhtml"}),
    begins=_begins_as_html,
)
MARKDOWN = Format(
    "markdown", load_markdown, 5 * MEGABYTE, frozenset({".md", ".markdown", ".mdown", ".mkd"})
)
TABLE = Format("table", load_table, 50 * MEGABYTE, frozenset({".csv", ".tsv"}))
TEXT = Format("text", load_text, 5 * MEGABYTE)
FORMATS = (PDF, ZIPPED, NOTEBOOK, HTML, MARKDOWN, TABLE)


def format_of(path: str, head: bytes) -> Format:
    """Return the format of a file: by its first bytes, else by its name, else text."""
    for candidate in FORMATS:
        if candidate.begins(head):
            return candidate
    suffix = PurePath(path).suffix.lower()
    for candidate in FORMATS:
        if suffix in candidate.suffixes and candidate.may_begin(head):
            return candidate
    return TEXT
