"""Decodes the bytes of HTML, which may declare their encoding."""

import re

from hga_chat.documents.plain.declared import xml_encoding
from hga_chat.documents.plain.decode import decode_with_label

_SEARCHED_BYTES = 1 << 20
_CONTENT_CHARSET = re.compile(
    r"charset\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s;\"']+))", re.IGNORECASE
)


def decode_html(data: bytes) -> str:
    """Return HTML or XHTML as text, with the encoding that a browser would take.

    Declared encodings are labels of the WHATWG Encoding Standard, in an XML declaration or in a
    ``meta`` element anywhere in the head, beyond the bytes that browsers look at first too.

    Raises:
        UnreadableError: ``data`` is not text.
    """
    return decode_with_label(data, xml_encoding(data) or _meta_encoding(data))


def _meta_encoding(data: bytes) -> str | None:
    """Return what the first ``meta`` element with an encoding says; comments do not count."""
    if not re.search(rb"charset", data[:_SEARCHED_BYTES], re.IGNORECASE):
        return None
    from turbohtml import TokenType, tokenize

    for token in tokenize(data[:_SEARCHED_BYTES].decode("latin-1")):
        if token.type is not TokenType.START_TAG or token.tag != "meta":
            continue
        if token.attr("charset"):
            return token.attr("charset")
        if (token.attr("http-equiv") or "").strip().lower() == "content-type":
            found = _CONTENT_CHARSET.search(token.attr("content") or "")
            if found:
                return found[1] or found[2] or found[3]
    return None
