"""Weights that are stored as something other than a plain tensor."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from hga_kernels.gguf_blocks import FORMATS, from_planes, to_planes, unpack

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

    @property
    def tensors(self) -> Iterator[torch.Tensor]:
        """The tensors that hold the weight."""
        yield self.values
        yield self.scales

    def __getitem__(self, index: int) -> "BlockScaled":
        """Return one of the stacked weights."""
        return BlockScaled(self.values[index], self.scales[index])

    def dequantize(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight [..., out, in], multiplied in float32 and rounded once."""
        rows, columns = self.values.shape[-2:]
        scales = self.scales.repeat_interleave(FP8_BLOCK, -2)[..., :rows, :]
        scales = scales.repeat_interleave(FP8_BLOCK, -1)[..., :columns]
        return (self.values.float() * scales).to(dtype)


@dataclass(frozen=True)
class Packed:
    """Rows of quantised blocks, as a GGUF file stores them.

    A block holds consecutive weights of one row; ``gguf_blocks.FORMATS`` describes each format.
    """

    data: torch.Tensor  # [..., out, bytes of a row] uint8
    format: str
    """Name of the format in GGUF files, such as "Q4_K"."""
    is_planar: bool = False
    """Whether each matrix is stored as ``gguf_blocks.to_planes`` says, as GPU kernels want it. A
    row then has no bytes of its own."""

    @property
    def shape(self) -> torch.Size:
        """[..., out, in]."""
        block = FORMATS[self.format]
        *rows, size = self.data.shape
        return torch.Size((*rows, size // block.bytes * block.size))

    @property
    def tensors(self) -> Iterator[torch.Tensor]:
        """The tensors that hold the weight."""
        yield self.data

    def __getitem__(self, index: int) -> "Packed":
        """Return one of the stacked weights."""
        return Packed(self.data[index], self.format, self.is_planar)

    def dequantize(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight [..., out, in], unpacked in float32 and rounded once."""
        data = from_planes(self.data, self.format) if self.is_planar else self.data
        return unpack(data, self.format).to(dtype)

    def planar(self) -> "Packed":
        """Return the weight as GPU kernels want it, in the memory of this one."""
        if not self.is_planar:
            self.data.copy_(to_planes(self.data, self.format))
        return Packed(self.data, self.format, is_planar=True)


@dataclass(frozen=True)
class RowParts:
    """Weights of several formats, one below the other, as q, k and v of some GGUF files are."""

    parts: tuple["torch.Tensor | Packed", ...]
    """Each [..., rows of the part, in]."""

    @property
    def shape(self) -> torch.Size:
        """[..., out, in], all rows counted."""
        *stacked, _, columns = self.parts[0].shape
        return torch.Size((*stacked, sum(part.shape[-2] for part in self.parts), columns))

    @property
    def tensors(self) -> Iterator[torch.Tensor]:
        """The tensors that hold the weight."""
        for part in self.parts:
            if isinstance(part, Packed):
                yield part.data
            else:
                yield part

    def __getitem__(self, index: int) -> "RowParts":
        """Return one of the stacked weights."""
        return RowParts(tuple(part[index] for part in self.parts))

    def dequantize(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight [..., out, in], unpacked in float32 and rounded once."""
        return torch.cat([plain(part, dtype) for part in self.parts], -2)


Weight = torch.Tensor | BlockScaled | Packed | RowParts
"""A linear layer's weight [..., out, in]."""


def plain(weight: Weight, dtype: torch.dtype) -> torch.Tensor:
    """Return a weight [..., out, in] as a plain tensor of ``dtype``."""
    return weight.to(dtype) if isinstance(weight, torch.Tensor) else weight.dequantize(dtype)
