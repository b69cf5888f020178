"""Output to a terminal that may be gone before the process is."""

from contextlib import suppress
from typing import Any, TextIO

LEAVE, ERASE = "\x1b[?1049l", "\x1b[2J"
"""Back to the terminal's usual screen; empties the one that is shown."""


class LastingOutput:
    """A text file whose writes get lost, instead of failing, once its terminal is closed.

    Textual writes on a thread that ends with the first failure; the screen would then wait for it
    for ever, and the session stay locked.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write, if there still is somewhere to write to."""
        with suppress(OSError):
            # tmux shows what is left on this screen on the usual one, if the terminal has grown.
            self._file.write(text.replace(LEAVE, ERASE + LEAVE))
        return len(text)

    def flush(self) -> None:
        """Send what was written, if there still is somewhere to send it to."""
        with suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
