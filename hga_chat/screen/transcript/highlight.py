"""Code is highlighted aside, so that no key waits for it."""

import queue
import sys
import threading
from contextlib import suppress

from hga_chat.screen.transcript.markdown import render
from hga_chat.screen.transcript.pieces import Piece
from hga_chat.screen.transcript.rows import Row, rows_of

TURN_S = 0.001
"""After which a thread that computes lets another one: the screen's asks for its turn many times
before all is drawn, and with Python's 5 ms each it would wait for a tenth of a second."""


class Colouring:
    """Highlights pieces on a thread of its own, one after the other."""

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Piece, tuple[Row, ...] | None]] = queue.SimpleQueue()
        self._left = 0
        self._thread: threading.Thread | None = None

    @property
    def is_done(self) -> bool:
        """Whether all that was wanted is shown."""
        return self._left == 0

    def want(self, piece: Piece) -> None:
        """Have the code in a piece highlighted."""
        self._left += 1
        self._wanted.put(piece)
        if self._thread is None:
            sys.setswitchinterval(min(TURN_S, sys.getswitchinterval()))
            self._thread = threading.Thread(target=self._run, name="highlighter", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            piece = self._wanted.get()
            rows = None
            # Where the highlighter fails, code stays as it is.
            with suppress(Exception):
                rows = rows_of(render(piece.source))
            self._done.put((piece, rows))

    def show(self) -> bool:
        """Show what has been highlighted meanwhile; whether there was anything."""
        found = False
        while not self._done.empty():
            piece, rows = self._done.get()
            self._left -= 1
            if rows is not None:
                piece.recolour(rows)
                found = True
        return found
