"""The compiled C library, called through ctypes."""

import ctypes
import functools
from pathlib import Path

import torch

from hga_kernels.cpu.build import BuildError, library_path

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_float


_SIGNATURES = {
    "hga_linear": (*3 * [_POINTER], *4 * [_INT]),
    "hga_rms_norm": (*3 * [_POINTER], *2 * [_INT], _FLOAT),
    "hga_rotate": (*4 * [_POINTER], *4 * [_INT]),
    "hga_gated_silu": (*2 * [_POINTER], *2 * [_INT]),
    "hga_summarize": (*4 * [_POINTER], *3 * [_INT]),
    "hga_encode_tokens": (*4 * [_POINTER], *2 * [_INT]),
    "hga_select_groups": (*8 * [_POINTER], *10 * [_INT]),
    "hga_attend_pages": (*9 * [_POINTER], *6 * [_INT], _FLOAT),
}


def open_library(path: Path, threads: int) -> ctypes.CDLL:
    """Load compiled kernels.

    Args:
        path: of the shared library.
        threads: that its kernels run on.

    Raises:
        OSError: it cannot be loaded.
    """
    library = ctypes.CDLL(str(path))
    for name, types in _SIGNATURES.items():
        getattr(library, name).argtypes = types
    library.hga_set_threads(threads)
    return library


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    try:
        return open_library(library_path(), torch.get_num_threads())
    except (BuildError, OSError, AttributeError) as error:
        return str(error)


def available() -> bool:
    """Whether the compiled kernels can be used. The first call compiles them."""
    return not isinstance(_load(), str)


def status() -> str:
    """One line for people: compiled, or why not."""
    loaded = _load()
    return f"plain torch ({loaded})" if isinstance(loaded, str) else "compiled"


def takes(dtype: torch.dtype, *tensors: torch.Tensor) -> bool:
    """Whether all tensors are of ``dtype`` and lie in one piece in the CPU's memory."""
    for tensor in tensors:
        if tensor.dtype is not dtype or not tensor.is_cpu:
            return False
    return available()


def call(name: str, *arguments: torch.Tensor | int | float | None) -> None:
    """Call a function of the library with the addresses of tensors, and numbers as they are."""
    plain = [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments]
    if getattr(_load(), name)(*plain):
        raise MemoryError(f"no memory left for {name}")
