"""Opening the screen, and leaving the terminal as it was."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from hga_chat.screen.app import ChatApp
from hga_chat.screen.engine.thread import Progress
from hga_chat.screen.terminal import LastingOutput

if TYPE_CHECKING:
    from hga_chat.conversation.conversation import Conversation
    from hga_engine.config import SamplingParams

PATIENCE_S = 15.0
"""How long to wait for the engine to let go when the screen is closed."""


def run_screen(
    make_conversation: "Callable[[Progress], Conversation]",
    sampling: "SamplingParams",
    theme: str = "auto",
    plain: bool | None = None,
) -> None:
    """Open the screen and stay until the user leaves; the engine is closed afterwards.

    Args:
        make_conversation: called in the engine's thread with a function that takes what is being
            loaded and which share of it is done; the conversation's documents are read next.
        sampling: how answers are drawn.
        theme: a name, or ``auto``.
        plain: draw with ASCII alone; None: if the terminal asks for it.

    Raises:
        Exception: what kept the model from loading or the documents from being read, after the
            screen has shown it.
        SystemExit: the screen itself failed; the terminal is restored and shows why.
    """
    for name in ("COLUMNS", "LINES"):
        # Where these are exported, Textual takes their word and never follows the terminal's size.
        os.environ.pop(name, None)
    terminal = sys.__stderr__
    sys.__stderr__ = LastingOutput(terminal)  # type: ignore[assignment, arg-type, misc]
    app = ChatApp(make_conversation, sampling, theme, plain)
    try:
        app.run()
    finally:
        sys.__stderr__ = terminal  # type: ignore[misc]
        app.engine.stop()
        app.engine.join(PATIENCE_S)
    if app.engine.error is not None:
        raise app.engine.error
    if app.return_code:
        raise SystemExit(app.return_code)
