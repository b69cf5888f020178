"""Timing of garbage collections, which stop every thread, the screen's too."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

GENERATION_0 = 5_000
"""Threshold of generation 0; collecting it takes a millisecond."""
GENERATION_2 = 1_000
"""Threshold of generation 2: effectively never; ``settle`` collects it between answers."""
FULL_EVERY = 10
"""Answers between full collections, each of which takes a twentieth of a second."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect all generations only in ``settle``; undo ``freeze_all`` at the end."""
    former = gc.get_threshold()
    gc.set_threshold(GENERATION_0, 10, GENERATION_2)
    try:
        yield
    finally:
        gc.set_threshold(*former)
        # Frozen objects are not freed even as Python exits; Triton would report them as leaks.
        gc.unfreeze()


def freeze_all() -> None:
    """Exempt all present objects: libraries, model, documents.

    Otherwise each full collection would take a fifth of a second longer.
    """
    gc.freeze()


def settle(answers: int) -> None:
    """Collect the garbage of the last answer and return free memory to the system.

    Turns are not frozen: Textual's lines are reference cycles and would never be freed.

    Args:
        answers: number of answers so far; after every ``FULL_EVERY`` the collection is full.
    """
    gc.collect(1 if answers % FULL_EVERY else 2)
    if sys.platform == "linux":
        # glibc would keep the memory of each answer, a bit more every time.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
