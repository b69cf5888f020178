"""Running the screen; the terminal is restored afterwards."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hga_chat.screen.app import ChatApp
from hga_chat.screen.changes import Change
from hga_chat.screen.engine.thread import Consider, Progress
from hga_chat.screen.terminal import LastingOutput

if TYPE_CHECKING:
    from hga_chat.conversation.conversation import Conversation
    from hga_engine.config import SamplingParams

PATIENCE_S = 15.0
"""How long to wait for the engine when the screen is closed."""


@dataclass(frozen=True)
class Ended:
    """How the screen was left."""

    kept: list[str]
    """What is kept of documents that were not read to the end; empty if they were."""
    change: Change | None = None
    """The change for which the session is to be opened again; None: the user quits."""


def run_screen(
    make_conversation: "Callable[[Progress], Conversation]",
    sampling: "SamplingParams",
    theme: str = "auto",
    plain: bool | None = None,
    *,
    alerts: bool = True,
    first_message: bool | None = False,
    consider: Consider | None = None,
) -> Ended:
    """Run the screen until the user quits, then close the engine.

    Args:
        make_conversation: called in the engine's thread with a function that reports what is
            being loaded and how much of it, 0 to 1; the documents are prefilled next.
        sampling: how answers are sampled.
        theme: a name, or ``auto``.
        plain: draw in ASCII; None: if the terminal asks for it.
        alerts: call the user back when something took long.
        first_message: show a summary and questions to ask; None: if a GPU is in use.
        consider: says what a change of the session costs; None: nothing can be changed.

    Raises:
        Exception: the error that ended loading or prefill, after the screen has shown it.
        SystemExit: the screen itself failed; the restored terminal shows why.
    """
    for name in ("COLUMNS", "LINES"):
        # If these are exported, Textual ignores changes of the terminal's size.
        os.environ.pop(name, None)
    terminal = sys.__stderr__
    sys.__stderr__ = LastingOutput(terminal)  # type: ignore[assignment, arg-type, misc]
    app = ChatApp(
        make_conversation,
        sampling,
        theme,
        plain,
        alerts=alerts,
        first_message=first_message,
        consider=consider,
    )
    try:
        app.run()
    finally:
        sys.__stderr__ = terminal  # type: ignore[misc]
        app.engine.stop()
        with _ignoring_hangup():
            app.engine.join(PATIENCE_S)
    if app.engine.error is not None:
        raise app.engine.error
    if app.return_code:
        raise SystemExit(app.return_code)
    return Ended(app.engine.kept, app.change)


@contextmanager
def _ignoring_hangup() -> Iterator[None]:
    """Go on saving when a closed terminal's shell repeats the signal that ended the screen."""
    number = getattr(signal, "SIGHUP", None)
    before = signal.signal(number, signal.SIG_IGN) if number is not None else None
    try:
        yield
    finally:
        if number is not None:
            signal.signal(number, before)
