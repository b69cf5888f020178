"""Extracts the text of a PDF, page by page; run as a program under limits.

Reads the file from standard input and writes one JSON object: ``{"pages": [{"label", "text",
"problem"}]}`` or ``{"error": reason}``. Imports nothing of this project.
"""

import io
import json
import logging
import re
import sys
from typing import Any

from pypdf import PdfReader
from pypdf.errors import DependencyError, EmptyFileError, PyPdfError

MAX_PAGES = 2_000
MAX_TEXT_CHARS = 5_000_000
MAX_MEMORY_BYTES = 2 << 30

_LIGATURES = str.maketrans(
    {
        "\ufb00": "ff",
        "\ufb01": "fi",
        "\ufb02": "fl",
        "\ufb03": "ffi",
        "\ufb04": "ffl",
        "\ufb05": "st",
        "\ufb06": "st",
        "\u00ad": None,  # soft hyphen
        "\u00a0": " ",
    }
)
_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    except (ImportError, ValueError, OSError):
        return  # not on this system; the limits on streams and time remain


def _tidy(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_LIGATURES)
    lines = (line.rstrip() for line in _NOT_TEXT.sub("", text).split("\n"))
    return "\n".join(lines).strip("\n")


def _labels(reader: PdfReader, count: int) -> list[str]:
    try:
        labels = [label.strip() for label in reader.page_labels]
    except Exception:  # noqa: BLE001 - a damaged label tree raises anything
        labels = []
    labels = [_NOT_TEXT.sub("", label) for label in labels[:count]]
    labels += [""] * (count - len(labels))
    return [label or str(number) for number, label in enumerate(labels, start=1)]


def extract(data: bytes) -> dict[str, Any]:
    """Return the pages of a PDF, or the reason why there are none."""
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            return {"error": "encrypted PDF; save a copy without the password first"}
        count = len(reader.pages)
    except EmptyFileError:
        return {"error": "empty"}
    except DependencyError as error:
        return {"error": f"encrypted PDF: {error}"}
    except PyPdfError as error:
        return {"error": f"damaged PDF: {_tidy(str(error))[:200]}"}
    if count == 0:
        return {"error": "a PDF without pages"}
    if count > MAX_PAGES:
        return {"error": f"{count:,} pages; the limit is {MAX_PAGES:,}"}
    pages: list[dict[str, str | None]] = []
    chars = 0
    for index, label in enumerate(_labels(reader, count)):
        text, problem = "", None
        try:
            text = _tidy(reader.pages[index].extract_text())
        except Exception as error:  # noqa: BLE001 - a damaged page raises anything
            problem = f"{type(error).__name__}: {_tidy(str(error))[:200]}"
        chars += len(text)
        if chars > MAX_TEXT_CHARS:
            return {"error": f"more than {MAX_TEXT_CHARS:,} characters of text"}
        pages.append({"label": label, "text": text if text.strip() else "", "problem": problem})
    return {"pages": pages}


def main() -> None:
    """Read a PDF from standard input, write JSON to standard output."""
    logging.disable()
    _limit_memory()
    json.dump(extract(sys.stdin.buffer.read()), sys.stdout)


if __name__ == "__main__":
    main()
