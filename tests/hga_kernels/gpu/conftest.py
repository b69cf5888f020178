"""Triton kernels on a GPU where there is one, else in Triton's interpreter on the CPU."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    # The interpreter holds bf16 as integers of 16 bits: it cuts float32 off where a GPU rounds to
    # the nearest, and multiplies the integers in a dot.
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


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the kernels run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def poisoned() -> Iterator[None]:
    """All memory that wrappers ask for is NaN, or a large number, at first."""

    def filled(create: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def run(*args: Any, **kwargs: Any) -> torch.Tensor:
            tensor = create(*args, **kwargs)
            if tensor.is_floating_point():
                return tensor.fill_(math.nan)
            return tensor.fill_(min(2**24, torch.iinfo(tensor.dtype).max))

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", filled(torch.empty))
        patch.setattr(torch, "empty_like", filled(torch.empty_like))
        patch.setattr(torch.Tensor, "new_empty", filled(torch.Tensor.new_empty))
        yield


@pytest.fixture(scope="module")
def few_programs(device: torch.device) -> Iterator[None]:
    """Larger tiles in the interpreter, which takes its time for every program."""
    from hga_kernels.gpu import expert_gemv, gemv
    from hga_kernels.gpu.build import Launch

    with pytest.MonkeyPatch.context() as patch:
        tables = (*gemv.LAUNCHES.values(), *expert_gemv.LAUNCHES.values())
        for launches in tables if device.type == "cpu" else ():
            for target, launch in launches.items():
                patch.setitem(launches, target, Launch({**launch.sizes, "BLOCK_N": 32}))
        yield
