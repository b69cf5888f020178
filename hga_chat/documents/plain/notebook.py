"""Jupyter notebooks: one section per cell, with outputs cut to a few lines."""

import json
import re
from collections.abc import Iterator
from typing import Any

from hga_chat.documents.plain.decode import decode_text
from hga_chat.documents.plain.sections import sections_of, split_lines
from hga_chat.documents.types import LoadedFile, Section, UnreadableError

MAX_OUTPUT_LINES = 10
MAX_OUTPUT_CHARS = 1_000
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def load_notebook(path: str, data: bytes) -> LoadedFile:
    """Load the cells of a notebook in order, labelled like "cell 7 (code)".

    Each starts with a line that names it. The output of a code cell follows its source: the first
    lines of text, and the type of each image.

    Raises:
        UnreadableError: ``data`` is not a notebook of format 4.
    """
    try:
        notebook = json.loads(decode_text(data))
    except RecursionError:
        raise UnreadableError("damaged notebook: nested too deeply") from None
    except ValueError as error:
        cause = f"invalid JSON on line {getattr(error, 'lineno', 1)}"
        raise UnreadableError(f"damaged notebook: {cause}") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise UnreadableError("a notebook without cells; open and save it in Jupyter first")
    sections: list[Section] = []
    for number, cell in enumerate(notebook["cells"], start=1):
        kind = _field(cell, "cell_type")
        source = _text(_field(cell, "source")).rstrip("\n")
        output = "\n".join(_outputs(_field(cell, "outputs"))) if kind == "code" else ""
        if not (source.strip() or output):
            continue
        named = kind if kind in ("code", "markdown", "raw") else "unknown"
        body = f"[cell {number}, {named}]\n{source}\n"
        if output:
            body += f"[output]\n{output}\n"
        label = f"cell {number} ({named})"
        sections += sections_of(path, split_lines(body + "\n"), label, None)
    return LoadedFile(tuple(sections))


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _text(value: Any) -> str:
    """Return the text of a field: a string or a list of lines."""
    if isinstance(value, list):
        value = "".join(part for part in value if isinstance(part, str))
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else ""


def _outputs(outputs: Any) -> Iterator[str]:
    for output in outputs if isinstance(outputs, list) else ():
        kind = _field(output, "output_type")
        if kind == "stream":
            text = _text(_field(output, "text"))
        elif kind == "error":
            text = f"{_text(_field(output, 'ename'))}: {_text(_field(output, 'evalue'))}"
        else:
            data = _field(output, "data")
            names = data if isinstance(data, dict) else ()
            image = next((name for name in names if name.startswith("image/")), None)
            text = f"[image: {image[6:]}]" if image else _text(_field(data, "text/plain"))
        if text.strip():
            yield _cut(_COLOURS.sub("", text).strip("\n"))


def _cut(text: str) -> str:
    lines = text.split("\n")
    kept = lines[:MAX_OUTPUT_LINES]
    short = "\n".join(kept)
    if len(short) > MAX_OUTPUT_CHARS:
        return short[:MAX_OUTPUT_CHARS] + " …"
    left = len(lines) - len(kept)
    return f"{short}\n… {left} more lines" if left else short
