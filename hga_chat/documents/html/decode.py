"""Decodes the bytes of HTML, which may declare their encoding."""

import re

from hga_chat.documents.plain.decode import decode_text

_HEAD_BYTES = 2048
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9._:-]+)""", re.IGNORECASE)
# Python codecs that are not character sets of web pages.
_NO_CHARSET = re.compile("idna|punycode|escape|utf.?7|undefined", re.IGNORECASE)


def decode_html(data: bytes) -> str:
    """Return HTML or XHTML as text.

    If an encoding is declared, UTF-8 is tried first, then that encoding; otherwise, or if both
    fail, the encoding is detected as for plain text.

    Raises:
        UnreadableError: ``data`` is not text.
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
