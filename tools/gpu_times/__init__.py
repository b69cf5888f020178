"""What is timed on a GPU, by part."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Case:
    """Work to time: the least bytes and operations it takes, and how far it is from the truth."""

    name: str
    run: Callable[[], object]
    bytes: int = 0
    flops: int = 0
    check: Callable[[], float] | None = None
