"""Makes text safe to show in a terminal."""

import re

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
