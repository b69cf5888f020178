"""Triton's interpreter, where there is no GPU: made faster, and to round bf16 as a GPU does.

Import this module before any kernel.
"""

from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle

    # The interpreter holds bf16 as 16-bit integers: it truncates float32 where a GPU rounds to the
    # nearest, and multiplies the integers in a dot.
    plain_cast, plain_dot = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot

    def cast(self: Any, source: Any, to: Any) -> Any:
        pair = (source.dtype.scalar, to.scalar)
        if pair == (tl.bfloat16, tl.float32):
            bits = source.data.astype(np.uint32) << 16
            return TensorHandle(bits.view(np.float32), tl.float32)
        if pair == (tl.float32, tl.bfloat16):
            bits = np.ascontiguousarray(source.data).view(np.uint32)
            rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            data = np.where(np.isnan(source.data), 0x7FC0, rounded).astype(np.uint16)
            return TensorHandle(data.reshape(source.data.shape), tl.bfloat16)
        return plain_cast(self, source, to)

    def dot(self: Any, a: Any, b: Any, *args: Any) -> Any:
        wide = [cast(self, x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b)]
        return plain_dot(self, *wide, *args)

    InterpreterBuilder.cast_impl = cast
    InterpreterBuilder.create_dot = dot

    # The interpreter patches the whole language whenever a kernel calls a function; once is enough.
    plain_patch, plain_launch = interpreter._patch_lang, GridExecutor.__call__
    patched: set[int] = set()

    def patch_once(function: Any) -> Any:
        found = {
            id(value) for value in function.__globals__.values() if value is tl or value is tl.core
        }
        if found <= patched:
            return None
        patched.update(found)
        return plain_patch(function)

    def launch(self: Any, *args: Any, **kwargs: Any) -> None:
        patched.clear()
        # A GPU says nothing of infinities and NaN, which rows beyond the end may well become.
        with np.errstate(all="ignore"):
            plain_launch(self, *args, **kwargs)

    interpreter._patch_lang = patch_once
    GridExecutor.__call__ = launch


def run_few_programs(patch: pytest.MonkeyPatch) -> None:
    """Give products of single rows larger tiles: the interpreter is slow per program."""
    from hga_kernels.gpu.build import Launch
    from hga_kernels.gpu.linear import expert_gemv, gemv

    for kind, launches in (*gemv.LAUNCHES.items(), *expert_gemv.LAUNCHES.items()):
        # Kernels for packed weights handle the rows of a program one by one.
        rows = 8 if "packed" in kind else 32
        for target, launch in launches.items():
            patch.setitem(launches, target, Launch({**launch.sizes, "BLOCK_N": rows}))
