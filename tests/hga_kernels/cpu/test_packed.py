"""Products with packed weights in C against the ``gguf`` library's dequantisation.

Expected values are computed in float64. All memory that the wrappers allocate is filled with NaN
first, so that unwritten places show.
"""

import functools

import gguf
import pytest
import torch

from hga_kernels import FORMATS, Packed, RowParts, cpu, reference
from hga_kernels.cpu import layers, packed
from tests.support.packed_weights import random_packed

pytestmark = pytest.mark.usefixtures("compiled")

ROW_ERROR = 1e-4
"""Largest error of a row's norm. 16-bit inputs reach 3e-5 here, 8-bit ones 4e-3."""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dense(weight: Packed) -> torch.Tensor:
    kind = gguf.GGMLQuantizationType[weight.format]
    return torch.from_numpy(gguf.dequantize(weight.data.numpy(), kind)).double()


def assert_rows_near(
    found: torch.Tensor | None, expected: torch.Tensor, error: float = ROW_ERROR
) -> None:
    assert found is not None
    assert found.shape == expected.shape
    errors = (found.double() - expected).norm(dim=1) / expected.norm(dim=1)
    assert errors.max() < error, errors


def columns_of(name: str) -> list[int]:
    return [256, 3 * 256, 35 * 256] if FORMATS[name].size == 256 else [32, 896, 1056]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rows", [1, 2, 5, 10])
def test_every_format(name: str, rows: int) -> None:
    for columns in columns_of(name):
        weight = random_packed(name, 37, columns, seed=columns)
        # A mean and an outlier: both cancel or dominate in sums of bytes.
        inputs = normal(rows, columns) + 0.5
        inputs[:, 3] = 15
        out = cpu.linear(inputs, weight)
        assert_rows_near(out, inputs.double() @ dense(weight).T)


@pytest.mark.parametrize("name", ["Q4_K", "Q6_K", "Q5_0", "Q8_0"])
def test_more_outputs_than_an_item_has(name: str) -> None:
    weight, inputs = random_packed(name, 1029, 512), normal(3, 512)
    assert_rows_near(cpu.linear(inputs, weight), inputs.double() @ dense(weight).T)


def test_inputs_of_every_size() -> None:
    weight = random_packed("Q4_K", 20, 512)
    inputs = normal(5, 512) * torch.tensor([1e-30, 1e-6, 1.0, 1e6, 1e30])[:, None]
    assert_rows_near(cpu.linear(inputs, weight), inputs.double() @ dense(weight).T)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows(value: float) -> None:
    inputs = normal(2, 256)
    inputs[1, 100] = value
    out = cpu.linear(inputs, random_packed("Q6_K", 8, 256))
    assert out is not None
    assert out[0].isfinite().all()
    assert not out[1].isfinite().any()


def test_zeros() -> None:
    out = cpu.linear(torch.zeros(2, 256), random_packed("Q4_K", 8, 256))
    assert out is not None
    assert (out == 0).all()


def test_parts_of_several_formats() -> None:
    q, v = random_packed("Q4_K", 70, 768), random_packed("Q6_K", 33, 768, seed=1)
    plain = [normal(5, 768, seed=2).to(dtype) for dtype in (torch.float32, torch.bfloat16)]
    inputs = normal(3, 768)
    out = cpu.linear(inputs, RowParts((q, v, *plain)))
    rows = torch.cat([dense(q), dense(v), *(part.double() for part in plain)])
    assert_rows_near(out, inputs.double() @ rows.T)


def test_residual_and_rows_that_are_not_contiguous() -> None:
    weight, inputs = random_packed("Q5_K", 40, 256), normal(4, 600)[:, :256]
    residual = normal(4, 80, seed=1)[:, 40:] * 100
    expected = inputs.double() @ dense(weight).T + residual.double()
    assert_rows_near(cpu.linear(inputs, weight, residual=residual), expected)


