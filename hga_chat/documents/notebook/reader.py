"""Loads Jupyter notebooks of formats 2 to 4: one section per cell."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from hga_chat.documents.notebook.outputs import field, html_of, text_of, texts_of
from hga_chat.documents.plain.decode import decode_text
from hga_chat.documents.plain.sections import sections_of, split_lines
from hga_chat.documents.sandbox.limits import Limits
from hga_chat.documents.sandbox.processes import extract
from hga_chat.documents.types import LoadedFile, Section, UnreadableError

LIMITS = Limits(seconds=30)
_HTML_WORKER = Path(__file__).with_name("html_worker.py")
_MAX_HTML_CHARS = 1_000_000
_MAX_ALL_HTML_CHARS = 20_000_000
# An image inside Markdown, as it is pasted into a cell.
_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,[A-Za-z0-9+/=\s]{100,}")
_NAMED = ("code", "markdown", "raw")
_MAX_HEADING = 6
_WITH_LINE_ENDS = 3
"""The first format in which the lines of a text have line ends."""


def load_notebook(path: str, data: bytes) -> LoadedFile:
    """Load the cells of a notebook in order, labelled like "cell 7 (code)".

    Each starts with a line that names it. The output of a code cell follows its source: the
    richest form that is text, cut to its first and last lines, and the type of each image.

    Raises:
        UnreadableError: ``data`` is not a notebook.
    """
    try:
        notebook = json.loads(decode_text(data))
    except RecursionError:
        raise UnreadableError("damaged notebook: nested too deeply") from None
    except ValueError as error:
        cause = f"invalid JSON on line {getattr(error, 'lineno', 1)}"
        raise UnreadableError(f"damaged notebook: {cause}") from None
    cells = _cells(notebook)
    rendered = _rendered([html for cell in cells for html in html_of(field(cell, "outputs"))])
    left_out: Counter[str] = Counter()
    sections: list[Section] = []
    for number, cell in enumerate(cells, start=1):
        kind = field(cell, "cell_type")
        source = _source(cell, left_out)
        outputs = field(cell, "outputs") if kind == "code" else None
        output = "\n".join(texts_of(outputs, rendered, left_out))
        if not (source.strip() or output):
            continue
        named = "markdown" if kind == "heading" else kind if kind in _NAMED else "unknown"
        body = f"[cell {number}, {named}]\n{source}\n"
        if output:
            body += f"[output]\n{output}\n"
        label = f"cell {number} ({named})"
        sections += sections_of(path, split_lines(body + "\n"), label, None)
    notes = (f"{what} ({count:,})" for what, count in left_out.items() if count)
    return LoadedFile(tuple(sections), left_out=tuple(notes))


def _cells(notebook: Any) -> list[Any]:
    """Return the cells: a list of format 4, or those of the worksheets of earlier ones."""
    cells = field(notebook, "cells")
    if not isinstance(cells, list):
        sheets = field(notebook, "worksheets")
        found = [field(sheet, "cells") for sheet in sheets] if isinstance(sheets, list) else []
        cells = [cell for sheet in found if isinstance(sheet, list) for cell in sheet]
        if not cells:
            raise UnreadableError("a notebook without cells")
    version = field(notebook, "nbformat")
    if isinstance(version, int) and version < _WITH_LINE_ENDS:
        cells = [_with_line_ends(cell) for cell in cells]
    return cells


def _with_line_ends(value: Any) -> Any:
    """Return a value in which lists of lines without line ends are strings."""
    if isinstance(value, dict):
        return {name: _with_line_ends(inner) for name, inner in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(line, str) for line in value):
            return "\n".join(value)
        return [_with_line_ends(inner) for inner in value]
    return value


def _source(cell: Any, left_out: Counter[str]) -> str:
    """Return the source of a cell, without the images that are pasted into it."""
    source = text_of(field(cell, "source")) or text_of(field(cell, "input"))
    if field(cell, "cell_type") == "heading":
        level = field(cell, "level")
        level = level if isinstance(level, int) and 1 <= level <= _MAX_HEADING else 1
        source = f"{'#' * level} {source}"
    attachments = field(cell, "attachments")
    left_out["attached images"] += len(attachments) if isinstance(attachments, dict) else 0
    source, pasted = _DATA_URL.subn("image left out", source)
    left_out["images"] += pasted
    return source.rstrip("\n")


def _rendered(fragments: list[str]) -> dict[str, str]:
    """Return the text of pieces of HTML; of none if they cannot be parsed within the limits."""
    wanted = [html for html in dict.fromkeys(fragments) if len(html) <= _MAX_HTML_CHARS]
    if not wanted or sum(map(len, wanted)) > _MAX_ALL_HTML_CHARS:
        return {}
    try:
        answer = extract(_HTML_WORKER, json.dumps(wanted).encode(), "HTML", LIMITS)
    except UnreadableError:
        return {}
    return dict(zip(wanted, answer["texts"], strict=True))
