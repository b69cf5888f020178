"""Which kernels have been compiled on this machine, and word of it while they are."""

import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import triton
from triton import knobs

from hga_kernels.gpu.build import capability


def mark(purpose: str) -> Path:
    """The file that is there once all kernels for some purpose have been compiled.

    It lies in Triton's cache, so that it goes when they go. Other kernels, another Triton or
    another GPU have another one.

    Args:
        purpose: what the kernels are for: whatever decides which ones are needed.
    """
    name = hashlib.sha256(purpose.encode()).hexdigest()[:16]
    return _folder() / f"{_prefix()}{name}"


@contextmanager
def heard(tell: Callable[[int], None]) -> Iterator[None]:
    """Tell of kernels as they are compiled; those in Triton's cache do not count.

    Args:
        tell: given how many there have been; what it raises ends the compiling.
    """
    before, count = knobs.compilation.listener, 0

    def listen(*, cache_hit: bool, **_: Any) -> None:
        nonlocal count
        if not cache_hit:
            count += 1
            tell(count)

    knobs.compilation.listener = listen
    try:
        yield
    finally:
        knobs.compilation.listener = before


def status() -> str:
    """A few words for people: whether any kernels have been compiled for this GPU."""
    if any(_folder().glob(f"{_prefix()}*")):
        return "compiled"
    return "to be compiled when a model is first opened, once, in about a minute"


def _folder() -> Path:
    return Path(knobs.cache.dir)


@functools.cache
def _prefix() -> str:
    sources = hashlib.sha256(triton.__version__.encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        sources.update(path.read_bytes())
    return f"hga-chat-sm_{capability()}-{sources.hexdigest()[:16]}-"
