"""Linear layers and row-wise kernels against their definitions in float64."""

from dataclasses import astuple

import pytest
import torch

from hga_kernels import FORMATS, Angles, HeadWeights, reference
from hga_kernels.weights import FP8_BLOCK
from tests.support.linear_cases import (
    BF16_ERROR,
    EPS,
    block_scaled,
    error,
    moved,
    random,
    weights,
    wide,
)

pytestmark = pytest.mark.usefixtures("poisoned", "few_programs")


@pytest.mark.parametrize("kind", ["bf16", "fp8"])
@pytest.mark.parametrize(
    ("rows", "size", "outputs"),
    [(1, 256, 40), (2, 96, 17), (3, 192, 130), (4, 2304, 9), (9, 160, 96), (70, 320, 200)],
)
def test_linear(kind: str, rows: int, size: int, outputs: int, device: torch.device) -> None:
    from hga_kernels.gpu.linear.linear import linear

    inputs, weight = random(rows, size, seed=rows), weights(kind, outputs, size, seed=size)
    residual = random(rows, outputs, seed=2)
    on_device = inputs.to(device), moved(weight, device)
    product = inputs.double() @ wide(weight).T
    out = linear(*on_device, torch.float32)
    assert out is not None
    assert out.dtype == torch.float32
    assert error(out, product) < 1e-5
    out = linear(*on_device, residual=residual.to(device))
    assert out is not None
    assert out.dtype == torch.bfloat16
    assert error(out, product + residual.double()) < BF16_ERROR


@pytest.mark.parametrize("kind", [name for name in FORMATS if name != "F16"])
@pytest.mark.parametrize(("rows", "blocks", "outputs"), [(1, 1, 9), (2, 3, 17), (4, 9, 5)])
def test_linear_of_a_few_rows_with_packed_weights(
    kind: str, rows: int, blocks: int, outputs: int, device: torch.device
) -> None:
    from hga_kernels.gpu.linear.linear import linear

    size = blocks * FORMATS[kind].size
    inputs, weight = random(rows, size, seed=rows), weights(kind, outputs, size, seed=blocks)
    residual = random(rows, outputs, seed=2).float() * 10
    out = linear(inputs.to(device), moved(weight, device), torch.float32, residual.to(device))
    assert out is not None
    assert out.dtype == torch.float32
    assert error(out, inputs.double() @ wide(weight).T + residual.double()) < 1e-4


@pytest.mark.parametrize("kind", ["Q4_K+Q6_K", "Q5_0+Q8_0"])
@pytest.mark.parametrize("rows", [1, 3, 7])
def test_norm_linear_of_row_parts_and_wide_rows(kind: str, rows: int, device: torch.device) -> None:
    from hga_kernels.gpu.linear.linear import norm_linear

    inputs, norm = random(rows, 2304, seed=rows).float() * 5, random(2304, seed=1).float()
    weight = weights(kind, 22, 2304)
    out = norm_linear(inputs.to(device), norm.to(device), EPS, moved(weight, device))
    assert out is not None
    assert out.dtype == torch.float32
    normed = reference.rms_norm(inputs.double(), norm.double(), EPS)
    # Many rows and their weights are rounded to bf16, a few rows to 16 bits.
    assert error(out, normed @ wide(weight).T) < (1.5 * BF16_ERROR if rows > 4 else 4e-5)


@pytest.mark.parametrize("kind", ["bf16", "fp8"])
@pytest.mark.parametrize(
    ("rows", "size", "outputs"), [(1, 128, 21), (4, 96, 17), (2, 2304, 5), (9, 160, 96)]
)
def test_norm_linear(kind: str, rows: int, size: int, outputs: int, device: torch.device) -> None:
    from hga_kernels.gpu.linear.linear import norm_linear

    inputs, norm = random(rows, size, seed=rows) * 5, random(size, seed=1)
    weight = weights(kind, outputs, size, seed=size)
    normed = reference.rms_norm(inputs, norm, EPS).double()
    out = norm_linear(inputs.to(device), norm.to(device), EPS, moved(weight, device), torch.float32)
    # The norm is rounded as in the definition; a few of its last bits may differ.
    assert error(out, normed @ wide(weight).T) < 2e-4


def test_rows_alone_and_among_others(device: torch.device) -> None:
    from hga_kernels.gpu.linear.linear import norm_linear

    inputs, norm = random(4, 160).to(device), random(160, seed=1).to(device)
    weight = moved(block_scaled(30, 160), device)
    among = norm_linear(inputs, norm, EPS, weight)
    alone = norm_linear(inputs[2:3], norm, EPS, weight)
    assert among is not None
    assert alone is not None
    assert torch.equal(among[2:3], alone)


def test_quantized_rows(device: torch.device) -> None:
    from hga_kernels.gpu.linear.norm import quantize

    inputs = random(3, 200)
    inputs[1, :128] = 0
    values, scales = quantize(inputs.to(device))
    _, expected = reference.quantize(inputs)
    torch.testing.assert_close(scales.cpu(), expected)
    back = values.cpu().double() * scales.cpu().double().repeat_interleave(128, 1)[:, :200]
    # The interpreter cuts e4m3 off where a GPU rounds to the nearest.
    assert error(back, inputs) < (0.07 if device.type == "cpu" else 0.035)


