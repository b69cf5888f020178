"""Record a real session in a terminal: documents, a question, its source, and what it depends on.

Writes an asciicast (version 2), which `asciinema play` shows. Long waits are shortened.

    python -m tools.assets.recording assets/screens/session.cast
"""

import codecs
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    f"assets/samples/handbook/{name}.md" for name in ("01-site", "02-people", "03-halloran")
]
QUESTION = "Whom is the main telescope named after?"
COLUMNS, ROWS = 120, 40
PATIENCE_S = 900.0
KEY_S, LOOK_S = 0.05, 3.0
LONGEST_WAIT_S = 1.0
READING_S = 6.0
"""What reading the documents is shortened to."""

Event = tuple[float, str]
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.)")


class Recording:
    """A program in a terminal of its own, and what it writes there."""

    def __init__(self, command: list[str]) -> None:
        """Start the program."""
        self.events: list[Event] = []
        self._text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._began = time.monotonic()
        self._process, self._terminal = pty.fork()
        if self._process == 0:
            os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
            os.execvp(command[0], command)
        size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)
        os.kill(self._process, signal.SIGWINCH)

    @property
    def now(self) -> float:
        """Seconds since the program was started."""
        return time.monotonic() - self._began

    def watch(self, seconds: float) -> bool:
        """Record for so long; return whether the program still runs."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._terminal], [], [], left)[0]:
                break
            try:
                data = os.read(self._terminal, 1 << 16)
            except OSError:  # the program has ended
                return False
            text = self._decoder.decode(data)
            self.events.append((self.now, text))
            self._text += _ESCAPES.sub("", text)
        return True

    def wait(self, *texts: str) -> None:
        """Record until the program writes one of the texts; forget what it wrote before.

        Raises:
            SystemExit: it does not, or it ends.
        """
        end = time.monotonic() + PATIENCE_S
        while not any(text in self._text for text in texts):
            if not self.watch(0.1) or time.monotonic() > end:
                sys.exit(f"Waited for {' or '.join(texts)}; the program wrote: {self._text[-400:]}")
        self._text = ""

    def type(self, keys: Iterable[str]) -> None:
        """Press keys, at the pace of a person."""
        for key in keys:
            os.write(self._terminal, key.encode())
            self.watch(KEY_S)


def shortened(events: Iterable[Event], begin: float, end: float, to: float) -> list[Event]:
    """Return events with the time from ``begin`` to ``end`` shortened to ``to``, and no long waits.

    Args:
        events: times in seconds, in order.
        begin: where the shortened part begins.
        end: where it ends.
        to: how long it takes then; not lengthened if it is longer.
    """
    pace = min(to / (end - begin), 1.0) if end > begin else 1.0
    told: list[Event] = []
    before = at = 0.0
    for when, text in events:
        step = when - before
        inside = max(min(when, end) - max(before, begin), 0.0)
        at += min(step - inside + inside * pace, LONGEST_WAIT_S)
        before = when
        told.append((round(at, 4), text))
    return told


def main() -> None:
    """Record, and write the file."""
    os.chdir(ROOT)
    program = [sys.executable, "-m", "hga_chat", "ingest", *DOCUMENTS, "--no-save"]
    recording = Recording(program)
    recording.wait("Reading")
    begin = recording.now
    recording.wait("ready")
    end = recording.now
    recording.watch(LOOK_S)
    recording.type([*QUESTION, "\r"])
    recording.wait("tok/s")
    recording.wait("ready")
    recording.watch(LOOK_S)
    recording.type(["\x0f"])  # Ctrl+O: the source
    recording.watch(2 * LOOK_S)
    recording.type(["\x1b"])
    recording.watch(LOOK_S)
    recording.type([*"/verify", "\r"])
    recording.wait("nats", "likely")
    recording.watch(2 * LOOK_S)
    recording.type(["\x11"])  # Ctrl+Q
    while recording.watch(1.0):
        pass
    shown = ["hga-chat", "ingest", *DOCUMENTS]
    events = shortened(recording.events, begin, end, READING_S)
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "command": " ".join(shown)}
    lines = [json.dumps(header), *(json.dumps([at, "o", text]) for at, text in events)]
    Path(sys.argv[1]).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
