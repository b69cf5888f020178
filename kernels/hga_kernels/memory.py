"""Host memory that is read in full, or at random, for every token."""

import ctypes
import functools
import math
import sys
import weakref
from collections.abc import Sequence

import torch

SELECTION_BYTES = 64 << 20
"""Target size of the GPU workspace of a selection for many query blocks, without its masses."""
_PAGE = 2 << 20
_MADV_HUGEPAGE = 14


def empty_on_huge_pages(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Allocate an uninitialised CPU tensor on pages of 2 MiB, where the system has them.

    Small pages cost a third of the memory bandwidth. A tensor smaller than a huge page, and any
    tensor on a system other than Linux, is an ordinary one. Memory is committed when it is first
    written, here 2 MiB at a time.

    Args:
        shape: of the tensor.
        dtype: of the tensor.
    """
    size = math.prod(shape) * dtype.itemsize
    advise = _advise()
    if size < _PAGE or advise is None:
        return torch.empty(tuple(shape), dtype=dtype)
    whole = -(-size // _PAGE) * _PAGE
    memory = torch.empty(whole + _PAGE, dtype=torch.uint8)
    start = -memory.data_ptr() % _PAGE
    # If the system refuses, this is ordinary memory.
    advise(memory.data_ptr() + start, whole, _MADV_HUGEPAGE)
    return memory[start : start + size].view(dtype).view(tuple(shape))


def pin(tensor: torch.Tensor, owner: object) -> None:
    """Pin a CPU tensor, so that GPUs can read and write it in place.

    Args:
        tensor: contiguous.
        owner: the tensor is unpinned when this object is collected; the tensor must outlive it.

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
