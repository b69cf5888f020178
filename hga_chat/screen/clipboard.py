"""Copying to the clipboard, with a message that claims no more than is known."""

import base64
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping

from hga_chat.screen.terminal import passed_on

MOST_BYTES = 74_994
"""Limit of terminals for one OSC 52 sequence: 100,000 characters of base 64."""
PATIENCE_S = 2.0
_PROGRAMS = (
    ("WAYLAND_DISPLAY", ["wl-copy"]),
    ("DISPLAY", ["xclip", "-selection", "clipboard"]),
    ("DISPLAY", ["xsel", "--clipboard", "--input"]),
    ("", ["pbcopy"]),
    ("", ["clip.exe"]),
)


def copy(text: str, write: Callable[[str], object], environment: Mapping[str, str]) -> str:
    """Copy a text with a program of this machine and through the terminal.

    Args:
        text: the text to paste later.
        write: writes to the terminal.
        environment: names the display and the terminal.

    Returns:
        A message for the user.
    """
    size = len(text.encode("utf-8", "replace"))
    through_terminal = size <= MOST_BYTES
    if through_terminal:
        write(osc52(text, environment))
    is_here = not any(name in environment for name in ("SSH_TTY", "SSH_CONNECTION"))
    program = _by_program(text, environment) if is_here else None
    what = f"{len(text):,} characters"
    if program:
        return f"Copied {what} with {program}."
    if through_terminal:
        return f"Sent {what} to the terminal's clipboard; not every terminal takes it."
    return f"{what} are too many for the terminal's clipboard. '/export' writes a file."


def osc52(text: str, environment: Mapping[str, str]) -> str:
    """Return the sequence that sets a terminal's clipboard, wrapped for tmux or screen."""
    code = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    sequence = f"\x1b]52;c;{code}\x07"
    # tmux takes the bare sequence itself and passes the wrapped one on if it is allowed to.
    own = sequence if environment.get("TMUX") else ""
    return own + passed_on(sequence, environment)


def _by_program(text: str, environment: Mapping[str, str]) -> str | None:
    """Return the first program that took the text, or None."""
    for variable, command in _PROGRAMS:
        if (variable and not environment.get(variable)) or shutil.which(command[0]) is None:
            continue
        try:
            done = subprocess.run(
                command,
                input=text.encode("utf-8", "replace"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=PATIENCE_S,
                check=False,
                env=dict(os.environ),
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return command[0]
    return None