@pytest.fixture
def quantizing(monkeypatch: pytest.MonkeyPatch) -> None:
    from hga_kernels.gpu.linear import gemm

    for target in gemm.QUANTIZE:
        monkeypatch.setitem(gemm.QUANTIZE, target, True)


@pytest.mark.usefixtures("quantizing")
@pytest.mark.parametrize(("rows", "size", "outputs"), [(9, 160, 96), (70, 256, 130)])
def test_linear_of_rows_in_e4m3(rows: int, size: int, outputs: int, device: torch.device) -> None:
    from hga_kernels.gpu.linear.linear import linear

    inputs, weight = random(rows, size, seed=rows), block_scaled(outputs, size)
    out = linear(inputs.to(device), moved(weight, device), torch.float32)
    values, scales = reference.quantize(inputs)
    rounded = values.double() * scales.repeat_interleave(FP8_BLOCK, 1)[:, :size]
    # See above: the interpreter cuts off; tensor cores add products of e4m3 in 14 bits.
    assert error(out, rounded @ wide(weight).T) < (0.08 if device.type == "cpu" else 8e-3)
    assert error(out, inputs.double() @ wide(weight).T) > 0.01


@pytest.mark.parametrize(("rows", "size"), [(1, 96), (7, 2048)])
def test_rms_norm(rows: int, size: int, device: torch.device) -> None:
    from hga_kernels.gpu.linear.norm import rms_norm

    inputs, norm = random(rows, size), random(size, seed=1)
    out = rms_norm(inputs.to(device), norm.to(device), EPS)
    assert error(out, reference.rms_norm(inputs, norm, EPS)) < 2e-4


@pytest.mark.parametrize("biased", [(False, False), (True, True), (True, False)])
@pytest.mark.parametrize("normed", [(False, False), (True, True), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("rows", "queries", "keys", "dim"), [(1, 8, 2, 128), (19, 3, 1, 64), (3, 6, 2, 24)]
)
def test_split_heads(
    rows: int,
    queries: int,
    keys: int,
    dim: int,
    normed: tuple[bool, bool],
    biased: tuple[bool, bool],
    device: torch.device,
) -> None:
    from hga_kernels.gpu.linear.norm import split_heads

    heads = random(rows, (queries + 2 * keys) * dim, seed=rows)
    radians = torch.rand(rows, dim // 2, generator=torch.Generator().manual_seed(1)) * 7
    weights = HeadWeights(
        random(dim, seed=0) if normed[0] else None,
        random(dim, seed=1) if normed[1] else None,
        EPS,
        random((queries + 2 * keys) * dim, seed=2).float() if biased[0] else None,
        random(keys, dim, seed=3).float() if biased[1] else None,
    )
    on_device = HeadWeights(
        *(v.to(device) if isinstance(v, torch.Tensor) else v for v in astuple(weights))
    )
    found = split_heads(
        heads.to(device),
        on_device,
        Angles(radians.cos().to(device), radians.sin().to(device)),
        queries,
        keys,
    )
    angles = Angles(radians.cos(), radians.sin())
    expected = reference.split_heads(heads, weights, angles, queries, keys)
    assert found is not None
    for own, wanted in zip(found, expected, strict=True):
        assert own.is_contiguous()
        assert error(own, wanted) < 5e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_split_heads_of_wide_rows(dtype: torch.dtype, biased: bool, device: torch.device) -> None:
    from hga_kernels.gpu.linear.norm import split_heads

    generator = torch.Generator().manual_seed(4)
    heads = torch.randn(19, 8 * 64, generator=generator) * 5
    radians = torch.rand(19, 32, generator=generator) * 7
    weights = HeadWeights(
        torch.rand(64, generator=generator) + 0.5,
        torch.rand(64, generator=generator) + 0.5,
        EPS,
        torch.randn(8 * 64, generator=generator) if biased else None,
    )
    on_device = HeadWeights(
        *(v.to(device) if isinstance(v, torch.Tensor) else v for v in astuple(weights))
    )
    on_gpu = Angles(radians.cos().to(device), radians.sin().to(device))
    found = split_heads(heads.to(device), on_device, on_gpu, 4, 2, dtype)
    angles = Angles(radians.double().cos(), radians.double().sin())
    in_float64 = HeadWeights(
        *(v.double() if isinstance(v, torch.Tensor) else v for v in astuple(weights))
    )
    expected = reference.split_heads(heads.double(), in_float64, angles, 4, 2)
    assert found is not None
    for own, wanted in zip(found, expected, strict=True):
        assert own.dtype == dtype
        # Rounded once, if at all.
        assert error(own, wanted) < (1e-6 if dtype == torch.float32 else BF16_ERROR)


def test_what_kernels_do_not_take(device: torch.device) -> None:
    from hga_kernels.gpu.linear.linear import linear
    from hga_kernels.gpu.linear.norm import split_heads

    inputs, weight = random(2, 32).to(device), random(8, 32).to(device)
    assert linear(inputs.float(), weight.float()) is None
    assert linear(inputs, weight.float()) is None
    assert linear(inputs, random(32, 8).to(device).T) is None
    zeros = torch.zeros(2, 2, device=device)
    heads = random(2, 3 * 4).to(device)
    no_weights = HeadWeights(None, None, EPS)
    assert split_heads(heads.double(), no_weights, Angles(zeros, zeros), 1, 1) is None
