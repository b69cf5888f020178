"""Products of many rows with packed weights in C against the ``gguf`` library's dequantisation.

Expected values are computed in float64. All memory that the wrappers allocate is filled with NaN
or 123 first, so that unwritten places show.
"""

import gguf
import pytest
import torch

from hga_kernels import FORMATS, Packed, RowParts, cpu, reference
from hga_kernels.cpu import layers, library
from tests.support.packed_weights import random_packed

pytestmark = pytest.mark.usefixtures("compiled")

ERROR = 7e-4
"""Largest error of a row, in root mean squares of products of numbers of those sizes and of random
signs. Both factors rounded to bf16 give 2e-3, inputs of bytes 5e-3."""

BF16_ERROR = 1e-2
"""Largest error of a row's norm where factors and products are rounded to bf16."""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dense(weight: Packed) -> torch.Tensor:
    kind = gguf.GGMLQuantizationType[weight.format]
    return torch.from_numpy(gguf.dequantize(weight.data.numpy(), kind)).double()


def assert_product(
    found: torch.Tensor | None,
    inputs: torch.Tensor,
    rows: torch.Tensor,
    added: torch.Tensor | float = 0.0,
) -> None:
    """Assert that ``found`` is near ``inputs @ rows.T + added``."""
    assert found is not None
    expected = inputs.double() @ rows.double().T + added
    assert found.shape == expected.shape
    size = inputs.double().norm(dim=1) * rows.double().norm() / inputs.shape[1] ** 0.5
    errors = (found.double() - expected).norm(dim=1) / size
    assert errors.max() < ERROR, errors


def columns_of(name: str) -> list[int]:
    return [256, 3 * 256, 35 * 256] if FORMATS[name].size == 256 else [32, 896, 1056]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rows", [17, 64, 100, 257])
def test_every_format(name: str, rows: int) -> None:
    for columns in columns_of(name):
        weight, inputs = random_packed(name, 101, columns, seed=columns), normal(rows, columns)
        inputs[:, 3] = 15
        out = cpu.linear(inputs, weight)
        assert_product(out, inputs, dense(weight))


def test_more_rows_than_an_item_has() -> None:
    weight, inputs = random_packed("Q4_K", 50, 512), normal(2 * 1024 + 5, 512)
    assert_product(cpu.linear(inputs, weight), inputs, dense(weight))


@pytest.mark.parametrize("name", FORMATS)
def test_sums_of_equal_signs_do_not_overflow(name: str) -> None:
    weight = random_packed(name, 48, 256)
    rows = dense(weight)
    # Inputs in the direction of a weight have the largest product that their norms allow.
    inputs = rows.float() * 1e3
    assert_product(cpu.linear(inputs, weight), inputs, rows)


def test_inputs_of_every_size() -> None:
    weight = random_packed("Q4_K", 20, 512)
    inputs = normal(20, 512) * torch.logspace(-30, 30, 20)[:, None]
    assert_product(cpu.linear(inputs, weight), inputs, dense(weight))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows(value: float) -> None:
    inputs = normal(20, 512)
    inputs[18, 300] = value
    out = cpu.linear(inputs, random_packed("Q6_K", 8, 512))
    assert out is not None
    assert out[torch.arange(20) != 18].isfinite().all()
    assert not out[18].isfinite().any()


def test_zeros() -> None:
    weight = random_packed("Q4_K", 8, 256)
    out = cpu.linear(torch.zeros(17, 256), weight)
    assert out is not None
    assert (out == 0).all()
    weight.data[3] = 0
    out = cpu.linear(normal(17, 256), weight)
    assert out is not None
    assert (out[:, 3] == 0).all()


def test_parts_of_several_formats() -> None:
    q, v = random_packed("Q4_K", 70, 768), random_packed("Q6_K", 33, 768, seed=1)
    plain = [normal(5, 768, seed=2).to(dtype) for dtype in (torch.float32, torch.bfloat16)]
    inputs = normal(40, 768)
    out = cpu.linear(inputs, RowParts((q, v, *plain)))
    rows = torch.cat([dense(q), dense(v), *(part.double() for part in plain)])
    assert_product(out, inputs, rows)


def test_residual_and_rows_that_are_not_contiguous() -> None:
    weight, inputs = random_packed("Q5_K", 40, 256), normal(24, 600)[:, :256]
    residual = normal(24, 80, seed=1)[:, 40:] * 100
    out = cpu.linear(inputs, weight, residual=residual)
    assert_product(out, inputs, dense(weight), residual.double())


def test_bf16_in_and_out() -> None:
    weight, inputs = random_packed("Q4_K", 40, 256), normal(30, 256).bfloat16()
    assert_product(cpu.linear(inputs, weight, torch.float32), inputs, dense(weight))
    expected = inputs.double() @ dense(weight).T
    residual = normal(30, 40, seed=1).bfloat16()
    out = cpu.linear(inputs, weight, residual=residual)
    assert out is not None
    assert out.dtype == torch.bfloat16
    expected = expected + residual.double()
    assert (out - expected).norm() < 2**-8 * expected.norm()


def test_norm_goes_first() -> None:
    weight, inputs, norm = random_packed("Q4_K", 40, 768), normal(50, 768) * 3, normal(768, seed=1)
    out = layers.norm_linear(inputs, norm, 1e-6, weight)
    normed = reference.rms_norm(inputs.double(), norm.double(), 1e-6)
    assert_product(out, normed, dense(weight))


