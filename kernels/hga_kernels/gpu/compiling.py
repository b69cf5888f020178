"""Remember which kernels were compiled on this machine, and report progress while they are."""

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
    """Return the path of the file that exists once all kernels for a purpose are compiled.

    It is in Triton's cache, so it disappears with the compiled kernels. Its name depends on the
    kernels' sources, the version of Triton and the GPU.

    Args:
        purpose: everything that decides which kernels are needed, as text.
    """
    name = hashlib.sha256(purpose.encode()).hexdigest()[:16]
    return _folder() / f"{_prefix()}{name}"


@contextmanager
def report_compiled(tell: Callable[[int], None]) -> Iterator[None]:
    """Report kernels as they are compiled; those found in Triton's cache do not count.

    Args:
        tell: called with the number compiled so far; an exception from it ends the compilation.
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
    """Say in words whether any kernels have been compiled for this GPU."""
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
