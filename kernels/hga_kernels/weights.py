"""Weights that consist of more than one tensor."""

from dataclasses import dataclass

import torch

FP8_BLOCK = 128
"""Rows and columns per scale in the FP8 checkpoints of DeepSeek-V3 and Qwen3."""


@dataclass(frozen=True)
class BlockScaled:
    """FP8 weights with one scale per block of 128 x 128 (``weight_scale_inv`` of a checkpoint).

    The weight is ``values`` times the scale of the block. Leading dimensions, such as those of
    stacked experts, are the same in both tensors.
    """

    values: torch.Tensor  # [..., out, in] float8_e4m3fn
    scales: torch.Tensor  # [..., ceil(out / 128), ceil(in / 128)] float32

    @property
    def shape(self) -> torch.Size:
        """[..., out, in]."""
        return self.values.shape

    def __getitem__(self, index: int) -> "BlockScaled":
        """Return one of the stacked weights."""
        return BlockScaled(self.values[index], self.scales[index])

    def dequantize(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight [..., out, in], multiplied in float32 and rounded once."""
        rows, columns = self.values.shape[-2:]
        scales = self.scales.repeat_interleave(FP8_BLOCK, -2)[..., :rows, :]
        scales = scales.repeat_interleave(FP8_BLOCK, -1)[..., :columns]
        return (self.values.float() * scales).to(dtype)


Weight = torch.Tensor | BlockScaled
"""A linear layer's weight [..., out, in]."""