def assert_mlp(
    rows: int,
    gate_up: Packed | RowParts,
    down: Packed,
    kinds: list[Packed],
    error: float = 5 * ERROR,
) -> None:
    hidden, norm = normal(rows, 256), normal(256, seed=2) * 0.2
    out = layers.mlp(hidden, norm, 1e-6, gate_up, down)
    normed = reference.rms_norm(hidden.double(), norm.double(), 1e-6)
    products = normed @ torch.cat([dense(part) for part in kinds]).T
    expected = hidden + reference.gated_silu(products) @ dense(down).T
    assert out.shape == expected.shape
    assert ((out - expected).norm(dim=1) / expected.norm(dim=1)).max() < error


@pytest.mark.parametrize("width", [96, 3 * 256, 33 * 256])
def test_mlp(width: int) -> None:
    gate_up = random_packed("Q4_K", 2 * width, 256)
    down = random_packed("Q6_K" if width % 256 == 0 else "Q5_0", 256, width, seed=1)
    assert_mlp(70, gate_up, down, [gate_up])


def test_mlp_of_several_formats() -> None:
    gate, up = random_packed("Q4_K", 96, 256), random_packed("Q6_K", 96, 256, seed=1)
    down = random_packed("Q8_0", 256, 96, seed=2)
    assert_mlp(40, RowParts((gate, up)), down, [gate, up])
    # Three parts cannot be told into gates and ups.
    ups = [Packed(rows, "Q6_K") for rows in up.data.split([40, 56])]
    assert_mlp(40, RowParts((gate, *ups)), down, [gate, up])


def assert_experts(rows: int, has_parts: bool, error: float = 5 * ERROR) -> None:
    # Expert 1 gets no row; with 1,100 rows the others need several calls.
    number, width, best = 9, 96, 4
    gate, up = (
        random_packed("Q4_K", number, width, 256),
        random_packed("Q5_K", number, width, 256, seed=1),
    )
    gate_up = (
        RowParts((gate, up)) if has_parts else random_packed("Q4_K", number, 2 * width, 256, seed=3)
    )
    down = random_packed("Q8_0", number, 256, width, seed=2)
    hidden, norm = normal(rows, 256).abs(), normal(256, seed=4).abs() * 0.2
    expert_gate = normal(number, 256, seed=5)
    expert_gate[1] = -10
    out = layers.experts(hidden, norm, 1e-6, expert_gate, gate_up, down, best, True)
    dense_gate_up = torch.stack(
        [
            torch.cat([dense(part[i]) for part in ((gate, up) if has_parts else (gate_up,))])
            for i in range(number)
        ]
    )
    dense_down = torch.stack([dense(down[i]) for i in range(number)])
    double = hidden.double(), norm.double(), 1e-6, expert_gate.double()
    expected = reference.experts(*double, dense_gate_up, dense_down, best, True)
    assert out.shape == expected.shape
    assert ((out - expected).norm(dim=1) / expected.norm(dim=1)).max() < error


@pytest.mark.parametrize("rows", [17, 300, 1100])
@pytest.mark.parametrize("has_parts", [False, True])
def test_experts(rows: int, has_parts: bool) -> None:
    assert_experts(rows, has_parts)


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "has_amx", lambda: True)


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize("name", FORMATS)
def test_weights_in_bf16(name: str) -> None:
    for columns in columns_of(name):
        weight, inputs = random_packed(name, 37, columns, seed=columns), normal(64, columns)
        out = cpu.linear(inputs, weight)
        assert out is not None
        # The factors are those of the product: exact, but for the result's rounding.
        expected = inputs.bfloat16().double() @ dense(weight).bfloat16().double().T
        assert ((out - expected).norm(dim=1) / expected.norm(dim=1)).max() < 2**-8


@pytest.mark.usefixtures("amx")
def test_parts_norm_and_residual_in_bf16() -> None:
    parts = random_packed("Q4_K", 1100, 256), random_packed("Q6_K", 33, 256, seed=1)
    plain = normal(5, 256, seed=2)
    inputs, norm, residual = normal(70, 256), normal(256, seed=1), normal(70, 1138, seed=3) * 50
    after_norm = layers.norm_linear(inputs, norm, 1e-6, RowParts((*parts, plain)))
    rows = torch.cat([*(dense(part) for part in parts), plain.double()])
    normed = reference.rms_norm(inputs.double(), norm.double(), 1e-6)
    expected = normed @ rows.T
    assert ((after_norm - expected).norm(dim=1) / expected.norm(dim=1)).max() < BF16_ERROR
    out = cpu.linear(inputs, RowParts((*parts, plain)), residual=residual)
    assert out is not None
    expected = residual + inputs.double() @ rows.T
    assert ((out - expected).norm(dim=1) / expected.norm(dim=1)).max() < BF16_ERROR


@pytest.mark.usefixtures("amx")
def test_mlp_and_experts_in_bf16() -> None:
    gate_up, down = random_packed("Q4_K", 192, 256), random_packed("Q5_0", 256, 96, seed=1)
    assert_mlp(70, gate_up, down, [gate_up], 2 * BF16_ERROR)
    assert_experts(300, True, 2 * BF16_ERROR)
