"""Reads HTML in a process of its own; a worker for ``child``."""

import re
from typing import Any

from hga_chat.documents.html.render import render
from hga_chat.documents.plain.decode import decode_text
from hga_chat.documents.types import UnreadableError

MAX_TEXT_CHARS = 5_000_000
_HEAD_BYTES = 2048
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9._:-]+)""", re.IGNORECASE)
# What browsers know is of one to four bytes a character; Python also knows codes for other ends.
_NO_CHARSET = re.compile("idna|punycode|escape|utf.?7|undefined", re.IGNORECASE)


def extract(data: bytes) -> dict[str, Any]:
    """Return the outline of an HTML page, or the reason why there is none."""
    try:
        text = decode_html(data)
    except UnreadableError as error:
        return {"error": str(error)}
    outline = render(text, keep_lines=True)
    if not any(outline.lines):
        outline = render(text, keep_lines=True, drop_navigation=False)
    if not any(outline.lines):
        return {"error": "no text; the page is filled in by scripts"}
    if sum(map(len, outline.lines)) > MAX_TEXT_CHARS:
        return {"error": f"more than {MAX_TEXT_CHARS:,} characters of text"}
    return outline.answer()


def decode_html(data: bytes) -> str:
    """Return the text of HTML or XHTML: UTF-8 if it is that, else as declared, else as text.

    Raises:
        UnreadableError: As ``decode_text``.
    """
    declared = _DECLARED.search(data[:_HEAD_BYTES])
    name = declared[1].decode("ascii") if declared else ""
    if (
        declared
        and not _NO_CHARSET.search(name)
        and not data.startswith((b"\xfe\xff", b"\xff\xfe"))
    ):
        for encoding in ("utf-8-sig", name):
            try:
                text = data.decode(encoding)
            except (LookupError, UnicodeError):
                continue
            if "\0" not in text:
                return text.replace("\r\n", "\n").replace("\r", "\n")
    return decode_text(data)
