"""The choice of groups in plain torch: scores, strata, draws."""

import math

import torch

from hga_kernels.reference.index import (
    decode_tokens,
    hadamard,
)
from hga_kernels.reference.model import widen as _wide


def score_groups(
    queries: torch.Tensor,
    centre_scores: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    chunks: torch.Tensor,
    group_size: int,
    always: torch.Tensor | None = None,
) -> torch.Tensor:
    """Estimated attention mass of every group of the candidate chunks.

    A token's score is its centre's plus the product with its code. The two halves of a group are
    laid over each other, and of two tokens that meet the larger score counts: noise in the codes
    raises sums of many small scores, and half of them suffice. A group's mass is the sum of the
    exponentials, normalised over all candidates of the query and what it reads anyhow. Masses of
    the query rows add up.

    Args:
        queries: [kv_heads, blocks, rows, head_dim], Hadamard domain, times the softmax scale.
        centre_scores: [kv_heads, blocks, rows, chunks in the index]: scaled query times centre.
        codes: [kv_heads, chunks, ...] of the token index, as from ``encode_tokens``.
        scales: [kv_heads, chunks, chunk_size].
        chunks: [kv_heads, blocks, n] candidate chunks, -1 for none.
        group_size: tokens of a group.
        always: [kv_heads, blocks, rows] ``attention_lse`` of what is read anyhow; None: it does not
            count.

    Returns:
        [kv_heads, blocks, n * groups] float32 (float64 for float64 queries).
    """
    kv_heads, blocks, rows, _ = queries.shape
    groups = scales.shape[2] // group_size
    wide = _wide(queries)
    mass = wide.new_zeros(kv_heads, blocks, chunks.shape[2] * groups)
    for head in range(kv_heads):
        for block in range(blocks):
            chosen = chunks[head, block].long()
            present = chosen >= 0
            chosen = chosen.clamp_min(0)
            tokens = decode_tokens(codes[head, chosen], scales[head, chosen]).to(wide.dtype)
            scores = torch.einsum("rd,ctd->rct", wide[head, block], tokens)
            scores = scores + _wide(centre_scores)[head, block][:, chosen, None]
            scores = scores.masked_fill(~present[None, :, None], -math.inf)
            if present.any():
                halves = scores.unflatten(-1, (groups, 2, -1)).amax(-2)
                halves = halves.flatten(1)
                total = halves.logsumexp(-1)
                if always is not None:
                    total = torch.logaddexp(total, always[head, block].to(total.dtype))
                weights = (halves - total[:, None]).exp()
                mass[head, block] = weights.view(rows, chunks.shape[2] * groups, -1).sum((0, 2))
    return mass


def candidate_chunks(
    kv_heads: int, first_chunk: int, end_chunks: torch.Tensor, last_chunk: int
) -> torch.Tensor:
    """[kv_heads, blocks, last_chunk - first_chunk] int32 chunks that may be chosen from, else -1.

    Args:
        kv_heads: KV heads.
        first_chunk: first chunk that may be chosen from.
        end_chunks: [blocks]: the chunk after the last that may be.
        last_chunk: none of them is larger.
    """
    numbers = torch.arange(first_chunk, last_chunk, dtype=torch.int32, device=end_chunks.device)
    candidates = numbers.expand(len(end_chunks), -1)
    return candidates.masked_fill(candidates >= end_chunks[:, None], -1).expand(kv_heads, -1, -1)


def keep_chunks(
    centre_scores: torch.Tensor, first_chunk: int, end_chunks: torch.Tensor, kept: int
) -> torch.Tensor:
    """The chunk level of the paper: chunks with the most softmax weight, added over query rows.

    Args:
        centre_scores: [kv_heads, blocks, rows, chunks]: scaled query times summary.
        first_chunk: first chunk that may be kept.
        end_chunks: [blocks]: the chunk after the last that may be kept.
        kept: chunks per KV head and block.

    Returns:
        [kv_heads, blocks, n] int32 chunk numbers, n <= kept, -1 for none.
    """
    kv_heads, _, _, chunks = centre_scores.shape
    candidates = candidate_chunks(kv_heads, first_chunk, end_chunks, chunks)
    if candidates.shape[2] <= kept:
        return candidates
    outside = candidates < 0
    masked = centre_scores[..., first_chunk:].masked_fill(outside[:, :, None], -math.inf)
    # A block without candidates gives NaN; its places are -1 below all the same.
    mass = masked.softmax(-1).sum(2).nan_to_num_(0.0).masked_fill_(outside, -1.0)
    return candidates.gather(2, mass.topk(kept).indices)


