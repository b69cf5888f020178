"""Hierarchical Global Attention kernels, each with a plain torch reference.

Every function here has the signature and meaning of its namesake in ``reference`` and takes the
fastest path that fits the tensors it is given.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from hga_kernels import cpu, reference
from hga_kernels.memory import empty_on_huge_pages
from hga_kernels.reference import Packing, decode_tokens, hadamard

__all__ = [
    "Packing",
    "attend_pages",
    "decode_tokens",
    "empty_on_huge_pages",
    "encode_tokens",
    "gated_silu",
    "hadamard",
    "index_chunks",
    "linear",
    "reference",
    "rms_norm",
    "rotate",
    "select_groups",
    "status",
    "summarize",
]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _fastest(
    fast: Callable[Arguments, Result | None], plain: Callable[Arguments, Result]
) -> Callable[Arguments, Result]:
    """The fast path where it applies (it gives None elsewhere), else the plain one."""

    @wraps(plain)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        result = fast(*args, **kwargs)
        return plain(*args, **kwargs) if result is None else result

    return run


linear = _fastest(cpu.linear, reference.linear)
rms_norm = _fastest(cpu.rms_norm, reference.rms_norm)
rotate = _fastest(cpu.rotate, reference.rotate)
gated_silu = _fastest(cpu.gated_silu, reference.gated_silu)
summarize = _fastest(cpu.summarize, reference.summarize)
encode_tokens = _fastest(cpu.encode_tokens, reference.encode_tokens)
index_chunks = _fastest(cpu.index_chunks, reference.index_chunks)
select_groups = _fastest(cpu.select_groups, reference.select_groups)
attend_pages = _fastest(cpu.attend_pages, reference.attend_pages)


def status() -> dict[str, str]:
    """What each device's kernels run as, for people."""
    return {"cpu": cpu.status()}
