"""What compiled kernels are found by, against what Triton specialises on."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

launch = pytest.importorskip("hga_kernels.gpu.launch")

integers = st.sampled_from(
    [-(2**63), -(2**31) - 16, -(2**31), -16, -1, 0, 1, 2, 16, 17, 2**31 - 1, 2**31, 2**63 - 1]
) | st.integers(-(2**63), 2**63 - 1)
tensors = st.builds(
    lambda dtype, start: torch.zeros(64, dtype=dtype)[start:],
    st.sampled_from([torch.bfloat16, torch.float32, torch.int32, torch.uint8]),
    st.integers(0, 33),
)
arguments = integers | tensors | st.none() | st.booleans() | st.floats(width=32)


def specialised_by_triton(argument: Any) -> Any:
    """Return the type and the property that Triton compiles for."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend
    from triton.runtime.jit import native_specialize_impl

    backend = make_backend(GPUTarget("cuda", 90, 32))
    return native_specialize_impl(backend, argument, False, True, True)


@given(arguments, arguments)
def test_tells_apart_what_triton_compiles_apart(one: Any, other: Any) -> None:
    """A kernel compiled for one argument is never used for another that needs its own."""
    if specialised_by_triton(one) != specialised_by_triton(other):
        assert launch.specialised((one,)) != launch.specialised((other,))


@given(st.integers(0, 10**6), st.integers(1, 10**4))
def test_divides_and_rounds_up(number: int, step: int) -> None:
    """The quotient is the fewest steps that hold the number."""
    quotient = launch.cdiv(number, step)
    assert (quotient - 1) * step < number <= quotient * step


@given(st.integers(1, 10**9))
def test_rounds_up_to_a_power_of_two(number: int) -> None:
    """The power is the smallest that is not below the number."""
    power = launch.next_power_of_2(number)
    assert power & (power - 1) == 0
    assert power // 2 < number <= power
