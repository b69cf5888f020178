"""Limits on what a parser may use and return."""

from dataclasses import dataclass

MAX_TEXT_CHARS = 5_000_000
"""Most characters of text that a worker returns for one document."""
TOO_MUCH_TEXT = f"more than {MAX_TEXT_CHARS:,} characters of text"


@dataclass(frozen=True)
class Limits:
    """What a worker may use for one document."""

    seconds: float = 120.0
    memory_bytes: int = 2 << 30
    answer_bytes: int = 64 << 20
