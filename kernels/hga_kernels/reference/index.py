"""The routing index in plain torch: chunk summaries and 2-bit token codes."""

import math
from typing import Literal

import torch

from hga_kernels.arguments import ChunkIndex
from hga_kernels.reference.model import widen as _wide

CODE_LEVELS = 4
"""A code is one of 0..3 and stands for (code - 1.5) quantisation steps."""
SLAB = 16
"""Tokens of a slab, the unit that codes for a CPU are interleaved by; a smaller chunk is one."""

Packing = Literal["slabs", "tokens"]
"""Memory layout of the codes: "slabs" for a CPU's byte dot products, "tokens" for a GPU."""


def hadamard(size: int, dtype: torch.dtype, device: torch.device | None = None) -> torch.Tensor:
    """Return the orthonormal, symmetric [size, size] Hadamard matrix (Sylvester's construction).

    Raises:
        ValueError: ``size`` is not a power of two.
    """
    if size < 1 or size & (size - 1):
        raise ValueError(f"a Hadamard matrix needs a power of two, not {size}")
    matrix = torch.ones(1, 1, dtype=dtype, device=device)
    while matrix.shape[0] < size:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix / math.sqrt(size)


def summarize(keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Average runs of keys to mixed-RoPE summaries (HGA, arXiv 2606.30709).

    RoPE frequencies that are fast over the length of a run average the keys as they are; slow ones
    average the keys rotated to the middle of the run. ``cos`` and ``sin`` hold that rotation for
    each position in the run and each frequency, with angle zero for fast ones.

    Args:
        keys: [kv_heads, runs * size, head_dim], after RoPE.
        cos: [size, head_dim / 2].
        sin: [size, head_dim / 2].

    Returns:
        [kv_heads, runs, head_dim], at least float32.
    """
    kv_heads, tokens, dim = keys.shape
    wide = _wide(keys).view(kv_heads, tokens // cos.shape[0], cos.shape[0], dim)
    first, second = wide[..., : dim // 2], wide[..., dim // 2 :]
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
    return rotated.mean(2)


def code_shape(chunk_size: int, head_dim: int, packing: Packing) -> tuple[int, ...]:
    """Return the shape of the token codes of one chunk, see ``encode_tokens``."""
    if packing == "tokens":
        return (chunk_size, head_dim // 4)
    slab = math.gcd(chunk_size, SLAB)
    return (chunk_size // slab, head_dim // 16, slab, 4)


def encode_tokens(
    keys: torch.Tensor, centres: torch.Tensor, packing: Packing = "slabs"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise the keys of whole chunks to 2-bit token codes.

    The centre of its chunk is subtracted from each key, and a Hadamard transform spreads outliers
    over all dimensions. Then each dimension is rounded to one of four levels. The scale of a token
    is the one with the least squared error.

    Args:
        keys: [kv_heads, chunks * chunk_size, head_dim], after RoPE.
        centres: [kv_heads, chunks, head_dim] summaries of the chunks.
        packing: memory layout of the codes.

    Returns:
        codes: uint8, four dimensions to a byte; bit pair i = 0..3 counts from the lowest. Packing
            "slabs": [kv_heads, chunks, chunk_size / SLAB, head_dim / 16, SLAB, 4] (a smaller chunk
            is one slab), where byte j of part m holds dimensions 16m + 4i + j. Packing "tokens":
            [kv_heads, chunks, chunk_size, head_dim / 4], where byte b holds dimensions b + i *
            head_dim / 4.
        scales: [kv_heads, chunks, chunk_size] bfloat16.
    """
    kv_heads, chunks, dim = centres.shape
    chunk_size = keys.shape[1] // chunks
    wide = _wide(keys).view(kv_heads, chunks, chunk_size, dim) - _wide(centres)[:, :, None]
    rotated = wide @ hadamard(dim, wide.dtype, wide.device)
    spread = rotated.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-30)
    levels = (rotated / spread + CODE_LEVELS // 2).floor().clamp(0, CODE_LEVELS - 1)
    steps = levels - (CODE_LEVELS - 1) / 2
    scales = (rotated * steps).sum(-1) / steps.square().sum(-1)
    # dim = 16 m + 4 i + j  ->  [m, i, j], or dim / 4 i + b  ->  [i, b]
    split = (dim // 16, 4, 4) if packing == "slabs" else (4, dim // 4)
    tokens = (-1, math.gcd(chunk_size, SLAB)) if packing == "slabs" else (chunk_size,)
    fields = levels.to(torch.uint8).view(kv_heads, chunks, *tokens, *split)
    codes = fields[..., 0, :].clone()
    for i in range(1, 4):
        codes |= fields[..., i, :] << (2 * i)
    if packing == "slabs":
        codes = codes.transpose(3, 4).contiguous()
    return codes, scales.to(torch.bfloat16)


def packing_of(codes: torch.Tensor, scales: torch.Tensor) -> Packing:
    """Tell the packing of codes by their shape and that of their scales."""
    return "slabs" if codes.dim() - scales.dim() == 3 else "tokens"


def decode_tokens(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Decode token codes to keys minus their centre, after the Hadamard transform.

    Args:
        codes: [..., tokens / SLAB, head_dim / 16, SLAB, 4] or [..., tokens, head_dim / 4], as from
            ``encode_tokens``.
        scales: [..., tokens].

    Returns:
        [..., tokens, head_dim] float32.
    """
    fields = torch.stack([(codes >> (2 * i)) & 3 for i in range(4)], -2)
    if packing_of(codes, scales) == "slabs":
        fields = fields.transpose(-4, -3)
    levels = fields.float() - (CODE_LEVELS - 1) / 2
    dim = levels.numel() // scales.numel()
    return levels.reshape(*scales.shape, dim) * scales.float().unsqueeze(-1)


def index_chunks(
    keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, entries: ChunkIndex
) -> None:
    """Write the summaries and token codes of whole chunks into an index.

    Args:
        keys: [kv_heads, chunks * chunk_size, head_dim], after RoPE.
        cos: [chunk_size, head_dim / 2], as for ``summarize``.
        sin: [chunk_size, head_dim / 2].
        entries: the part of the index that belongs to these chunks, overwritten; codes are packed
            as their shape says.
    """
    entries.summaries.copy_(summarize(keys, cos, sin))
    packing = packing_of(entries.codes, entries.scales)
    codes, scales = encode_tokens(keys, entries.summaries, packing)
    entries.codes.copy_(codes)
    entries.scales.copy_(scales)
