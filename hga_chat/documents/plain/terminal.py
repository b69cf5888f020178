"""Turns what programs send to a terminal into the text that it shows: colours, cursor, progress.

Sequences are those of ECMA-48. Each line is drawn by itself: what moves the cursor to another line
is left out.
"""

import re
from collections import Counter

from hga_chat.documents.plain.line_ends import is_redrawn

STEPS, CODES = "progress steps", "terminal codes"
_MARKS = re.compile("[\b\r\x1b]")
_SEQUENCE = re.compile(
    r"\x1b\[(?P<numbers>[0-?]*)[ -/]*(?P<final>[@-~])"
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)"
    r"|\x1b[ -/]+[0-~]"
    r"|\x1b[0-OQ-WYZ\\`-~]"
)
_UNDERLINED = re.compile("([^\b\n])\b_")
_ERASING = re.compile(r"(?:\x1b\[[0-9;?]*[a-zA-HL-Z])*\x1b\[[02]?K")
_MAX_MOVE = 1_000
_MAX_WIDTH = 2_000
"""Most characters of a line on which the cursor is moved."""


def as_shown(text: str) -> tuple[str, dict[str, int]]:
    r"""Return ``text``, lines of which end with ``\n``, as a terminal shows it.

    What is drawn over something else is kept beside it, after a blank.

    Returns:
        The text, and how many progress steps and terminal codes it is without.
    """
    if not _MARKS.search(text):
        return text, {}
    left_out: Counter[str] = Counter({STEPS: 0, CODES: 0})
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if _MARKS.search(line):
            lines[number] = _shown(line, left_out)
    return "\n".join(lines), dict(left_out)


def _shown(line: str, left_out: Counter[str]) -> str:
    kept = []
    shown = ""
    for step in line.split("\r"):
        if not step.strip(" ") and len(step) < len(shown.rstrip()):
            continue  # clears nothing
        alone, codes = _drawn("", step)
        left_out[CODES] += codes
        is_wide = len(shown) > _MAX_WIDTH or len(alone) > _MAX_WIDTH
        if not shown or (not is_wide and (_ERASING.match(step) or is_redrawn(shown, alone))):
            left_out[STEPS] += bool(shown.strip()) and bool(step)
            shown, _ = _drawn(shown, step)
        else:
            kept.append(shown.strip(" "))
            shown = alone
    return " ".join([*kept, shown])


def _drawn(before: str, step: str) -> tuple[str, int]:
    """Draw a step over what is on the line; return what it shows, and how many codes it had."""
    if not _MARKS.search(step):
        return step + before[len(step) :], 0
    line = _Line(before)
    codes = line.draw(step)
    return line.text(), codes


class _Line:
    """A line of a terminal; ``column`` is where the next character goes."""

    def __init__(self, text: str) -> None:
        self._cells = list(text)
        self._column = 0

    def text(self) -> str:
        return "".join(self._cells)

    def draw(self, step: str) -> int:
        """Draw text from the beginning of the line; return how many sequences were in it."""
        step = _UNDERLINED.sub(r"\1", step)
        at = sequences = 0
        for mark in _MARKS.finditer(step):
            if mark.start() < at:
                continue
            self._put(step[at : mark.start()])
            at = mark.end()
            if mark[0] == "\b":
                self._column = max(self._column - 1, 0)
            elif found := _SEQUENCE.match(step, mark.start()):
                at = found.end()
                sequences += 1
                if found["final"] and len(self._cells) <= _MAX_WIDTH:
                    self._control(found["final"], found["numbers"])
            else:
                self._put(mark[0])
        self._put(step[at:])
        return sequences

    def _put(self, text: str) -> None:
        self._cells += " " * (self._column - len(self._cells))
        self._cells[self._column : self._column + len(text)] = text
        self._column += len(text)

    def _control(self, final: str, numbers: str) -> None:
        first = numbers.partition(";")[0]
        number = min(int(first), _MAX_MOVE) if first.isascii() and first.isdigit() else None
        if final == "K":
            self._erase(number or 0)
        elif final == "C":
            self._column = min(self._column + (number or 1), len(self._cells) + _MAX_MOVE)
        elif final == "D":
            self._column = max(self._column - (number or 1), 0)
        elif final in "G`":
            self._column = (number or 1) - 1

    def _erase(self, which: int) -> None:
        """Erase to the end of the line (0), from its beginning (1), or all of it (2)."""
        end = len(self._cells) if which == 2 else min(self._column, len(self._cells))
        if which in (1, 2):
            self._cells[:end] = " " * end
        else:
            del self._cells[self._column :]
