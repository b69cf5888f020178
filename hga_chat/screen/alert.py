"""A bell and a desktop notification, for who has turned to something else meanwhile."""

from collections.abc import Mapping

from hga_chat.screen.terminal import passed_on

LONG_S = 20.0
"""Work that took less was waited for."""
BELL = "\x07"
_MUTE = ("", "dumb", "linux")
"""Terminals without a desktop."""


def alert(text: str, environment: Mapping[str, str], *, is_away: bool | None) -> str:
    """Return what rings the terminal and notifies the desktop.

    Args:
        text: a few words, without control characters or semicolons.
        environment: names the terminal.
        is_away: whether another window has the focus; None if the terminal does not tell. Then
            only the bell rings.
    """
    if is_away is False:
        return ""
    term = environment.get("TERM", "")
    if not is_away or term in _MUTE:
        return BELL
    takes_777 = "VTE_VERSION" in environment or term.startswith(("foot", "rxvt"))
    kind = "777;notify;hga-chat;" if takes_777 else "9;"
    return BELL + passed_on(f"\x1b]{kind}{text}\x07", environment)
