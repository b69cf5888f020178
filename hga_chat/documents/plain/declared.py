"""Finds the encoding that a text file declares, by the rules of its own format.

XML 1.0 (section 2.8), PEP 263 and the same comment in other languages (Emacs, Vim, Ruby), CSS
(``@charset``), LaTeX (``inputenc``), and MIME headers, as in saved mail and gettext catalogues.
"""

import re

_HEAD_BYTES = 4096
_LABEL = rb"([A-Za-z][A-Za-z0-9._:-]*)"
_XML = re.compile(rb"\s*<\?xml\s[^>]{0,300}?\bencoding\s*=\s*[\"']" + _LABEL + rb"[\"']")
_CSS = re.compile(rb"@charset \"" + _LABEL + rb"\";")
# The first two lines, the second only if the first is empty or a comment as well.
_COMMENT = rb"[ \t\f]*(?:#|;|//|/\*|%|--|<!--|\(\*|\"|'|\.\\\"|!)"
_CODING = rb"[^\n\r]*?coding[:=][ \t]*" + _LABEL
_SOURCE = re.compile(
    rb"(?:(?:" + _COMMENT + rb"[^\n\r]*|[ \t\f]*)(?:\r\n|\n|\r))?" + _COMMENT + _CODING
)
_VIM = re.compile(rb"\bvim?:[^\n\r]*?\b(?:fileencoding|fenc)=" + _LABEL)
_TEX = re.compile(
    rb"^[^%\n\r]*\\(?:usepackage|RequirePackage)\[" + _LABEL + rb"\]\{inputenc\}", re.M
)
_MIME = re.compile(
    rb"^\"?Content-Type:[ \t]*[a-z]+/[a-z.+-]+;\s*(?:[a-z-]+=[^;\n\r]+;\s*)*charset=\"?" + _LABEL,
    re.IGNORECASE | re.MULTILINE,
)
# In templates of pages, which are text; pages themselves are parsed.
_META = re.compile(rb"<meta\s[^<>]{0,200}?charset\s*=\s*[\"']?\s*" + _LABEL, re.IGNORECASE)


def xml_encoding(data: bytes) -> str | None:
    """Return the label of the encoding in an XML declaration; None without one."""
    found = _XML.match(data[:_HEAD_BYTES])
    return found[1].decode("ascii") if found else None


def declared_encoding(data: bytes) -> str | None:
    """Return the label of the encoding that a file declares; None if it declares none."""
    head = data[:_HEAD_BYTES]
    for declaration in (_XML, _CSS, _SOURCE):
        found = declaration.match(head)
        if found:
            return found[1].decode("ascii")
    for declaration in (_TEX, _MIME, _META):
        found = declaration.search(head)
        if found:
            return found[1].decode("ascii")
    lines = head.splitlines()[:5] + data[-_HEAD_BYTES:].splitlines()[-5:]
    found = next(filter(None, map(_VIM.search, lines)), None)
    return found[1].decode("ascii") if found else None
