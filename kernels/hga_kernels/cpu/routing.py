"""Routed attention in C: the index, selection, attention over pages.

Each function has the signature of its namesake in ``reference``, which describes it, and returns
None for tensors it does not take.
"""

import math

import torch

from hga_kernels.arguments import CHUNK, Budget, ChunkIndex, ChunkRange
from hga_kernels.cpu.library import call, takes
from hga_kernels.reference.index import Packing, code_shape

PAGE_TOKENS = 2
_GROUP_SIZES = (2, 16)


def summarize(keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor | None:
    """Take one pass over the keys."""
    if not takes(torch.bfloat16, keys) or not takes(torch.float32, cos, sin):
        return None
    kv_heads, tokens, dim = keys.shape
    size = cos.shape[0]
    out = torch.empty(kv_heads, tokens // size, dim)
    keys, cos, sin = keys.contiguous(), cos.contiguous(), sin.contiguous()
    call("hga_summarize", keys, cos, sin, out, kv_heads * tokens // size, size, dim)
    return out


def encode_tokens(
    keys: torch.Tensor, centres: torch.Tensor, packing: Packing = "slabs"
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Take one pass over the keys."""
    kv_heads, chunks, dim = centres.shape
    if packing != "slabs" or not takes(torch.bfloat16, keys, centres):
        return None
    if not can_be_coded(dim) or keys.shape[1] != chunks * CHUNK:
        return None
    shape = (kv_heads, chunks, *code_shape(CHUNK, dim, packing))
    codes = torch.empty(shape, dtype=torch.uint8)
    scales = torch.empty(kv_heads, chunks, CHUNK, dtype=torch.bfloat16)
    keys, centres = keys.contiguous(), centres.contiguous()
    call("hga_encode_tokens", keys, centres, codes, scales, kv_heads * chunks, dim)
    return codes, scales


def index_chunks(
    keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, entries: ChunkIndex
) -> bool | None:
    """Take two passes over the keys."""
    means = summarize(keys, cos, sin)
    if means is None or entries.codes.dim() != 6:
        return None
    centres = means.to(entries.summaries.dtype)
    found = encode_tokens(keys, centres)
    if found is None:
        return None
    entries.summaries.copy_(centres)
    entries.codes.copy_(found[0])
    entries.scales.copy_(found[1])
    return True


def select_groups(
    queries: torch.Tensor,
    index: ChunkIndex,
    chunks: ChunkRange,
    budget: Budget,
    scale: float = 1.0,
    window_lse: torch.Tensor | None = None,
    layer: int = 0,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Score tokens by byte products of 8-bit queries and 2-bit codes."""
    kv_heads, blocks, rows, dim = queries.shape
    summaries, codes, scales = index.summaries, index.codes, index.scales
    if not takes(queries.dtype, queries) or queries.dtype == torch.float64:
        return None
    if not takes(torch.bfloat16, summaries, scales):
        return None
    if not can_be_coded(dim) or budget.group_size not in _GROUP_SIZES:
        return None
    if codes.shape[2:] != code_shape(CHUNK, dim, "slabs"):
        return None
    if not (codes.is_contiguous() and scales.is_contiguous() and summaries.is_contiguous()):
        return None
    last, per_chunk = chunks.bound(), CHUNK // budget.group_size
    queries = queries.float() * scale
    count = min(budget.groups, max(last - chunks.first, 0) * per_chunk)
    groups = torch.empty(blocks, kv_heads, count, dtype=torch.int32)
    importance = torch.empty(blocks, kv_heads, count)
    counts = torch.zeros(blocks, kv_heads, dtype=torch.int32)
    if count:
        call(
            "hga_select_groups",
            queries.contiguous(),
            summaries,
            codes,
            scales,
            chunks.ends.to(torch.int32).contiguous(),
            None if window_lse is None else window_lse.float().contiguous(),
            groups,
            importance,
            counts,
            blocks,
            kv_heads,
            rows,
            dim,
            codes.shape[1],
            chunks.first,
            last,
            budget.groups,
            count,
            per_chunk,
            layer,
            budget.expected,
        )
    most = int(counts.max()) if blocks else 0
    return groups[..., :most], importance[..., :most]


def attend_pages(
    queries: torch.Tensor,
    positions: torch.Tensor,
    groups: torch.Tensor,
    slots: torch.Tensor,
    pool: torch.Tensor,
    scale: float,
    with_mass: bool = False,
    importance: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """Take an online softmax over tiles of 64 tokens, packed once for all rows of a block."""
    if not _takes_pages(queries, pool):
        return None
    out = torch.empty(queries.shape, dtype=queries.dtype)
    mass = torch.empty(groups.shape) if with_mass else None
    _attend(queries, positions, groups, slots, pool, scale, importance, out, mass, None)
    return out, mass


def attention_lse(
    queries: torch.Tensor,
    positions: torch.Tensor,
    groups: torch.Tensor,
    slots: torch.Tensor,
    pool: torch.Tensor,
    scale: float,
) -> torch.Tensor | None:
    """Do as ``attend_pages``, without values."""
    if not _takes_pages(queries, pool):
        return None
    out = torch.empty(queries.shape[:3])
    _attend(queries, positions, groups, slots, pool, scale, None, None, None, out)
    return out


def _fits(dim: int) -> bool:
    return dim % 16 == 0 and dim <= 256


def can_be_coded(dim: int) -> bool:
    """Return whether the library codes and scores keys of such a head dimension."""
    return _fits(dim) and dim & (dim - 1) == 0


def _takes_pages(queries: torch.Tensor, pool: torch.Tensor) -> bool:
    return (
        takes(torch.bfloat16, queries, pool)
        and _fits(pool.shape[3])
        and pool.shape[2] == PAGE_TOKENS
        and pool.is_contiguous()
    )


def _attend(
    queries: torch.Tensor,
    positions: torch.Tensor,
    groups: torch.Tensor,
    slots: torch.Tensor,
    pool: torch.Tensor,
    scale: float,
    importance: torch.Tensor | None,
    out: torch.Tensor | None,
    mass: torch.Tensor | None,
    attention_lse: torch.Tensor | None,
) -> None:
    """Write ``out`` and, unless None, ``mass``; or ``attention_lse`` in their place."""
    blocks, rows, heads, dim = queries.shape
    kv_heads, pages = groups.shape[1:]
    if importance is not None:
        importance = importance.float().contiguous()
    call(
        "hga_attend_pages",
        queries.contiguous(),
        positions.to(torch.int32).contiguous(),
        groups.to(torch.int32).contiguous(),
        slots.to(torch.int32).contiguous(),
        pool,
        importance,
        out,
        mass,
        attention_lse,
        blocks,
        rows,
        kv_heads,
        heads // kv_heads,
        pages,
        dim,
        scale / math.log(2.0),
    )
