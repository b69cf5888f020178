"""The block formats of GGUF files, unpacked in plain torch.

Layouts are those of ggml (``ggml-common.h`` of llama.cpp). A block holds consecutive weights of one
row. In the K formats a block of 256 is made of sub-blocks with scales of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

Unpack = Callable[[torch.Tensor], torch.Tensor]
"""[..., bytes of a block] uint8 to [..., weights of a block] float32."""


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """How many weights a block holds, in how many bytes, and how to unpack them."""

    size: int
    bytes: int
    unpack: Unpack
    fields: tuple[int, ...]
    """Bytes of the fields of a block, in their order: quants, scales, and so on."""

    @property
    def planes(self) -> tuple[tuple[int, int], ...]:
        """Offset in a block and bytes of its fields, in the order of ``to_planes``."""
        offsets = (sum(self.fields[:n]) for n in range(len(self.fields)))
        return tuple(sorted(zip(offsets, self.fields, strict=True), key=lambda f: -f[1]))


def _half(raw: torch.Tensor) -> torch.Tensor:
    """Return [..., n] float32 of [..., 2 n] bytes of float16."""
    return raw.contiguous().view(torch.float16).float()


def _nibbles(raw: torch.Tensor) -> torch.Tensor:
    """Return [..., 2 n] int32: the low halves of n bytes, then the high halves."""
    return torch.cat((raw & 15, raw >> 4), -1).int()


def _bits(raw: torch.Tensor, width: int) -> torch.Tensor:
    """Return [..., 8 / width, n] int32: the fields of n bytes, lowest first."""
    shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=raw.device)
    fields: torch.Tensor = (raw[..., None, :] >> shifts[:, None]) & (2**width - 1)
    return fields.int()


def _fifth_bits(raw: torch.Tensor) -> torch.Tensor:
    """Return [..., 32] int32, 0 or 16: bit i of four bytes belongs to weight i."""
    return _bits(raw, 1).transpose(-1, -2).flatten(-2) * 16


def _q4_0(raw: torch.Tensor) -> torch.Tensor:
    return _half(raw[..., :2]) * (_nibbles(raw[..., 2:]) - 8)


def _q4_1(raw: torch.Tensor) -> torch.Tensor:
    return _half(raw[..., :2]) * _nibbles(raw[..., 4:]) + _half(raw[..., 2:4])


def _q5_0(raw: torch.Tensor) -> torch.Tensor:
    values = _nibbles(raw[..., 6:]) + _fifth_bits(raw[..., 2:6])
    return _half(raw[..., :2]) * (values - 16)


def _q5_1(raw: torch.Tensor) -> torch.Tensor:
    values = _nibbles(raw[..., 8:]) + _fifth_bits(raw[..., 4:8])
    return _half(raw[..., :2]) * values + _half(raw[..., 2:4])


def _q8_0(raw: torch.Tensor) -> torch.Tensor:
    return _half(raw[..., :2]) * raw[..., 2:].contiguous().view(torch.int8)


def _sub_blocks(scales: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the products of scales [..., n] and values [..., n * size], flat as the values."""
    products: torch.Tensor = scales[..., None] * values.unflatten(-1, (scales.shape[-1], -1))
    return products.flatten(-2)


