"""The outputs of a code cell as text: what Jupyter shows of them, cut to a few lines."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hga_chat.documents.plain.line_ends import unix_line_ends
from hga_chat.documents.plain.terminal import as_shown
from hga_chat.documents.plain.valid_text import valid_text

MAX_STREAM_LINES = 20
MAX_RESULT_LINES = 64
MAX_LINE_CHARS = 1_000
_MAX_CHARS_A_LINE = 150
"""On average, of the lines of an output."""
# What Python prints of an object that has a richer form: <IPython.core.display.HTML object>.
_PLACEHOLDER = re.compile(r"\s*<[^\n]*>\s*")
_TABLE = re.compile(r"<table\b", re.IGNORECASE)
_JSON = ("application/json", "application/geo+json")
_HTML, _PLAIN = "text/html", "text/plain"
# Names of what format 3 keeps beside each other in an output.
_OLD_NAMES = {
    "text": _PLAIN,
    "html": _HTML,
    "latex": "text/latex",
    "json": "application/json",
    "javascript": "application/javascript",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpeg": "image/jpeg",
    "pdf": "application/pdf",
}


def field(value: Any, name: str) -> Any:
    """Return a field of an object; None for any other value."""
    return value.get(name) if isinstance(value, dict) else None


def text_of(value: Any) -> str:
    """Return the text of a field: a string or a list of lines."""
    return _joined(value).replace("\r", " ")


def _joined(value: Any) -> str:
    if isinstance(value, list):
        value = "".join(part for part in value if isinstance(part, str))
    return valid_text(unix_line_ends(value)) if isinstance(value, str) else ""


def html_of(outputs: Any) -> Iterator[str]:
    """Yield the HTML in the outputs of a cell."""
    for output in outputs if isinstance(outputs, list) else ():
        text = text_of(field(_data(output), _HTML))
        if text:
            yield text


def texts_of(outputs: Any, rendered: Mapping[str, str], left_out: Counter[str]) -> Iterator[str]:
    """Yield the text of each output of a cell, without those that have none.

    Args:
        outputs: The cell's outputs.
        rendered: The text of their HTML.
        left_out: Counts what is left out.
    """
    for output in _merged(outputs if isinstance(outputs, list) else ()):
        kind = field(output, "output_type")
        lines = MAX_STREAM_LINES
        if kind == "stream":
            text = _shown(field(output, "text"))
        elif kind in ("error", "pyerr"):
            text = _error(output)
        else:
            text = _richest(_data(output), rendered, left_out)
            lines = MAX_RESULT_LINES
        if text.strip():
            yield _cut(text.strip("\n"), lines, left_out)


def _merged(outputs: Iterable[Any]) -> Iterator[Any]:
    """Yield outputs; what a program wrote to one stream in pieces is one of them."""
    before: dict[str, Any] | None = None
    for output in outputs:
        if field(output, "output_type") != "stream":
            if before is not None:
                yield before
            before = None
            yield output
            continue
        name = str(output.get("name") or output.get("stream"))
        parts = output.get("text")
        parts = parts if isinstance(parts, list) else [parts]
        if before is not None and before["name"] == name:
            before["text"] += parts
            continue
        if before is not None:
            yield before
        before = {"output_type": "stream", "name": name, "text": list(parts)}
    if before is not None:
        yield before


def _data(output: Any) -> dict[str, Any]:
    """Return what an output shows, by media type."""
    data = field(output, "data")
    if isinstance(data, dict):
        return data
    if field(output, "output_type") not in ("display_data", "pyout"):
        return {}
    return {kind: output[name] for name, kind in _OLD_NAMES.items() if name in output}


def _shown(value: Any) -> str:
    """Return the text of a field as a terminal shows it."""
    return as_shown(_joined(value))[0]


def _error(output: Any) -> str:
    """Return the traceback and the error."""
    cause = f"{text_of(field(output, 'ename'))}: {text_of(field(output, 'evalue'))}"
    traceback = field(output, "traceback")
    parts = traceback if isinstance(traceback, list) else [traceback]
    lines = [_shown(part).strip("\n") for part in parts]
    text = "\n".join(line for line in lines if line.strip())
    if cause == ": " or cause.strip() in text:
        return text
    return f"{text}\n{cause}".lstrip("\n")


def _richest(data: dict[str, Any], rendered: Mapping[str, str], left_out: Counter[str]) -> str:
    """Return the form of a result that says most as text."""
    plain = _shown(data.get(_PLAIN))
    says_nothing = not plain.strip() or _PLACEHOLDER.fullmatch(plain)
    markup = text_of(data.get(_HTML))
    html = rendered.get(markup, "")
    image = next((kind for kind in data if kind.startswith("image/")), None)
    written = next((kind for kind in _JSON if kind in data), None)
    if text := text_of(data.get("text/markdown")):
        return text
    if html.strip() and (says_nothing or _TABLE.search(markup)):
        return html
    if text := text_of(data.get("text/latex")):
        return text
    if image is not None:
        left_out["images"] += 1
        name = f"[image: {image.removeprefix('image/')}]"
        return name if says_nothing else f"{name}\n{plain}"
    if not says_nothing:
        return plain
    if written is not None:
        return valid_text(json.dumps(data[written], ensure_ascii=False, indent=1))
    other = next((kind for kind in data if kind != _PLAIN), None)
    if other is None:
        return plain
    left_out["outputs without text"] += 1
    return f"[left out: {valid_text(other)}]" + f"\n{plain}" * bool(plain.strip())


def _cut(text: str, most: int, left_out: Counter[str]) -> str:
    """Return the first and the last lines of a text that is too long."""
    lines = [
        line if len(line) <= MAX_LINE_CHARS else line[:MAX_LINE_CHARS] + " …"
        for line in text.split("\n")
    ]
    chars = most * _MAX_CHARS_A_LINE
    if len(lines) <= most and sum(map(len, lines)) <= chars:
        return "\n".join(lines)
    head = _fitting(lines, most // 2, chars // 2)
    tail = _fitting(lines[: len(head) - 1 : -1], most // 2, chars // 2)[::-1]
    count = len(lines) - len(head) - len(tail)
    if not count:
        return "\n".join(lines)
    left_out["lines of output"] += count
    return "\n".join([*head, f"… {count:,} more lines", *tail])


def _fitting(lines: list[str], most: int, chars: int) -> list[str]:
    """Return the first lines, at least one, that are not too many."""
    kept: list[str] = []
    for line in lines[:most]:
        chars -= len(line)
        if kept and chars < 0:
            break
        kept.append(line)
    return kept
