"""When Python looks for garbage: everything waits for it, the screen too."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 5_000
"""Objects after which the newest are looked through, which takes a millisecond."""
RARELY = 1_000
"""Of ten such times a thousand, all are; by then there has been a better moment for it."""

THOROUGHLY = 10
"""Answers after which all their objects are looked through, which takes a twentieth of a second."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look through all objects only when ``settle`` is called; undo ``keep_all`` at the end."""
    former = gc.get_threshold()
    gc.set_threshold(YOUNG, 10, RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*former)
        # What is frozen is never freed, not even as Python exits: Triton would report it as leaked.
        gc.unfreeze()


def keep_all() -> None:
    """Take what there is for lasting: libraries, model, documents.

    Looking through all of that again and again takes a fifth of a second each time.
    """
    gc.freeze()


def settle(answers: int) -> None:
    """Look through what is new since the last answer, and give free memory back to the system.

    Turns are not taken for lasting: Textual's lines refer to themselves, and would stay for ever.

    Args:
        answers: so far; now and then all is looked through that is new since ``keep_all``.
    """
    gc.collect(1 if answers % THOROUGHLY else 2)
    if sys.platform == "linux":
        # Else glibc keeps what an answer took, a bit more after each.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
