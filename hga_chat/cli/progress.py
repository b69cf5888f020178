"""Prefill on the command line: its progress line, and Ctrl-C."""

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


@contextmanager
def cancel_on_interrupt() -> Iterator[threading.Event]:
    """Set the event on the first Ctrl-C; the second ends the process at once."""
    cancel = threading.Event()

    def interrupt(*_: object) -> None:
        cancel.set()
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield cancel
    finally:
        signal.signal(signal.SIGINT, before)


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
