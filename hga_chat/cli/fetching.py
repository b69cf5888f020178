"""Asks before anything large is fetched."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hga_chat.output import Output, human_bytes

if TYPE_CHECKING:
    from hga_chat.models import Fetch

_LARGE = 200_000_000
"""Bytes above which a person is asked."""


def is_interactive(output: Output) -> bool:
    """Whether a person can be asked."""
    return not output.is_quiet and output.can_ask


def asking(output: Output) -> "Callable[[Fetch], bool]":
    """Return what says whether to fetch: a person on a terminal if it is large, else yes."""

    def confirm(fetch: "Fetch") -> bool:
        if fetch.left_bytes <= _LARGE or not is_interactive(output):
            return True
        size = human_bytes(fetch.left_bytes)
        return output.ask(f"Fetch {fetch.name} ({size}) from {fetch.where}?")

    return confirm