def _scales_and_minima(raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the eight scales and minima [..., 8] of 6 bits that Q4_K and Q5_K pack in 12 bytes."""
    low, middle, high = raw[..., :4], raw[..., 4:8], raw[..., 8:]
    scales = torch.cat((low & 63, (high & 15) | (low >> 6) << 4), -1)
    minima = torch.cat((middle & 63, (high >> 4) | (middle >> 6) << 4), -1)
    return scales, minima


def _with_minima(raw: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Scale the values of Q4_K and Q5_K: the header of a block is d, dmin and their factors."""
    scales, minima = _scales_and_minima(raw[..., 4:16])
    shift = (_half(raw[..., 2:4]) * minima).repeat_interleave(32, -1)
    return _sub_blocks(_half(raw[..., :2]) * scales, values) - shift


def _q2_k(raw: torch.Tensor) -> torch.Tensor:
    factors = raw[..., :16]
    # Two halves of 128 weights; each byte of a half holds weights that are 32 apart.
    values = _bits(raw[..., 16:80].unflatten(-1, (2, 32)), 2).flatten(-3)
    shift = (_half(raw[..., 82:84]) * (factors >> 4)).repeat_interleave(16, -1)
    return _sub_blocks(_half(raw[..., 80:82]) * (factors & 15), values) - shift


def _q3_k(raw: torch.Tensor) -> torch.Tensor:
    high = _bits(raw[..., :32], 1).flatten(-2)
    values = _bits(raw[..., 32:96].unflatten(-1, (2, 32)), 2).flatten(-3)
    packed = raw[..., 96:108]
    low = torch.cat((packed[..., :8] & 15, packed[..., :8] >> 4), -1).int()
    scales = low | _bits(packed[..., 8:], 2).flatten(-2) << 4
    return _sub_blocks(_half(raw[..., 108:]) * (scales - 32), values - 4 * (1 - high))


def _q4_k(raw: torch.Tensor) -> torch.Tensor:
    return _with_minima(raw, _bits(raw[..., 16:].unflatten(-1, (4, 32)), 4).flatten(-3))


def _q5_k(raw: torch.Tensor) -> torch.Tensor:
    high = _bits(raw[..., 16:48], 1).flatten(-2)
    low = _bits(raw[..., 48:].unflatten(-1, (4, 32)), 4).flatten(-3)
    return _with_minima(raw, low + 16 * high)


def _q6_k(raw: torch.Tensor) -> torch.Tensor:
    low = _bits(raw[..., :128].unflatten(-1, (2, 64)), 4).flatten(-3)
    high = _bits(raw[..., 128:192].unflatten(-1, (2, 32)), 2).flatten(-3)
    scales = raw[..., 192:208].contiguous().view(torch.int8)
    return _sub_blocks(_half(raw[..., 208:]) * scales, low + 16 * high - 32)


IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""What the 4-bit numbers of IQ4_NL and IQ4_XS stand for."""


def _iq4(nibbles: torch.Tensor) -> torch.Tensor:
    return torch.tensor(IQ4_VALUES, dtype=torch.int32, device=nibbles.device)[nibbles]


def _iq4_nl(raw: torch.Tensor) -> torch.Tensor:
    return _half(raw[..., :2]) * _iq4(_nibbles(raw[..., 2:]))


def _iq4_xs(raw: torch.Tensor) -> torch.Tensor:
    low = _bits(raw[..., 4:8], 4).transpose(-1, -2).flatten(-2)
    high = _bits(raw[..., 2:4], 2).transpose(-1, -2).flatten(-2)
    values = _iq4(_nibbles(raw[..., 8:].unflatten(-1, (8, 16)))).flatten(-2)
    return _sub_blocks(_half(raw[..., :2]) * ((low | high << 4) - 32), values)


FORMATS = {
    "F16": BlockFormat(1, 2, _half, (2,)),
    "Q4_0": BlockFormat(32, 18, _q4_0, (2, 16)),
    "Q4_1": BlockFormat(32, 20, _q4_1, (4, 16)),
    "Q5_0": BlockFormat(32, 22, _q5_0, (2, 4, 16)),
    "Q5_1": BlockFormat(32, 24, _q5_1, (4, 4, 16)),
    "Q8_0": BlockFormat(32, 34, _q8_0, (2, 32)),
    "Q2_K": BlockFormat(256, 84, _q2_k, (16, 64, 4)),
    "Q3_K": BlockFormat(256, 110, _q3_k, (32, 64, 12, 2)),
    "Q4_K": BlockFormat(256, 144, _q4_k, (16, 128)),
    "Q5_K": BlockFormat(256, 176, _q5_k, (16, 32, 128)),
    "Q6_K": BlockFormat(256, 210, _q6_k, (128, 64, 16, 2)),
    "IQ4_NL": BlockFormat(32, 18, _iq4_nl, (2, 16)),
    "IQ4_XS": BlockFormat(256, 136, _iq4_xs, (8, 128)),
}
"""By their names in GGUF files."""


def unpack(data: torch.Tensor, name: str) -> torch.Tensor:
    """Return the weights [..., columns] float32 of packed rows [..., bytes] uint8."""
    block = FORMATS[name]
    return block.unpack(data.unflatten(-1, (-1, block.bytes))).flatten(-2)


def to_planes(data: torch.Tensor, name: str) -> torch.Tensor:
    """Put the fields of all blocks of a matrix together, the largest fields first.

    A GPU reads 16 bytes per thread at addresses that are multiples of 16. Blocks of most formats
    begin anywhere; the planes of their large fields do not.

    Args:
        data: [..., rows, bytes of a row] uint8: matrices of packed rows.
        name: of the format.

    Returns:
        The same number of bytes in the same shape, in new memory: each matrix holds one plane
        [blocks, bytes of the field] per field.
    """
    block = FORMATS[name]
    blocks = data.flatten(-2).unflatten(-1, (-1, block.bytes))
    planes = torch.empty_like(data, memory_format=torch.contiguous_format)
    matrix, first = planes.flatten(-2), 0
    for start, size in block.planes:
        end = first + blocks.shape[-2] * size
        plane = matrix[..., first:end].unflatten(-1, (-1, size))
        plane.copy_(blocks[..., start : start + size])
        first = end
    return planes


def from_planes(data: torch.Tensor, name: str) -> torch.Tensor:
    """Undo ``to_planes``."""
    block = FORMATS[name]
    matrix = data.flatten(-2)
    count = matrix.shape[-1] // block.bytes
    blocks = matrix.new_empty(*matrix.shape[:-1], count, block.bytes)
    first = 0
    for start, size in block.planes:
        plane = matrix[..., first : first + count * size]
        blocks[..., start : start + size] = plane.unflatten(-1, (count, size))
        first += count * size
    return blocks.view(data.shape)
