"""Prefill on the command line: its progress line, and what interrupts it."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hga_chat.conversation.conversation import Conversation
    from hga_chat.output import Output


INTERRUPTED = 130
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, a polite end, and a closed terminal."""


@contextmanager
def cancel_on_interrupt() -> Iterator[threading.Event]:
    """Set the event on the first signal; a second Ctrl-C or SIGTERM ends the process at once."""
    cancel = threading.Event()
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]

    def interrupt(*_: object) -> None:
        cancel.set()
        for number in numbers:
            # A closed terminal sends its signal, and so does the shell that ran in it.
            is_hangup = number == getattr(signal, "SIGHUP", None)
            signal.signal(number, signal.SIG_IGN if is_hangup else signal.SIG_DFL)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def prefill_documents(
    conversation: "Conversation", output: "Output", cancel: threading.Event
) -> float:
    """Prefill the pending tokens and return the seconds it took."""
    started = time.perf_counter()
    for step in conversation.prefill(cancel):
        left = step.seconds / step.fraction - step.seconds if step.fraction else 0
        output.progress(f"Reading {step.tokens:,} tokens, {left:.0f} s left", step.fraction)
    output.clear_progress()
    return time.perf_counter() - started
