"""The compiled C library, called through ctypes."""

import ctypes
import functools
from pathlib import Path

import torch

from hga_kernels.cpu.build import BuildError, library_path

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_float

_SIGNATURES = {
    "hga_decode_layer": (*6 * [_POINTER], *2 * [_INT]),
    "hga_linear": (*3 * [_POINTER], *4 * [_INT]),
    "hga_quantize_rows": (*5 * [_POINTER], *4 * [_INT], _FLOAT),
    "hga_packed_many": (*5 * [_POINTER], *5 * [_INT]),
    "hga_packed_to_bf16": (*2 * [_POINTER], *4 * [_INT]),
    "hga_has_amx": (),
    "hga_packed_add": (*6 * [_POINTER], *5 * [_INT]),
    "hga_packed_experts": (*7 * [_POINTER], *7 * [_INT], _FLOAT),
    "hga_packed_rows": (*5 * [_POINTER], *7 * [_INT], _FLOAT),
    "hga_rms_norm": (*3 * [_POINTER], *3 * [_INT], _FLOAT),
    "hga_split_heads": (*10 * [_POINTER], *6 * [_INT], _FLOAT),
    "hga_gated_silu": (*2 * [_POINTER], *3 * [_INT]),
    "hga_summarize": (*4 * [_POINTER], *3 * [_INT]),
    "hga_encode_tokens": (*4 * [_POINTER], *2 * [_INT]),
    "hga_select_groups": (*9 * [_POINTER], *11 * [_INT], _FLOAT),
    "hga_attend_pages": (*9 * [_POINTER], *6 * [_INT], _FLOAT),
}


def open_library(path: Path, threads: int) -> ctypes.CDLL:
    """Load the compiled kernels and start their threads.

    Args:
        path: the shared library.
        threads: how many threads its kernels run on.

    Raises:
        OSError: the library cannot be loaded.
        AttributeError: it lacks a kernel.
    """
    library = ctypes.CDLL(str(path))
    for name, types in _SIGNATURES.items():
        getattr(library, name).argtypes = types
    library.hga_set_threads(threads)
    return library


@functools.cache
def _load() -> ctypes.CDLL | str:
    """Return the library, or the reason why there is none."""
    try:
        return open_library(library_path(), torch.get_num_threads())
    except (BuildError, OSError, AttributeError) as error:
        return str(error)


def available() -> bool:
    """Return whether the compiled kernels can be used. The first call compiles them."""
    return not isinstance(_load(), str)


def status() -> str:
    """Describe in one line whether the kernels are compiled, or why not."""
    loaded = _load()
    return f"plain torch ({loaded})" if isinstance(loaded, str) else "compiled"


def takes(dtype: torch.dtype, *tensors: torch.Tensor) -> bool:
    """Return whether the library is available and all tensors are on the CPU and of ``dtype``."""
    for tensor in tensors:
        if tensor.dtype is not dtype or not tensor.is_cpu:
            return False
    return available()


@functools.cache
def has_amx() -> bool:
    """Return whether the library is for a CPU with AMX (Intel's matrix unit), and may use it."""
    loaded = _load()
    return not isinstance(loaded, str) and bool(loaded.hga_has_amx())


def call(name: str, *arguments: torch.Tensor | int | float | None) -> None:
    """Call a function of the library. Tensors are passed by address, numbers by value.

    Raises:
        MemoryError: the function could not allocate its scratch memory.
    """
    values = [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments]
    if getattr(_load(), name)(*values):
        raise MemoryError(f"no memory left for {name}")
