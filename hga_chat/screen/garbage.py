"""When Python looks for garbage: everything waits for it, the screen too."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 5_000
"""Objects after which the newest are looked through, which takes a millisecond."""
RARELY = 1_000
"""Of ten such times a thousand, all are; by then there has been a better moment for it."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look through all objects only when ``settle`` is called."""
    former = gc.get_threshold()
    gc.set_threshold(YOUNG, 10, RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*former)


def keep_all() -> None:
    """Take what there is for lasting: libraries, model, documents, turns.

    Looking through all of that again and again takes a fifth of a second each time. What lasts is
    still freed when nothing refers to it, unless it refers to itself.
    """
    gc.freeze()


def settle() -> None:
    """Look through what is new, and take what is left for lasting."""
    gc.collect()
    keep_all()
