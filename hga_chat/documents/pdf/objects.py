"""Values of PDF objects as what they should be, whatever a damaged file has in their place."""

import math
from typing import Any

from pypdf._codecs import charset_encoding
from pypdf.generic import ArrayObject, BooleanObject, DictionaryObject

_DOC_ENCODING = charset_encoding["/PDFDocEncoding"]


def resolved(value: Any) -> Any:
    """Return the object behind a reference; None if it is missing or damaged."""
    try:
        return value.get_object() if hasattr(value, "get_object") else value
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 - a damaged reference raises anything
        return None


def dictionary(value: Any) -> DictionaryObject:
    """Return a dictionary or a stream's dictionary; an empty one for anything else."""
    value = resolved(value)
    return value if isinstance(value, DictionaryObject) else DictionaryObject()


def items(value: Any) -> list[Any]:
    """Return the elements of an array; none for anything else."""
    value = resolved(value)
    return list(value) if isinstance(value, ArrayObject) else []


def is_true(value: Any) -> bool:
    """Whether a value is the Boolean ``true``."""
    value = resolved(value)
    return isinstance(value, BooleanObject) and bool(value.value)


def number(value: Any, default: float = 0.0) -> float:
    """Return a finite number; ``default`` for anything else."""
    if type(value) is float and -1e30 < value < 1e30:
        return value
    value = resolved(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e30 else default
        return value if math.isfinite(value) else default
    return default


def numbers(value: Any, count: int) -> list[float] | None:
    """Return an array of ``count`` numbers; None for anything else."""
    found = items(value)
    return [number(entry) for entry in found] if len(found) == count else None


def text_of(value: Any) -> str:
    """Return a text string; empty for anything else."""
    value = resolved(value)
    if isinstance(value, bytes):
        if value.startswith((b"\xfe\xff", b"\xff\xfe")):
            return value.decode("utf-16", "replace")
        if value.startswith(b"\xef\xbb\xbf"):
            return value[3:].decode("utf-8", "replace")
        return "".join(_DOC_ENCODING[byte] for byte in value)
    return str(value) if isinstance(value, str) else ""
