"""Text for a terminal: without control characters, and times by the clock of this machine."""

import re
from datetime import datetime

# Control characters except newline and tab, bidirectional controls, other line separators, and
# surrogates, which no encoding accepts.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's control pictures
    if code == 0x7F:
        return "\u2421"
    return f"<U+{code:04X}>"


def displayable(text: str) -> str:
    """Return ``text`` with every character that could control a terminal made visible.

    The rest of an escape sequence stays as plain text; newline and tab stay as they are.
    """
    return _UNSAFE.sub(_visible, text)


def local_time(utc: str | None) -> str:
    """Return a saved time, as in ``2026-11-24T21:42:07Z``, by the clock of this machine."""
    return datetime.fromisoformat(utc).astimezone().strftime("%Y-%m-%d %H:%M") if utc else "-"
