"""Making text safe to show in a terminal."""

import re

# Controls but newline and tab, bidirectional controls, line separators that are not "\n", and
# surrogates that no encoding takes.
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
    """Return ``text`` with everything that could steer a terminal replaced by visible signs.

    Escape sequences lose their escape character and stay as plain text; newline and tab stay.
    """
    return _UNSAFE.sub(_visible, text)
