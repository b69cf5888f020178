"""Writes results to standard output and everything else to standard error."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

_SIZES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def human_bytes(count: int) -> str:
    """Return ``count`` bytes as text: ``93.8 MiB``."""
    size, unit = _unit(count)
    return f"{count / size:.1f} {unit}" if size > 1 else f"{count} B"


def human_share(count: int, of: int) -> str:
    """Return bytes of a total in the same unit: ``0.09 / 7.45 GiB``."""
    size, unit = _unit(of)
    digits = 2 if unit == "GiB" else 1
    return f"{count / size:.{digits}f} / {of / size:.{digits}f} {unit}"


def _unit(count: int) -> tuple[int, str]:
    """Return size and name of the largest unit that is at most ``count`` bytes."""
    return next((pair for pair in _SIZES if count >= pair[0]), (1, "B"))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as aligned columns, numbers to the right, without a final newline."""
    columns = range(len(header))
    cells = [[*header], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in columns]
    numeric = [
        bool(rows) and all(isinstance(row[column], int | float) for row in rows)
        for column in columns
    ]
    lines = []
    for row in cells:
        parts = [
            row[column].rjust(widths[column])
            if numeric[column]
            else row[column].ljust(widths[column])
            for column in columns
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


class Output:
    """Writes to standard output and standard error; terminals get no control characters.

    Progress is one line that is overwritten; it appears on terminals only.
    """

    def __init__(
        self, *, quiet: bool = False, stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._quiet = quiet
        self._shows_progress = (
            not quiet and self._stderr.isatty() and os.environ.get("TERM", "") != "dumb"
        )
        self._progress_width = 0

    def note(self, text: str) -> None:
        """Write a line to standard error, unless quiet."""
        if not self._quiet:
            self.error(text)

    def error(self, text: str) -> None:
        """Write a line to standard error, even if quiet."""
        from hga_chat.display import displayable

        self.clear_progress()
        self._stderr.write(f"{displayable(text)}\n")
        self._stderr.flush()

    @property
    def is_quiet(self) -> bool:
        """Whether only results and errors are written."""
        return self._quiet

    @property
    def can_ask(self) -> bool:
        """Whether a person is there to answer."""
        return all(stream is not None and stream.isatty() for stream in (sys.stdin, self._stderr))

    def ask(self, question: str, *, default: bool = True) -> bool:
        """Ask on standard error and read yes or no from standard input; Enter is the default."""
        self.clear_progress()
        self._stderr.write(f"{question} [{'Y/n' if default else 'y/N'}] ")
        self._stderr.flush()
        answer = sys.stdin.readline()
        if not answer:  # the end of the input is no answer
            self._stderr.write("\n")
        if not answer.strip():
            return bool(answer) and default
        return answer.strip().lower() in ("y", "yes")

    def progress(self, label: str, fraction: float) -> None:
        """Replace the progress line; ``fraction`` is from 0 to 1."""
        if not self._shows_progress:
            return
        columns = shutil.get_terminal_size().columns
        line = f"{label} {fraction:4.0%}"[: columns - 1]
        self._draw("\r" + line.ljust(self._progress_width))
        self._progress_width = len(line)

    def clear_progress(self) -> None:
        """Erase the progress line."""
        if self._progress_width:
            self._draw("\r" + " " * self._progress_width + "\r")
            self._progress_width = 0

    def _draw(self, line: str) -> None:
        """Write a progress line; a terminal that is gone must not end what it reports."""
        with suppress(OSError):
            self._stderr.write(line)
            self._stderr.flush()

    def write(self, text: str) -> None:
        """Write a part of the result and flush."""
        self.clear_progress()
        if self._stdout.isatty():
            from hga_chat.display import displayable

            text = displayable(text)
        self._stdout.write(text)
        self._stdout.flush()

    def json(self, value: object) -> None:
        """Write the result as JSON."""
        self.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
