"""From the bytes of a text file to its text."""

import codecs
import re

from hga_chat.documents.types import UnreadableError

PROBE_BYTES = 8192
"""How much of a file the binary probe looks at."""

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MAX_HIGH_SHARE = 0.3


def is_binary(head: bytes) -> bool:
    """Whether the first bytes of a file have a NUL and no byte order mark that explains it."""
    return b"\0" in head and not any(head.startswith(mark) for mark, _, _ in _BYTE_ORDER_MARKS)


def decode_text(data: bytes) -> str:
    r"""Return the text of a file with ``\n`` line ends.

    A byte order mark decides; else UTF-8; else Windows-1252 or Latin-1, if the result looks like
    text in a European language.

    Raises:
        UnreadableError: ``data`` is binary or in an encoding that cannot be told.
    """
    if is_binary(data):
        raise UnreadableError("binary")
    text = _decode(data)
    if "\0" in text:
        raise UnreadableError("binary")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode(data: bytes) -> str:
    for mark, encoding, name in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                raise UnreadableError(f"marked as {name} but not valid {name}") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_legacy(data)


def _decode_legacy(data: bytes) -> str:
    unknown = UnreadableError("unknown text encoding; convert it to UTF-8")
    damaged = data.decode("utf-8", "replace")
    if _CONTROLS.search(damaged):
        raise unknown
    high = sum(byte >= 0x80 for byte in data)
    invalid = damaged.count("\ufffd")
    # A few bad bytes in what is otherwise UTF-8 cost those bytes only.
    valid = sum(char >= "\x80" for char in damaged) - invalid
    if valid > invalid:
        return damaged
    if high > _MAX_HIGH_SHARE * len(data):
        raise unknown
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if any("\x80" <= char < "\xa0" for char in text):
        raise unknown
    return text
