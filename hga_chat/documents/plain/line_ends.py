r"""Line ends as editors and ``grep -n`` count them, and what carriage returns inside a line show.

A line ends with ``\n``, before which any number of carriage returns stand. In the files of old
Macs it ends with ``\r``. Any other ``\r`` moves the cursor to the beginning of the line: a progress
bar is drawn again.
"""

import re
from itertools import pairwise

_SEARCHED_LINES = 2_000
_BEFORE_NEWLINE = re.compile("\r+\n")
_NOT_LETTERS = re.compile(r"[\W\d_]+")
# A percentage, so many of so many, a time, a size, a bar, dots, or a sign that turns.
_PROGRESS = re.compile(
    r"\d\s*%|\d\s*(?:/|of)\s*\d|[-\d]:[-\d]|\d\s*[kmg]i?b\b|[=#>\-.\u2500-\u25ff\u2800-\u28ff]{3}"
    r"|…|^\W{1,3}$",
    re.IGNORECASE,
)


def unix_line_ends(text: str) -> str:
    r"""Return ``text`` with ``\n`` at the end of each line; a ``\r`` that is left is inside one."""
    if "\r" not in text:
        return text
    text = _BEFORE_NEWLINE.sub("\n", text)
    returns = text.count("\r")
    if returns > text.count("\n") and not _is_redrawn(text):
        return text.replace("\r", "\n")
    return text


def is_redrawn(before: str, after: str) -> bool:
    """Whether ``after`` is drawn over ``before`` as the next step of the same progress."""
    before, after = before.strip(), after.rstrip()
    if not before or not after.strip() or after.strip().startswith(before):
        return True
    one, other = _NOT_LETTERS.sub("", before), _NOT_LETTERS.sub("", after)
    if one and one == other:
        return True
    shared = next(
        (n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )
    is_alike = not one or not other or 2 * shared >= max(len(one), len(other))
    return is_alike and _PROGRESS.search(before) is not None


def _is_redrawn(text: str) -> bool:
    """Whether most carriage returns of a text draw something again."""
    steps = [line.split("\r") for line in text.split("\n") if "\r" in line][:_SEARCHED_LINES]
    pairs = [pair for line in steps for pair in pairwise(line)]
    pairs = [pair for pair in pairs[:_SEARCHED_LINES] if pair[0].strip() and pair[1].strip()]
    return 2 * sum(is_redrawn(*pair) for pair in pairs) >= len(pairs) > 0
