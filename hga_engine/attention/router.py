"""The selection of groups: one function for prefill and decode, for every router."""

import math

import torch

from hga_engine.attention.index import RoutingIndex
from hga_engine.config import Routing
from hga_kernels import Budget, ChunkIndex, ChunkRange, select_groups, take_groups, top_chunks


def select(
    queries: torch.Tensor,
    index: RoutingIndex,
    layer: int,
    chunks: ChunkRange,
    budget: Budget,
    router: Routing,
    scale: float,
    window_lse: torch.Tensor | None = None,
    listed: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Choose the groups that a block of query rows attends to besides the window.

    Router ``hga`` estimates each group's share of the attention by the token index and draws
    groups by it, see ``draw_groups``. Router ``paper`` takes the top chunks by their summaries, and
    of those the top groups by the groups' summaries. Shares count per query row, and their mean is
    taken over the rows of the block and over the query heads that share the KV head.

    Args:
        queries: [blocks, rows, query_heads, head_dim], after RoPE: the rows that are scored.
        index: of the session.
        layer: layer number.
        chunks: which chunks may be chosen from.
        budget: groups per block and KV head; for ``paper``, of the size of the group summaries.
        router: its kind is "hga" or "paper".
        scale: of the attention scores.
        window_lse: [blocks, rows, query_heads] LSE of the window, whose mass then counts in the
            normalisation.
        listed: [n] int64 chunk numbers, ascending, that router ``hga`` may choose from, all of
            them in ``chunks``; None: all of ``chunks``.

    Returns:
        groups: [blocks, kv_heads, n] int32 group numbers, n <= budget, -1 for none,
            which may stand between others.
        importance: [blocks, kv_heads, n] float32: how many groups each stands for; None: one.
    """
    kv_heads = index.summaries[layer].shape[0]
    # [kv_heads, blocks, rows * heads_per_kv, head_dim]
    rows = queries.unflatten(2, (kv_heads, -1)).permute(2, 0, 1, 3, 4).flatten(2, 3)
    if router.kind == "paper":
        wide = torch.float64 if queries.dtype == torch.float64 else torch.float32
        rows = rows.to(wide) * scale
        return _paper_groups(rows, index, layer, chunks, router.paper_chunks, budget.groups), None
    if window_lse is not None:
        window_lse = window_lse.unflatten(2, (kv_heads, -1)).permute(2, 0, 1, 3).flatten(2)
    entries = index.layer(layer)
    if listed is not None:
        # An index of the listed chunks alone, as if the others were not in the session.
        entries = ChunkIndex(
            entries.summaries[:, listed], entries.codes[:, listed], entries.scales[:, listed]
        )
        ends = torch.searchsorted(listed, chunks.ends.long()).int()
        chunks = ChunkRange(0, ends, len(listed))
    groups, importance = select_groups(rows, entries, chunks, budget, scale, window_lse, layer)
    if listed is not None and groups.numel():
        per_chunk = entries.scales.shape[2] // budget.group_size
        at = groups.clamp_min(0).long()
        numbers = (listed[at // per_chunk] * per_chunk + at % per_chunk).int()
        groups = numbers.masked_fill(groups < 0, -1)
    return groups, importance


def _paper_groups(
    rows: torch.Tensor,
    index: RoutingIndex,
    layer: int,
    chunks: ChunkRange,
    paper_chunks: int,
    budget: int,
) -> torch.Tensor:
    """Choose by the two levels of the paper: chunk summaries, then group summaries."""
    last = chunks.bound()
    if last <= chunks.first:
        shape = (rows.shape[1], rows.shape[0], 0)
        return torch.empty(shape, dtype=torch.int32, device=rows.device)
    summaries = index.summaries[layer][:, None, :last].to(rows.dtype)
    centre_scores = rows @ summaries.transpose(2, 3)
    top = top_chunks(centre_scores, chunks, paper_chunks)
    heads = torch.arange(top.shape[0], device=rows.device)[:, None, None]
    chosen = index.group_summaries[layer][heads, top.clamp_min(0).long()].to(rows.dtype)
    scores = torch.einsum("hbrd,hbcgd->hbrcg", rows, chosen)
    scores = scores.masked_fill((top < 0)[:, :, None, :, None], -math.inf)
    mass = scores.flatten(3).softmax(-1).sum(2).nan_to_num(0.0)
    return take_groups(mass, top, budget)
