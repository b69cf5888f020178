"""Convert weights of a model to FP8 blocks, and back to the same numbers."""

from dataclasses import replace
from typing import Any

import torch

from hga_engine.model.types import LayerWeights, ModelWeights
from hga_kernels.weights import BlockScaled

LINEAR = ("qkv", "output", "gate_up", "down")


def quantized(weight: torch.Tensor) -> BlockScaled:
    """Quantise to FP8 with one scale per block of 128 x 128."""
    *lead, rows, columns = weight.shape
    blocks = weight.float().view(*lead, rows // 128, 128, columns // 128, 128)
    scales = blocks.abs().amax((-3, -1)) / 448
    values = blocks / scales[..., :, None, :, None]
    return BlockScaled(values.view(weight.shape).to(torch.float8_e4m3fn), scales)


def in_fp8(weights: ModelWeights) -> ModelWeights:
    """Quantise the linear weights of all layers."""

    def layer(plain: LayerWeights) -> LayerWeights:
        return replace(plain, **{name: quantized(getattr(plain, name)) for name in LINEAR})

    return replace(weights, layers=tuple(map(layer, weights.layers)))


def plain(weights: ModelWeights, dtype: torch.dtype = torch.float64) -> ModelWeights:
    """Return the same numbers on the CPU, with FP8 and packed weights dequantised."""

    def wide(tensor: Any) -> Any:
        if tensor is not None and not isinstance(tensor, torch.Tensor):
            return tensor.dequantize(dtype).cpu()
        return None if tensor is None else tensor.cpu().to(dtype)

    return ModelWeights(
        weights.config,
        wide(weights.embedding),
        tuple(
            LayerWeights(**{k: wide(v) for k, v in vars(layer).items()}) for layer in weights.layers
        ),
        wide(weights.final_norm),
        wide(weights.lm_head),
    )
