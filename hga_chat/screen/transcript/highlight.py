"""Highlighting code on a thread, so that no key waits for it."""

import queue
import sys
import threading
from contextlib import suppress

from hga_chat.screen.transcript.markdown import render
from hga_chat.screen.transcript.pieces import Piece
from hga_chat.screen.transcript.rows import Row, rows_of

SWITCH_S = 0.001
"""Python's switch interval meanwhile: the screen's thread takes the lock many times for one frame,
and at the default of 5 ms a frame would wait for a tenth of a second."""


class Colouring:
    """Highlights pieces on its own thread, one after another."""

    def __init__(self) -> None:
        self._queued: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Piece, tuple[Row, ...] | None]] = queue.SimpleQueue()
        self._left = 0
        self._thread: threading.Thread | None = None

    @property
    def is_done(self) -> bool:
        """Whether all queued pieces are shown."""
        return self._left == 0

    def queue(self, piece: Piece) -> None:
        """Queue a piece."""
        self._left += 1
        self._queued.put(piece)
        if self._thread is None:
            sys.setswitchinterval(min(SWITCH_S, sys.getswitchinterval()))
            self._thread = threading.Thread(target=self._run, name="highlighter", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            piece = self._queued.get()
            rows = None
            # If the highlighter fails, the code stays plain.
            with suppress(Exception):
                rows = rows_of(render(piece.source))
            self._done.put((piece, rows))

    def show(self) -> bool:
        """Show the pieces highlighted since the last call; return whether there were any."""
        found = False
        while not self._done.empty():
            piece, rows = self._done.get()
            self._left -= 1
            if rows is not None:
                piece.recolour(rows)
                found = True
        return found
