"""Parses content streams to operations (ISO 32000-2, 7.8.2).

pypdf's own parser makes an object of every number, which takes most of the time on a page full of
drawings. This one makes plain values and skips what it cannot parse.
"""

import io
import re
from collections.abc import Iterator
from typing import Any

from pypdf.generic import DictionaryObject, read_object

_TOKEN = re.compile(
    rb"""[\0\t\n\f\r ]*(?: %[^\r\n]*
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+))(?=[\0\t\n\f\r ()<>\[\]{}/%]|$)
    | (?P<operator>[A-Za-z'"][A-Za-z0-9*'"]*)
    | (?P<string>\((?P<plain>[^()\\\r]*)\)|\()
    | (?P<hex><[0-9A-Fa-f\0\t\n\f\r ]*>)
    | (?P<name>/[^\0\t\n\f\r ()<>\[\]{}/%]*)
    | (?P<open>\[) | (?P<close>\]) | (?P<dictionary><<)
    | (?P<other>[^\0\t\n\f\r ()<>\[\]{}/%]+|.) | $)""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(rb"[+-]*\d*\.?\d*")
_STRING_PART = re.compile(rb"[()]|\\(?:[0-7]{1,3}|\r\n|.)", re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|(\r\n|.))|\r\n?", re.DOTALL)
_ESCAPED = {
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"b": b"\b",
    b"f": b"\f",
    b"\n": b"",
    b"\r": b"",
    b"\r\n": b"",
}
_DICTIONARY_PART = re.compile(rb"<<|>>|\(|<[0-9A-Fa-f\0\t\n\f\r ]*>")
_NAME_ESCAPE = re.compile(rb"#([0-9A-Fa-f]{2})")
_IMAGE_END = re.compile(rb"[\0\t\n\f\r ]EI(?=[\0\t\n\f\r ]|$)")
_BINARY = re.compile(rb"[^\t\n\f\r -~]")
_BYTES_AFTER_IMAGE = 16
_MAX_OPERANDS = 64
_LITERALS = {b"true": True, b"false": False, b"null": None}

Operation = tuple[list[Any], bytes]


def operations(data: bytes) -> Iterator[Operation]:
    """Yield the operands and operator of each operation.

    Numbers are floats, names strings with their slash, strings bytes, arrays lists. Of
    dictionaries only those with replacement text have entries. An image within the stream is
    ``BI`` without operands.
    """
    operands: list[Any] = []
    array: list[Any] | None = None
    at, end = 0, len(data)
    match_at = _TOKEN.match
    while at < end:
        match = match_at(data, at)
        assert match is not None  # one of the last alternatives takes any byte or the end
        kind = match.lastgroup
        at = match.end()
        value: Any
        if kind is None:
            continue
        if kind == "number":
            value = float(match["number"])
        elif kind == "operator":
            operator = match["operator"]
            if operator in _LITERALS:
                value = _LITERALS[operator]
            elif array is not None:
                continue
            else:
                if operator == b"BI":
                    at = _image_end(data, at)
                    operands = []
                yield operands, operator
                operands = []
                continue
        elif kind == "string":
            value = match["plain"]
            if value is None:
                value, at = _string(data, at)
        elif kind == "hex":
            digits = re.sub(rb"[<>\s\0]", b"", match["hex"])
            value = bytes.fromhex((digits + b"0" * (len(digits) % 2)).decode())
        elif kind == "name":
            value = _name(match["name"])
        elif kind == "open":
            array = []
            continue
        elif kind == "close":
            if array is None:
                continue
            value, array = array, None
        elif kind == "dictionary":
            value, at = _dictionary(data, match.start("dictionary"))
        else:
            value = _damaged_number(match["other"])
            if value is None:
                continue
        if array is not None:
            array.append(value)
        elif len(operands) < _MAX_OPERANDS:
            operands.append(value)


def _name(token: bytes) -> str:
    if b"#" in token:
        token = _NAME_ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), token)
    try:
        return token.decode()
    except UnicodeDecodeError:
        return token.decode("latin-1")


def _damaged_number(token: bytes) -> float | None:
    """Return a number with a sign too many or signs within, as readers take it."""
    found = _NUMBER.match(token)
    digits = found[0].lstrip(b"+-") if found else b""
    if not digits.strip(b"."):
        return None
    return float(digits) * (-1 if token.startswith(b"-") else 1)


def _string(data: bytes, start: int) -> tuple[bytes, int]:
    """Return the string whose text begins at ``start``, and where it ends."""
    depth = 1
    for part in _STRING_PART.finditer(data, start):
        if part[0] == b"(":
            depth += 1
        elif part[0] == b")":
            depth -= 1
            if not depth:
                return _ESCAPE.sub(_unescaped, data[start : part.start()]), part.end()
    return _ESCAPE.sub(_unescaped, data[start:]), len(data)


def _unescaped(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return bytes((int(match[1], 8) & 255,))
    if match[2] is not None:
        return _ESCAPED.get(match[2], match[2])
    return b"\n"


def _dictionary(data: bytes, start: int) -> tuple[DictionaryObject, int]:
    """Return the dictionary at ``start`` and where it ends; only replacement text is parsed."""
    depth, at = 0, start
    while part := _DICTIONARY_PART.search(data, at):
        at = part.end()
        if part[0] == b"(":
            _, at = _string(data, at)
        elif part[0] in (b"<<", b">>"):
            depth += 1 if part[0] == b"<<" else -1
            if not depth:
                break
    else:
        return DictionaryObject(), len(data)
    if b"Text" in data[start:at]:
        try:
            found = read_object(io.BytesIO(data[start:at]), None)
        except (MemoryError, RecursionError):
            raise
        except Exception:  # noqa: BLE001 - a damaged dictionary raises anything
            found = None
        if isinstance(found, DictionaryObject):
            return found, at
    return DictionaryObject(), at


def _image_end(data: bytes, start: int) -> int:
    """Return where an image ends: at an ``EI`` that text follows."""
    for match in _IMAGE_END.finditer(data, start):
        if not _BINARY.search(data, match.end(), match.end() + _BYTES_AFTER_IMAGE):
            return match.end()
    return len(data)