def test_bf16_in_and_out() -> None:
    weight, inputs = random_packed("Q4_K", 40, 256), normal(3, 256).bfloat16()
    expected = inputs.double() @ dense(weight).T
    assert_rows_near(cpu.linear(inputs, weight, torch.float32), expected)
    residual = normal(3, 40, seed=1).bfloat16()
    out = cpu.linear(inputs, weight, residual=residual)
    assert out is not None
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), expected + residual.double(), rtol=2**-8, atol=1e-3)


def test_norm_goes_first() -> None:
    weight, inputs, norm = random_packed("Q4_K", 40, 768), normal(5, 768) * 3, normal(768, seed=1)
    out = layers.norm_linear(inputs, norm, 1e-6, weight)
    normed = reference.rms_norm(inputs.double(), norm.double(), 1e-6)
    assert_rows_near(out, normed @ dense(weight).T)


@pytest.mark.parametrize("width", [96, 3 * 256, 33 * 256])
def test_mlp(width: int) -> None:
    kind = "Q6_K" if width % 256 == 0 else "Q5_0"
    gate_up, down = random_packed("Q4_K", 2 * width, 256), random_packed(kind, 256, width, seed=1)
    hidden, norm = normal(3, 256), normal(256, seed=2) * 0.2
    out = layers.mlp(hidden, norm, 1e-6, gate_up, down)
    expected = reference.mlp(hidden.double(), norm.double(), 1e-6, dense(gate_up), dense(down))
    assert_rows_near(out, expected)


def dense_experts(weight: Packed | RowParts) -> torch.Tensor:
    parts = weight.parts if isinstance(weight, RowParts) else (weight,)
    return torch.cat(
        [
            torch.stack([dense(Packed(expert, part.format)) for expert in part.data])
            for part in parts
            if isinstance(part, Packed)
        ],
        1,
    )


@pytest.mark.parametrize("rows", [1, 2, 7, 16])
@pytest.mark.parametrize("experts", [4, 128])
@pytest.mark.parametrize("in_parts", [False, True])
def test_experts(rows: int, experts: int, in_parts: bool) -> None:
    size, width = 256, 96
    gate_up: Packed | RowParts = random_packed("Q4_K", experts, 2 * width, size, seed=1)
    if in_parts:
        gate = random_packed("Q5_K", experts, width, size, seed=2)
        gate_up = RowParts((gate, random_packed("Q4_K", experts, width, size, seed=3)))
    down = random_packed("Q5_0", experts, size, width, seed=4)
    hidden, norm = normal(rows, size), normal(size, seed=5) * 0.1
    expert_gate = normal(experts, size, seed=6)
    routing = expert_gate, gate_up, down, 3, True
    out = layers.experts(hidden, norm, 1e-6, *routing)
    plain = expert_gate.double(), dense_experts(gate_up), dense_experts(down), 3, True
    expected = reference.experts(hidden.double(), norm.double(), 1e-6, *plain)
    assert_rows_near(out, expected, 3 * ROW_ERROR)


def test_experts_it_does_not_take() -> None:
    gate_up, down = (
        random_packed("Q4_K", 4, 64, 256, seed=1),
        random_packed("Q5_0", 4, 256, 32, seed=2),
    )
    chosen, shares = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1)
    run = functools.partial(packed.experts, eps=0.0, chosen=chosen, shares=shares)
    norm = torch.ones(256)
    assert run(normal(1, 256), norm, gate_up=gate_up, down=down) is not None
    assert run(normal(1, 256).bfloat16(), norm, gate_up=gate_up, down=down) is None
    assert run(normal(1, 256), norm, gate_up=gate_up, down=torch.zeros(4, 256, 32).double()) is None


def test_what_it_does_not_take() -> None:
    weight = random_packed("Q8_0", 8, 64)
    assert packed.linear(normal(1, 64).double(), weight) is None
    assert packed.linear(normal(1, 64), weight, torch.float64) is None
    assert packed.linear(normal(1, 64), weight, norm=torch.ones(64).bfloat16()) is None
    strided = Packed(random_packed("Q8_0", 16, 64).data[::2], "Q8_0")
    assert packed.linear(normal(1, 64), strided) is None
    odd = Packed(random_packed("F16", 8, 40).data, "F16")
    assert packed.linear(normal(1, 40), odd) is None
