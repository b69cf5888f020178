"""Comma- and tab-separated values: small files whole, the first rows of others."""

import csv
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import PurePath

from hga_chat.documents.plain.decode import decode_text
from hga_chat.documents.plain.sections import (
    MAX_SECTION_CHARS,
    MAX_SECTION_LINES,
    sections_of,
    split_lines,
)
from hga_chat.documents.types import LoadedFile

MAX_ROWS = 100
_MAX_COLUMNS_CHARS = 200
_MAX_ROW_LINES = 100
_DELIMITERS = ",;\t|"


def load_table(path: str, data: bytes) -> LoadedFile:
    """Load delimited text unchanged, labelled with its columns.

    Of a file that is too long for one section, only the first 100 rows are loaded; a note says
    how many are left out.

    Raises:
        UnreadableError: ``data`` is not text.
    """
    lines = split_lines(decode_text(data))
    delimiter = _delimiter(path, lines[0] if lines else "")
    label = _label(_first_row(lines, delimiter))
    if len(lines) <= MAX_SECTION_LINES and sum(map(len, lines)) <= MAX_SECTION_CHARS:
        return LoadedFile(tuple(sections_of(path, lines, label, range(1, len(lines) + 1))))
    ends = _row_ends(lines, delimiter)
    kept, chars = 1, sum(map(len, lines[: ends[0]]))
    for start, end in islice(pairwise(ends), MAX_ROWS):
        chars += sum(map(len, lines[start:end]))
        if chars > MAX_SECTION_CHARS:
            break
        kept += 1
    last = ends[kept - 1]
    note = f"{len(ends) - kept:,} of {len(ends) - 1:,} rows left out"
    head = [*lines[:last], f"[{note}]\n"]
    sections = sections_of(path, head, label, [*range(1, last + 1), last])
    return LoadedFile(tuple(sections), (note,))


def _delimiter(path: str, first: str) -> str:
    if PurePath(path).suffix.lower() == ".tsv":
        return "\t"
    return max(_DELIMITERS, key=first.count)


def _first_row(lines: Sequence[str], delimiter: str) -> list[str]:
    try:
        return next(csv.reader(lines[:_MAX_ROW_LINES], delimiter=delimiter), [])
    except csv.Error:
        return []


def _row_ends(lines: Sequence[str], delimiter: str) -> list[int]:
    """Return the number of lines up to the end of each row, including the header row."""
    reader = csv.reader(lines, delimiter=delimiter)
    ends = [0]
    try:
        for _ in reader:
            ends.append(reader.line_num)
            if ends[-1] - ends[-2] > _MAX_ROW_LINES:
                break
        else:
            return ends[1:]
    except csv.Error:
        pass
    # With a quote that is never closed, every line is a row.
    return list(range(1, len(lines) + 1))


def _label(columns: Sequence[str]) -> str:
    named = ", ".join(" ".join(name.split()) or "unnamed" for name in columns)
    if len(named) > _MAX_COLUMNS_CHARS:
        named = named[:_MAX_COLUMNS_CHARS].rstrip(", ") + " …"
    return f"columns {named}" if named else "table"
