"""Memory that is read in full or at random for every token."""

import ctypes
import functools
import math
import sys
import weakref
from collections.abc import Sequence

import torch

SELECTION_BYTES = 64 << 20
"""Of a GPU, that a selection for many blocks takes about as much of, beside its masses."""
_PAGE = 2 << 20
_MADV_HUGEPAGE = 14


def empty_on_huge_pages(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialised CPU tensor on pages of 2 MiB, where the system has them.

    Reading through small pages costs a third of the memory's bandwidth. What is smaller than a
    huge page, and everything on other systems than Linux, is an ordinary tensor. As with those,
    memory is committed when it is first written, here 2 MiB at a time.

    Args:
        shape: of the tensor.
        dtype: of its elements.
    """
    size = math.prod(shape) * dtype.itemsize
    advise = _advise()
    if size < _PAGE or advise is None:
        return torch.empty(tuple(shape), dtype=dtype)
    whole = -(-size // _PAGE) * _PAGE
    memory = torch.empty(whole + _PAGE, dtype=torch.uint8)
    start = -memory.data_ptr() % _PAGE
    # Where the system refuses, the memory is as good as any other.
    advise(memory.data_ptr() + start, whole, _MADV_HUGEPAGE)
    return memory[start : start + size].view(dtype).view(tuple(shape))


def pin(tensor: torch.Tensor, owner: object) -> None:
    """Lock a CPU tensor in memory, so that GPUs read and write it where it is.

    Args:
        tensor: contiguous.
        owner: it is unlocked when this object goes, which has to be before the tensor does.

    Raises:
        MemoryError: the system or the driver refuses.
    """
    runtime = torch.cuda.cudart()
    address, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
    if int(runtime.cudaHostRegister(address, size, 0)):
        raise MemoryError(f"{size:,} bytes of host memory cannot be locked for the GPU")
    weakref.finalize(owner, runtime.cudaHostUnregister, address)


@functools.cache
def _advise() -> "ctypes._NamedFuncPointer | None":
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
