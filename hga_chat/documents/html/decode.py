"""Decodes the bytes of HTML, which may declare their encoding."""

import re

from hga_chat.documents.plain.charset_labels import is_charset
from hga_chat.documents.plain.declared import xml_encoding
from hga_chat.documents.plain.decode import decode_with_label

_PRESCAN_BYTES = 1024
_SEARCHED_BYTES = 1 << 20
_COMMENT_OR_TAG = re.compile(
    rb"<!--.*?(?:-->|\Z)|<[A-Za-z/](?:[^>\"']|\"[^\"]*\"|'[^']*')*>|<[!/?][^>]*>",
    re.IGNORECASE | re.DOTALL,
)
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
    """Return the first encoding that a ``meta`` element names and that exists; None without one.

    Like a browser, it looks at the tags of the first 1,024 bytes without parsing what surrounds
    them, and at the elements of the rest.
    """
    if not re.search(rb"charset", data[:_SEARCHED_BYTES], re.IGNORECASE):
        return None
    for match in _COMMENT_OR_TAG.finditer(data[:_PRESCAN_BYTES]):
        label = _label_in(match[0])
        if label is not None:
            return label
    return _label_in(data[:_SEARCHED_BYTES])


def _label_in(markup: bytes) -> str | None:
    from turbohtml import TokenType, tokenize

    for token in tokenize(markup.decode("latin-1")):
        if token.type is not TokenType.START_TAG or token.tag != "meta":
            continue
        label = token.attr("charset")
        if label is None and (token.attr("http-equiv") or "").lower() == "content-type":
            found = _CONTENT_CHARSET.search(token.attr("content") or "")
            label = found[1] or found[2] or found[3] if found else None
        if label is not None and is_charset(label):
            return label
    return None
