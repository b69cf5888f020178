"""Which groups a query may read: one function for prefill and decode, for every router."""

import math

import torch

from hga_engine.attention.index import RoutingIndex
from hga_engine.config import RouterName
from hga_kernels import select_groups
from hga_kernels.reference.selection import keep_chunks, take_groups


def select(
    queries: torch.Tensor,
    index: RoutingIndex,
    layer: int,
    first_chunk: int,
    end_chunks: torch.Tensor,
    last_chunk: int,
    budget: int,
    group_size: int,
    router: RouterName,
    paper_chunks: int,
    scale: float,
    always: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Choose the groups that a block of query rows attends to, besides sinks and recent.

    The token index (router ``hga``) or, of the chunks whose summaries promise most, group summaries
    (router ``paper``) estimate the attention mass of groups. The paper's rule takes the heaviest;
    ``hga`` draws groups by their mass, see ``reference.take_groups``. Masses are
    normalised per query row and added over the rows of the block and over the query heads that
    share the KV head.

    Args:
        queries: [blocks, rows, query_heads, head_dim], after RoPE: the rows that are scored.
        index: of the session.
        layer: layer number.
        first_chunk: first chunk that may be chosen from.
        end_chunks: [blocks] int32: the chunk after the last that may be chosen from.
        last_chunk: the largest of them.
        budget: groups per block and KV head.
        group_size: tokens of a group; for ``paper`` that of the group summaries.
        router: what estimates the mass, "hga" or "paper".
        paper_chunks: chunks that pass the chunk level of the paper's rule.
        scale: of the attention scores.
        always: [blocks, rows, query_heads] logarithm of the mass of sinks and recent tokens, which
            shares are then of as well.

    Returns:
        groups: [blocks, kv_heads, n] int32 group numbers, n <= budget, -1 for none.
        importance: [blocks, kv_heads, n] float32 how many groups each stands for; None: one.
    """
    kv_heads = index.summaries[layer].shape[0]
    # [kv_heads, blocks, rows * heads_per_kv, head_dim]
    rows = queries.unflatten(2, (kv_heads, -1)).permute(2, 0, 1, 3, 4).flatten(2, 3)
    if router == "paper":
        wide = torch.float64 if queries.dtype == torch.float64 else torch.float32
        rows = rows.to(wide) * scale
        chunks = first_chunk, end_chunks, last_chunk, paper_chunks
        return _paper_groups(rows, index, layer, *chunks, budget), None
    if always is not None:
        always = always.unflatten(2, (kv_heads, -1)).permute(2, 0, 1, 3).flatten(2)
    chosen: tuple[torch.Tensor, torch.Tensor] = select_groups(
        rows,
        index.summaries[layer],
        index.codes[layer],
        index.scales[layer],
        first_chunk,
        end_chunks,
        budget,
        group_size,
        last_chunk,
        scale,
        always,
        layer,
    )
    return chosen


def _paper_groups(
    rows: torch.Tensor,
    index: RoutingIndex,
    layer: int,
    first_chunk: int,
    end_chunks: torch.Tensor,
    last_chunk: int,
    kept: int,
    budget: int,
) -> torch.Tensor:
    """The two levels of the paper: chunk summaries, then group summaries."""
    if last_chunk <= first_chunk:
        shape = (rows.shape[1], rows.shape[0], 0)
        return torch.empty(shape, dtype=torch.int32, device=rows.device)
    summaries = index.summaries[layer][:, None, :last_chunk].to(rows.dtype)
    centre_scores = rows @ summaries.transpose(2, 3)
    chunks = keep_chunks(centre_scores, first_chunk, end_chunks, kept)
    heads = torch.arange(chunks.shape[0], device=rows.device)[:, None, None]
    chosen = index.group_summaries[layer][heads, chunks.clamp_min(0).long()].to(rows.dtype)
    scores = torch.einsum("hbrd,hbcgd->hbrcg", rows, chosen)
    scores = scores.masked_fill((chunks < 0)[:, :, None, :, None], -math.inf)
    mass = scores.flatten(3).softmax(-1).sum(2).nan_to_num(0.0)
    return take_groups(mass, chunks, budget)[0]
