"""Output to a terminal that may close before the process ends."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

LEAVE, ERASE = "\x1b[?1049l", "\x1b[2J"
"""Sequences that leave the alternate screen and that erase the screen."""


def passed_on(sequence: str, environment: Mapping[str, str]) -> str:
    """Return a sequence wrapped so that tmux or screen passes it on to its own terminal."""
    if environment.get("TMUX"):
        escaped = sequence.replace("\x1b", "\x1b\x1b")
        return f"\x1bPtmux;{escaped}\x1b\\"
    if environment.get("STY"):
        return f"\x1bP{sequence}\x1b\\"
    return sequence


class LastingOutput:
    """A text file that drops writes, instead of failing, once its terminal is closed.

    Textual writes on a thread that ends at the first failure. The screen would then wait for it
    forever and keep the session locked.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write, if the terminal is still there."""
        with suppress(OSError):
            # If the terminal has grown, tmux would copy the rest of this screen to the usual one.
            self._file.write(text.replace(LEAVE, ERASE + LEAVE))
        return len(text)

    def flush(self) -> None:
        """Flush, if the terminal is still there."""
        with suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
