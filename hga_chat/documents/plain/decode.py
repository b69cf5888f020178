"""Decodes the bytes of text files, whatever their encoding."""

import codecs
import re

from hga_chat.documents.plain.alphabets import code_page, cyrillic_encoding, is_punctuation
from hga_chat.documents.plain.charset_labels import decode_labelled, is_utf8
from hga_chat.documents.plain.declared import declared_encoding
from hga_chat.documents.plain.line_ends import unix_line_ends
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
_CONTROLS = re.compile(r"[\x01-\x07\x0e-\x1a\x1c-\x1f\x7f]")
_CONTROL_BYTES = bytes(code for code in range(1, 128) if _CONTROLS.match(chr(code)))
_MAX_CONTROL_SHARE = 0.001
_MAX_CONTROLS_BESIDE_NULS = 0.01
_NULS = re.compile("\0+")
_NUL_BYTES = re.compile(rb"\0+")
_MIN_TEXT_BYTES = 16
_MAX_NUL_SHARE = 0.04
_UTF16_PIECES = re.compile(rb"(?:[\b\t\n\r\x1b -~]\0){8,}|(?:\0[\b\t\n\r\x1b -~]){8,}")
"""Where a program has written UTF-16 into a file of another encoding."""
_MAX_BAD_CHARS_SHARE = 0.05
_HIGH_BYTES = bytes(range(0x80, 0x100))
_HIGH = re.compile(rb"[\x80-\xff]")
_MAX_HIGH_SHARE = 0.3
_MAX_BAD_SHARE = 0.001

_ENCODING_PROBE_BYTES = 1 << 16
_SEARCHED_BYTES = 1 << 18
_MIN_UTF16_BYTES = 128
_MIN_WESTERN_UTF16_BYTES = 8
_MAX_PLANES = 8
# What the detector names for Cyrillic text in encodings that it does not know as well.
_CYRILLIC = frozenset({"windows-1251", "KOI8-U", "IBM866", "ISO-8859-5", "x-mac-cyrillic"})
_EAST_ASIAN = frozenset({"GBK", "gb18030", "Big5", "EUC-JP", "Shift_JIS", "EUC-KR", "ISO-2022-JP"})
_MIN_HANGUL_SHARE = 0.9
_FEW_CHARS = 2
_LATIN_END = "\u036f"
_MIXED_WORD = re.compile(r"[A-Za-z][^\x00-\x7f]|[^\x00-\x7f][A-Za-z]")


def is_binary(head: bytes) -> bool:
    """Whether the first bytes of a file contain NULs that text would not have."""
    if b"\0" not in head or any(head.startswith(mark) for mark, _, _ in _BYTE_ORDER_MARKS):
        return False
    if _unmarked_utf16(head) or _unmarked_utf32(head):
        return False
    return not _is_text_with_nuls(_without_utf16_pieces(head))


def decode_text(data: bytes) -> str:
    r"""Return the text of a file with ``\n`` line ends and no other carriage returns.

    Tried in order: the encoding of a byte order mark; UTF-16 or UTF-32 without a mark; UTF-8; the
    encoding that the file declares; the encoding that fits a sample best; Windows-1252, if the
    result looks like text. A run of stray NULs becomes one U+FFFD.

    Raises:
        UnreadableError: ``data`` is binary or its encoding cannot be recognised.
    """
    return decode_lines(data).replace("\r", " ")


def decode_lines(data: bytes) -> str:
    r"""Return ``decode_text`` with those carriage returns in it that do not end a line."""
    return _decode_lines(data, declared_encoding(data))


def decode_with_label(data: bytes, label: str | None) -> str:
    r"""Return the text of a file that declares its encoding as ``label``, with ``\n`` line ends.

    Bytes that are valid UTF-8 are UTF-8 whatever the label, unless they are a word or two that
    make sense as what is declared.

    Raises:
        UnreadableError: As ``decode_text``.
    """
    return _decode_lines(data, label).replace("\r", " ")


def _decode_lines(data: bytes, label: str | None) -> str:
    head = data[:PROBE_BYTES]
    if is_binary(head if head.strip(b"\0") else data.lstrip(b"\0")[:PROBE_BYTES]):
        raise UnreadableError("binary")
    text = _decode(data, label)
    if "\0" in text:
        if not _is_text_with_nuls(text.encode("utf-8", "replace")):
            raise UnreadableError("binary")
        text = _NULS.sub("\ufffd", text)
    return unix_line_ends(text)


def _is_text_with_nuls(data: bytes) -> bool:
    """Whether bytes are text but for a few NULs: a log that was truncated while it was written.

    Any number may stand at the beginning and the end.
    """
    text = data.replace(b"\0", b"")
    runs = len(_NUL_BYTES.findall(data.strip(b"\0")))
    if len(text) < _MIN_TEXT_BYTES or runs > max(1, _MAX_NUL_SHARE * len(text)):
        return False
    controls = len(text) - len(text.translate(None, _CONTROL_BYTES))
    return controls <= _MAX_CONTROLS_BESIDE_NULS * len(text)


