"""Inputs and weights for linear layers on the GPU, and the error of a result."""

from dataclasses import replace
from typing import Any

import torch

from hga_kernels.weights import FP8_BLOCK, BlockScaled, Packed, RowParts, Weight, plain
from tests.support.packed_weights import random_packed

EPS = 1e-5
BF16_ERROR = 3e-3
"""Relative error of a tensor that is rounded once to bf16."""


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).bfloat16()


def block_scaled(*shape: int, seed: int = 0) -> BlockScaled:
    """e4m3 values up to 448 and scales between 0.001 and 0.01."""
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(*shape, generator=generator) * 100).clamp(-448, 448)
    blocks = (*shape[:-2], -(-shape[-2] // FP8_BLOCK), -(-shape[-1] // FP8_BLOCK))
    scales = torch.rand(blocks, generator=generator) * 0.009 + 0.001
    return BlockScaled(values.to(torch.float8_e4m3fn), scales)


def weights(kind: str, *shape: int, seed: int = 0) -> Weight:
    """Random weights: "bf16", "fp8", a block format, or two of them, A+B, one below the other."""
    if kind == "bf16":
        return random(*shape, seed=seed)
    if kind == "fp8":
        return block_scaled(*shape, seed=seed)
    if "+" not in kind:
        return random_packed(kind, *shape, seed=seed)
    first, second = kind.split("+")
    *experts, rows, columns = shape
    above = rows * 3 // 4
    return RowParts(
        (
            random_packed(first, *experts, above, columns, seed=seed),
            random_packed(second, *experts, rows - above, columns, seed=seed + 1),
        )
    )


def moved(weight: Any, device: torch.device) -> Any:
    if isinstance(weight, BlockScaled):
        return BlockScaled(weight.values.to(device), weight.scales.to(device))
    if isinstance(weight, Packed):
        return replace(weight, data=weight.data.to(device, copy=True)).planar()
    if isinstance(weight, RowParts):
        return RowParts(tuple(moved(part, device) for part in weight.parts))
    return weight.to(device)


def wide(weight: Weight) -> torch.Tensor:
    return plain(weight, torch.float64)


def error(found: torch.Tensor | None, expected: torch.Tensor) -> float:
    assert found is not None
    found, expected = found.cpu().double(), expected.double()
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())