MAX_IMPORTANCE = 64
"""Groups that one can stand for."""
STRATA = 4
"""Chunks are dealt to so many strata in turn, and groups are drawn from each by itself."""
TURN, GROUP_TURN, HEAD_TURN = 2**24, 0x9E3779, 0xC13FA9
"""A whole turn; the golden ratio of it for groups, the inverse plastic number of it for heads."""


def draw_numbers(layer: int, kv_heads: int, groups: torch.Tensor) -> torch.Tensor:
    """The fixed number of each group that decides whether it is drawn.

    They lie evenly for neighbours (importance of the golden ratio), and otherwise for every layer
    and KV head. As they never change, queries alike draw the same groups.

    Args:
        layer: layer number.
        kv_heads: KV heads.
        groups: [kv_heads, ...] group numbers.

    Returns:
        Like ``groups``, float32 from 1 to MAX_IMPORTANCE.
    """
    heads = layer * kv_heads + torch.arange(kv_heads, dtype=torch.int64, device=groups.device)
    turns = groups.long() * GROUP_TURN + heads.view(-1, *[1] * (groups.dim() - 1)) * HEAD_TURN
    return ((turns & (TURN - 1)).float() * (MAX_IMPORTANCE / TURN)).clamp_min(1.0)


def take_groups(
    mass: torch.Tensor, chunks: torch.Tensor, budget: int, layer: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The heaviest groups, or some drawn with odds that follow their mass.

    A budget of the heaviest leaves out what is spread over many groups, and softmax then counts
    the rest for too much. So groups are drawn (priority sampling: Duffield, Lund and Thorup, 2007):
    those of the largest ratios of mass to their fixed number are taken. The heaviest are so surely;
    any other one stands for as many groups like itself as it was unlikely to be drawn: the bound is
    the first ratio that was not taken. Below 1 / MAX_IMPORTANCE of the bound, none is ever drawn.

    Each stratum has the part of the budget that it has of the chunks, and a bound of its own, so
    that several processors can draw at the same time.

    Args:
        mass: [kv_heads, blocks, chunks * groups]: of the groups of ``chunks``.
        chunks: [kv_heads, blocks, chunks], -1 for none; to draw, a column holds one chunk only.
        budget: groups per KV head and block.
        layer: whose numbers decide; None: the heaviest are taken.

    Returns:
        groups: [blocks, kv_heads, n] int32 group numbers, n <= budget, -1 for none.
        importance: [blocks, kv_heads, n] like ``mass``: how many groups each stands for, from 1 to
            MAX_IMPORTANCE; 1 for none.
    """
    per_chunk = mass.shape[2] // max(chunks.shape[2], 1)
    budget = min(budget, mass.shape[2])
    if layer is None:
        groups = _groups_of(chunks, per_chunk)
        best = mass.masked_fill(groups < 0, -1.0).topk(budget)
        taken = groups.gather(2, best.indices).masked_fill(best.values < 0, -1)
        return taken.transpose(0, 1), torch.ones_like(best.values).transpose(0, 1)
    shape = (*mass.shape[:2], budget + 1)  # the last place is that of what is not taken
    taken = torch.full(shape, -1, dtype=torch.int32, device=mass.device)
    importance = mass.new_ones(shape)
    stratum = chunks.flatten(0, 1).amax(0) % STRATA if chunks.numel() else chunks.new_empty(0)
    counts = torch.stack([(chunks[..., stratum == s] >= 0).sum(2) for s in range(STRATA)])
    total = counts.sum(0)
    filled = (total * per_chunk).clamp_max(budget)
    ends = filled * counts.cumsum(0) // total.clamp_min(1)
    split = mass.unflatten(2, (-1, per_chunk)) if per_chunk else mass[..., None]
    for s in range(STRATA):
        own = split[:, :, stratum == s].flatten(2)
        groups = _groups_of(chunks[..., stratum == s], per_chunk)
        odds = own / draw_numbers(layer, mass.shape[0], groups).to(mass.dtype)
        best = odds.masked_fill(groups < 0, -1.0).topk(min(budget + 1, own.shape[2]))
        if not best.values.shape[2]:
            continue
        start = ends[s - 1] if s else torch.zeros_like(ends[0])
        room = (ends[s] - start)[..., None]
        rank = torch.arange(best.values.shape[2], device=mass.device)
        is_taken = (rank < room) & (best.values >= 0)
        next_one = room.clamp_max(best.values.shape[2] - 1)
        bound = best.values.gather(2, next_one) * MAX_IMPORTANCE
        times = (bound / own.gather(2, best.indices)).clamp(1, MAX_IMPORTANCE).nan_to_num(1.0)
        some_left = counts[s][..., None] * per_chunk > room
        place = (start[..., None] + rank).where(is_taken, budget)
        taken.scatter_(2, place, groups.gather(2, best.indices).where(is_taken, -1))
        importance.scatter_(2, place, times.where(is_taken & some_left, 1.0))
    chosen = taken[..., :budget].transpose(0, 1).contiguous()
    return chosen, importance[..., :budget].transpose(0, 1).contiguous()


def _groups_of(chunks: torch.Tensor, per_chunk: int) -> torch.Tensor:
    """[..., n] chunks, -1 for none, to [..., n * per_chunk] int32 groups, -1 for none."""
    within = torch.arange(per_chunk, dtype=torch.int32, device=chunks.device)
    groups = chunks[..., None].to(torch.int32) * per_chunk + within
    return groups.masked_fill_(chunks[..., None] < 0, -1).flatten(-2)


def select_groups(
    queries: torch.Tensor,
    summaries: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    first_chunk: int,
    end_chunks: torch.Tensor,
    budget: int,
    group_size: int,
    last_chunk: int | None = None,
    scale: float = 1.0,
    always: torch.Tensor | None = None,
    layer: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The groups a block of query rows reads, by the token index.

    Args:
        queries: [kv_heads, blocks, rows, head_dim].
        summaries: [kv_heads, chunks, head_dim].
        codes: of the token index, as from ``encode_tokens``.
        scales: of the token index.
        first_chunk: first chunk that may be chosen from.
        end_chunks: [blocks] int32: the chunk after the last that may be chosen from.
        budget: groups per KV head and block.
        group_size: tokens of a group.
        last_chunk: none of ``end_chunks`` is larger; None: it is looked for in the tensor.
        scale: of the attention scores; 1: the queries are scaled already.
        always: [kv_heads, blocks, rows] ``attention_lse`` of the window, which then counts as mass
            too; None: only the candidates count.
        layer: whose numbers decide what is drawn.

    Returns:
        groups: [blocks, kv_heads, n] int32 group numbers, n <= budget, -1 for none.
        importance: [blocks, kv_heads, n], at least float32: how many groups each stands for.
    """
    kv_heads, blocks = queries.shape[:2]
    last = int(end_chunks.max()) if last_chunk is None else last_chunk
    if last <= first_chunk:
        empty = torch.empty(blocks, kv_heads, 0, dtype=torch.int32, device=queries.device)
        return empty, empty.to(_wide(queries).dtype)
    rows = _wide(queries) * scale
    centres = summaries[:, None, :last].to(rows.dtype)
    centre_scores = rows @ centres.transpose(2, 3)
    chunks = candidate_chunks(kv_heads, first_chunk, end_chunks, last)
    turned = rows @ hadamard(rows.shape[-1], rows.dtype, rows.device)
    mass = score_groups(turned, centre_scores, codes, scales, chunks, group_size, always)
    return take_groups(mass, chunks, budget, layer)