def _without_utf16_pieces(data: bytes) -> bytes:
    return _UTF16_PIECES.sub(lambda piece: piece[0].replace(b"\0", b""), data)


def _decode(data: bytes, label: str | None) -> str:
    for mark, encoding, name in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            text = data.decode(encoding, "replace")
            if text.count("\ufffd") > _MAX_BAD_CHARS_SHARE * len(text):
                raise UnreadableError(f"has a {name} byte order mark but is not valid {name}")
            return text
    head = data[:PROBE_BYTES]
    unmarked = _unmarked_utf16(head) or _unmarked_utf32(head) if b"\0" in head else None
    if unmarked is not None:
        return data.decode(unmarked, "replace")
    data = _without_utf16_pieces(data) if b"\0" in data else data
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        declared = decode_labelled(data, label) if label and not is_utf8(label) else None
        return _decode_legacy(data) if declared is None else declared
    if text.isascii():
        return _decode_escapes(data, label) or text
    declared = decode_labelled(data, label) if label and _is_short(text) else None
    return declared if declared is not None and _is_foreign(declared) else text


def _is_short(text: str) -> bool:
    return sum(char > "\x7f" for char in text) <= _FEW_CHARS


def _is_foreign(text: str) -> bool:
    """Whether all characters beyond ASCII are letters, none Latin and none beside a Latin one."""
    return all(
        char <= "\x7f" or (char > _LATIN_END and char.isalpha()) for char in text
    ) and not _MIXED_WORD.search(text)


def _decode_escapes(data: bytes, label: str | None) -> str | None:
    """Return text in an encoding of seven bits, which switches alphabets by escape sequences."""
    names = [label] if label and not is_utf8(label) else []
    if b"\x1b$)C" in data[:_SEARCHED_BYTES]:
        names.append("iso-2022-kr")
    elif b"\x1b$" in data[:_SEARCHED_BYTES]:
        names += ["iso-2022-jp", "iso2022_jp_2"]
    for name in names:
        text = decode_labelled(data, name)
        if text is not None and "\x1b" not in text:
            return text
    return None


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


def _unmarked_utf32(head: bytes) -> str | None:
    """Return the byte order of UTF-32 without a mark; None if the bytes are not UTF-32."""
    for encoding, high in (("utf-32-le", head[3::4]), ("utf-32-be", head[::4])):
        if len(head) < _MIN_WESTERN_UTF16_BYTES or len(head) % 4 or any(high):
            continue
        text = head.decode(encoding, "replace")
        if all(char.isprintable() or char in "\t\n\r\f\u3000\ufeff" for char in text):
            return encoding
    return None


def _surrogate_pairs(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2 - len(text)


def _decode_legacy(data: bytes) -> str:
    unknown = UnreadableError("unknown text encoding; convert it to UTF-8")
    damaged = data.decode("utf-8", "replace")
    if len(_CONTROLS.findall(damaged)) > _MAX_CONTROL_SHARE * len(damaged):
        raise unknown
    high = len(data) - len(data.translate(None, _HIGH_BYTES))
    invalid = damaged.count("\ufffd")
    # In mostly valid UTF-8, only the bad bytes are lost.
    valid = sum(char >= "\x80" for char in damaged) - invalid
    if valid > invalid:
        return damaged
    encoding = _detect(_lines_beyond_ascii(data))
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


def _detect(probe: bytes) -> str | None:
    """Return the codec that fits a text beyond ASCII best; None if none fits."""
    from turbohtml.detect import detect

    found = detect(probe)
    if found.codec is None:
        return None
    if found.confidence == 0 or found.encoding in _CYRILLIC:
        cyrillic = cyrillic_encoding(probe, is_cyrillic=found.encoding in _CYRILLIC)
        if cyrillic is not None:
            return cyrillic
    if found.encoding not in _EAST_ASIAN:
        if is_punctuation(probe.decode("cp1252", "replace")):
            return "cp1252"
        page = code_page(probe, probe.decode(found.codec))
        if page is not None:
            return page
    if found.confidence == 0:
        return "johab" if _is_johab(probe) else None
    return found.codec


def _is_johab(probe: bytes) -> bool:
    """Whether this is Korean in the encoding of DOS, in which nothing else is valid."""
    text = probe.decode("johab", "replace")
    beyond = [char for char in text if char > "\x7f"]
    return sum("가" <= char <= "힣" for char in beyond) >= _MIN_HANGUL_SHARE * len(beyond)


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
    return b"".join(lines)[:_ENCODING_PROBE_BYTES].replace(b"\0", b"")
