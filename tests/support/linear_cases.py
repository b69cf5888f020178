"""Inputs and weights for linear layers on the GPU, and the error of a result."""

import torch

from hga_kernels.weights import FP8_BLOCK, BlockScaled, Weight

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
    return random(*shape, seed=seed) if kind == "bf16" else block_scaled(*shape, seed=seed)


def moved(weight: Weight, device: torch.device) -> Weight:
    if isinstance(weight, BlockScaled):
        return BlockScaled(weight.values.to(device), weight.scales.to(device))
    return weight.to(device)


def wide(weight: Weight) -> torch.Tensor:
    return weight.dequantize(torch.float64) if isinstance(weight, BlockScaled) else weight.double()


def error(found: torch.Tensor | None, expected: torch.Tensor) -> float:
    assert found is not None
    found, expected = found.cpu().double(), expected.double()
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())
