"""Decodes the bytes of text files, whatever their encoding."""

import codecs
import contextlib
import re

from hga_chat.documents.plain.alphabets import european_encoding
from hga_chat.documents.types import UnreadableError

PROBE_BYTES = 8192
"""How much of a file decides whether it is binary."""

# UTF-32 before UTF-16: its little-endian mark starts with that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_HIGH_BYTES = bytes(range(0x80, 0x100))
_HIGH = re.compile(rb"[\x80-\xff]")
_HIGH_PAIRS = re.compile(rb"[\x80-\xff]{2,}")
_MAX_HIGH_SHARE = 0.3
_MAX_BAD_SHARE = 0.001

_ENCODING_PROBE_BYTES = 8192
_SEARCHED_BYTES = 1 << 18
_MIN_HIGH_BYTES = 24
_MIN_UTF16_BYTES = 128
_MIN_WESTERN_UTF16_BYTES = 8
_MAX_PLANES = 8
# Bytes beyond ASCII are mostly single in western and central European text, in runs elsewhere.
_MIN_PAIRED_SHARE = 0.5
_MIN_KANA_SHARE = 0.6
_OTHER = (
    "cp1251",
    "koi8_r",
    "cp866",
    "iso8859_5",
    "mac_cyrillic",
    "cp1253",
    "cp1255",
    "cp1256",
    "cp874",
    "cp932",
    "euc_jp",
    "gb18030",
    "big5",
    "euc_kr",
)


def is_binary(head: bytes) -> bool:
    """Whether the first bytes of a file contain a NUL that is not part of a character."""
    if b"\0" not in head or any(head.startswith(mark) for mark, _, _ in _BYTE_ORDER_MARKS):
        return False
    return _unmarked_utf16(head) is None


def decode_text(data: bytes) -> str:
    r"""Return the text of a file with ``\n`` line ends.

    Tried in order: the encoding of a byte order mark; UTF-16 without a mark; UTF-8; the encoding
    that fits a sample best, if the sample is long enough; Windows-1252 or Latin-1, if the result
    looks like text in a European language.

    Raises:
        UnreadableError: ``data`` is binary or its encoding cannot be recognised.
    """
    if is_binary(data[:PROBE_BYTES]):
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
                raise UnreadableError(
                    f"has a {name} byte order mark but is not valid {name}"
                ) from None
    head = data[:PROBE_BYTES]
    unmarked = _unmarked_utf16(head) if b"\0" in head else None
    if unmarked is not None:
        return data.decode(unmarked, "replace")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_legacy(data)
    if "\x1b$" in text[:_SEARCHED_BYTES] and text.isascii():
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("iso2022_jp")
    return text


def _unmarked_utf16(head: bytes) -> str | None:
    """Return the byte order of UTF-16 without a mark; None if the bytes are not UTF-16.

    In western text, half of the bytes are NUL. Other text must be printable throughout and contain
    some ASCII. Binary data decoded like this is not printable; pairs of ASCII bytes are, but their
    high bytes take many different values.
    """
    if len(head) % 2 or len(head) < _MIN_WESTERN_UTF16_BYTES:
        return None
    found = []
    for encoding, high in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        western = high.count(0) > 0.7 * len(high)
        scattered = head.isascii() and len(set(high)) > _MAX_PLANES
        if not western and (scattered or len(head) < _MIN_UTF16_BYTES):
            continue
        # The probe may end within a surrogate pair.
        text = head.decode(encoding, "ignore")
        if len(text) >= len(head) // 2 - 1 - _surrogate_pairs(text) and all(
            char.isprintable() or char in "\t\n\r\f\u3000\ufeff" for char in text
        ):
            ascii_count = sum(char < "\x80" for char in text)
            found.append((ascii_count, encoding))
    best = max(found, default=(0, None))
    return best[1] if best[0] else None


def _surrogate_pairs(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2 - len(text)


def _decode_legacy(data: bytes) -> str:
    unknown = UnreadableError("unknown text encoding; convert it to UTF-8")
    damaged = data.decode("utf-8", "replace")
    if _CONTROLS.search(damaged):
        raise unknown
    high = len(data) - len(data.translate(None, _HIGH_BYTES))
    invalid = damaged.count("\ufffd")
    # In mostly valid UTF-8, only the bad bytes are lost.
    valid = sum(char >= "\x80" for char in damaged) - invalid
    if valid > invalid:
        return damaged
    encoding = _detect(data)
    if encoding is not None:
        text = data.decode(encoding, "replace")
        if text.count("\ufffd") <= max(1, _MAX_BAD_SHARE * len(text)):
            return text
    if high > _MAX_HIGH_SHARE * len(data):
        raise unknown
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if any("\x80" <= char < "\xa0" for char in text):
        raise unknown
    return text


def _detect(data: bytes) -> str | None:
    """Return the encoding that fits the lines with bytes beyond ASCII best; None if unsure."""
    probe = _lines_beyond_ascii(data)
    high = len(_HIGH.findall(probe))
    paired = sum(len(run) for run in _HIGH_PAIRS.findall(probe))
    if paired < _MIN_PAIRED_SHARE * high:
        return european_encoding(probe) or ("cp932" if _is_kana(probe) else None)
    if high < _MIN_HIGH_BYTES:
        return None
    from charset_normalizer import from_bytes

    best = from_bytes(probe, cp_isolation=list(_OTHER)).best()
    return best.encoding if best is not None else None


def _is_kana(probe: bytes) -> bool:
    """Whether this is Shift-JIS with many katakana, whose second bytes are ASCII."""
    text = probe.decode("cp932", "ignore")
    beyond = [char for char in text if char > "\x7f"]
    kana = sum("\u3040" <= char <= "\u30ff" for char in beyond)
    return len(beyond) >= _MIN_HIGH_BYTES / 2 and kana >= _MIN_KANA_SHARE * len(beyond)


def _lines_beyond_ascii(data: bytes) -> bytes:
    """Return a sample of the lines that contain bytes beyond ASCII."""
    first = _HIGH.search(data)
    start = data.rfind(b"\n", 0, first.start()) + 1 if first else 0
    lines, size = [], 0
    for line in data[start : start + _SEARCHED_BYTES].splitlines(keepends=True):
        if not line.isascii():
            lines.append(line)
            size += len(line)
        if size >= _ENCODING_PROBE_BYTES:
            break
    return b"".join(lines)[:_ENCODING_PROBE_BYTES]
