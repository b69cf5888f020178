"""Changes of a session that take another engine: its model, context or instructions."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Change:
    """What a person wants to change."""

    what: Literal["model", "context", "system", "documents"]
    value: str


@dataclass(frozen=True)
class Offer:
    """What a change costs, or why it cannot be made."""

    text: str
    change: Change | None
    """None if it cannot be made."""
    is_asked: bool = False
    """Whether a person is to agree first."""
