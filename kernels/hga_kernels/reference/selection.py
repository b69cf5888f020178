"""The selection of groups in plain torch: scores, strata and draws."""

import math

import torch

from hga_kernels.arguments import Budget, ChunkIndex, ChunkRange
from hga_kernels.reference.index import decode_tokens, hadamard
from hga_kernels.reference.model import widen as _wide


def score_groups(
    queries: torch.Tensor,
    centre_scores: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    chunks: torch.Tensor,
    group_size: int,
    window_lse: torch.Tensor | None = None,
) -> torch.Tensor:
    """Estimate the share of the attention that every group of the candidate chunks has.

    The score of a token is that of its chunk's centre plus the product with its code. The two
    halves of a group are paired, token by token, and only the larger score of a pair counts: noise
    in the codes inflates a sum of many small scores, and half of them are enough. The mass of a
    group is the sum of the exponentials, and its share that of the mass of all candidates of the
    query and its window: the mean over the query rows.

    Args:
        queries: [kv_heads, blocks, rows, head_dim] after the Hadamard transform, times the softmax
            scale.
        centre_scores: [kv_heads, blocks, rows, chunks in the index] scaled query times centre.
        codes: [kv_heads, chunks, ...] token codes, see ``encode_tokens``.
        scales: [kv_heads, chunks, chunk_size] of the token codes.
        chunks: [kv_heads, blocks, n] candidate chunks, -1 for none.
        group_size: tokens of a group.
        window_lse: [kv_heads, blocks, rows] ``attention_lse`` of the window; None: normalise over
            the candidates alone.

    Returns:
        [kv_heads, blocks, n * groups] float32 (float64 for float64 queries).
    """
    kv_heads, blocks, rows, _ = queries.shape
    groups = scales.shape[2] // group_size
    wide = _wide(queries)
    shares = wide.new_zeros(kv_heads, blocks, chunks.shape[2] * groups)
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
                if window_lse is not None:
                    total = torch.logaddexp(total, window_lse[head, block].to(total.dtype))
                weights = (halves - total[:, None]).exp()
                of_rows = weights.view(rows, chunks.shape[2] * groups, -1).sum(2)
                shares[head, block] = of_rows.mean(0)
    return shares


def candidate_chunks(kv_heads: int, chunks: ChunkRange) -> torch.Tensor:
    """List the chunks that may be chosen from.

    Returns:
        [kv_heads, blocks, last - first] int32 chunk numbers, -1 from a block's own end on.
    """
    ends = chunks.ends
    numbers = torch.arange(chunks.first, chunks.bound(), dtype=torch.int32, device=ends.device)
    candidates = numbers.expand(len(ends), -1)
    return candidates.masked_fill(candidates >= ends[:, None], -1).expand(kv_heads, -1, -1)


def top_chunks(centre_scores: torch.Tensor, chunks: ChunkRange, count: int) -> torch.Tensor:
    """Choose the chunks with the most softmax weight, added up over the query rows.

    This is the chunk level of the paper's router (HGA, arXiv 2606.30709).

    Args:
        centre_scores: [kv_heads, blocks, rows, last] scaled query times summary.
        chunks: which chunks may be chosen.
        count: chunks per KV head and block.

    Returns:
        [kv_heads, blocks, n] int32 chunk numbers, n <= count, -1 for none.
    """
    candidates = candidate_chunks(centre_scores.shape[0], chunks)
    if candidates.shape[2] <= count:
        return candidates
    outside = candidates < 0
    masked = centre_scores[..., chunks.first :].masked_fill(outside[:, :, None], -math.inf)
    # The softmax of a block without candidates is NaN; its entries become -1 like all outside.
    mass = masked.softmax(-1).sum(2).nan_to_num_(0.0).masked_fill_(outside, -1.0)
    return candidates.gather(2, mass.topk(count).indices)


MAX_IMPORTANCE = 1024
"""The most groups that a drawn group can stand for."""
STRATA = 16
"""Chunk c belongs to stratum ``c % STRATA``. Strata have room of their own, so that groups can be
drawn from all of them at the same time."""
PERIOD = 2**24
"""Draw numbers repeat after so many steps, the integers that float32 holds exactly."""
GROUP_STEP = 0x9E3779
"""PERIOD divided by the golden ratio: what a draw number grows by from one group to the next."""
HEAD_STEP = 0xC13FA9
"""PERIOD divided by the plastic number: likewise, from one KV head to the next."""


def draw_numbers(layer: int, kv_heads: int, groups: torch.Tensor) -> torch.Tensor:
    """Return the fixed pseudo-random number by which each group is drawn.

    Numbers of neighbouring groups are spread evenly (in steps of the golden ratio), and every KV
    head of every layer has a sequence of its own. They never change, so similar queries draw the
    same groups.

    Args:
        layer: layer number.
        kv_heads: KV heads of a layer.
        groups: [kv_heads, ...] group numbers.

    Returns:
        float32 of the shape of ``groups``, from 1 / MAX_IMPORTANCE to 1.
    """
    heads = layer * kv_heads + torch.arange(kv_heads, dtype=torch.int64, device=groups.device)
    steps = groups.long() * GROUP_STEP + heads.view(-1, *[1] * (groups.dim() - 1)) * HEAD_STEP
    return ((steps & (PERIOD - 1)).float() * (1 / PERIOD)).clamp_min(1 / MAX_IMPORTANCE)


def most_room(budget: int, per_chunk: int) -> int:
    """Return the most groups that a stratum has room for.

    It may have one chunk more than the others, and one group more by rounding.
    """
    return budget // STRATA + per_chunk + 2


def take_groups(mass: torch.Tensor, chunks: torch.Tensor, budget: int) -> torch.Tensor:
    """Take the groups of the largest mass.

    Args:
        mass: [kv_heads, blocks, chunks * groups] mass of the groups of ``chunks``.
        chunks: [kv_heads, blocks, chunks], -1 for none.
        budget: groups per KV head and block.

    Returns:
        [blocks, kv_heads, n] int32 group numbers, n <= budget, -1 for none.
    """
    per_chunk = mass.shape[2] // max(chunks.shape[2], 1)
    groups = _groups_of(chunks, per_chunk)
    best = mass.masked_fill(groups < 0, -1.0).topk(min(budget, mass.shape[2]))
    taken = groups.gather(2, best.indices).masked_fill(best.values < 0, -1)
    return taken.transpose(0, 1)


def draw_groups(
    shares: torch.Tensor, chunks: torch.Tensor, budget: Budget, layer: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw groups with odds in proportion to their share of the attention.

    The heaviest groups alone leave out mass that is spread over many groups, and the softmax then
    gives too much weight to the rest. So every group is drawn for itself (Poisson sampling): its
    odds are its share times ``budget.expected``, and it stands for as many groups as its odds are
    small. A share of 1 / expected or more is always drawn and stands for itself; one below that by
    a factor of MAX_IMPORTANCE never is. As shares add up to at most 1, no more groups than
    ``expected`` are drawn on average, and fewer where few have most of the attention. vAttention
    (arXiv 2510.05688) also combines the heaviest tokens and sampling, with even odds for all
    others.

    Each stratum has as much of ``budget.groups`` as it has of the chunks. Where more is drawn, its
    odds are halved until there is room. Where that is twice all groups or more, all are taken:
    drawing would leave few out.

    Args:
        shares: [kv_heads, blocks, chunks * groups] of the groups of ``chunks``.
        chunks: [kv_heads, blocks, chunks], -1 for none; a column must hold one chunk only.
        budget: groups per KV head and block, and the odds.
        layer: selects the draw numbers.

    Returns:
        groups: [blocks, kv_heads, n] int32 group numbers, n <= ``budget.groups``; -1 for none,
            which may stand between others.
        importance: [blocks, kv_heads, n] like ``shares``: how many groups each stands for, from 1
            to MAX_IMPORTANCE; 1 where there is no group.
    """
    per_chunk = shares.shape[2] // max(chunks.shape[2], 1)
    columns = min(budget.groups, shares.shape[2])
    shape = (*shares.shape[:2], columns + 1)  # what is not drawn is written to the last column
    drawn = torch.full(shape, -1, dtype=torch.int32, device=shares.device)
    importance = shares.new_ones(shape)
    stratum = chunks.flatten(0, 1).amax(0) % STRATA if chunks.numel() else chunks.new_empty(0)
    counts = torch.stack([(chunks[..., stratum == s] >= 0).sum(2) for s in range(STRATA)])
    total = counts.sum(0)
    filled = (total * per_chunk).clamp_max(columns)
    ends = filled * counts.cumsum(0) // total.clamp_min(1)
    takes_all = (2 * total * per_chunk <= budget.groups)[..., None]
    split = shares.unflatten(2, (-1, per_chunk)) if per_chunk else shares[..., None]
    for s in range(STRATA):
        groups = _groups_of(chunks[..., stratum == s], per_chunk)
        start = ends[s - 1] if s else torch.zeros_like(ends[0])
        room = (ends[s] - start)[..., None]
        odds = split[:, :, stratum == s].flatten(2) * budget.expected
        odds = odds.masked_fill(takes_all, 1.0).masked_fill(groups < 0, 0.0)
        numbers = draw_numbers(layer, shares.shape[0], groups).to(odds.dtype)
        while (is_over := (odds >= numbers).sum(2, keepdim=True) > room).any():
            odds = odds * torch.where(is_over, 0.5, 1.0).to(odds.dtype)
        is_drawn = odds >= numbers
        column = (start[..., None] + is_drawn.cumsum(2) - 1).where(is_drawn, columns)
        drawn.scatter_(2, column, groups.where(is_drawn, -1))
        importance.scatter_(2, column, (1 / odds).clamp_min(1).where(is_drawn, 1.0))
    chosen = drawn[..., :columns].transpose(0, 1).contiguous()
    return chosen, importance[..., :columns].transpose(0, 1).contiguous()


def _groups_of(chunks: torch.Tensor, per_chunk: int) -> torch.Tensor:
    """[..., n] chunks, -1 for none, to [..., n * per_chunk] int32 groups, -1 for none."""
    within = torch.arange(per_chunk, dtype=torch.int32, device=chunks.device)
    groups = chunks[..., None].to(torch.int32) * per_chunk + within
    return groups.masked_fill_(chunks[..., None] < 0, -1).flatten(-2)


def select_groups(
    queries: torch.Tensor,
    index: ChunkIndex,
    chunks: ChunkRange,
    budget: Budget,
    scale: float = 1.0,
    window_lse: torch.Tensor | None = None,
    layer: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Select the groups that each block of query rows attends to, by the token index.

    Args:
        queries: [kv_heads, blocks, rows, head_dim].
        index: of the layer.
        chunks: which chunks may be chosen from.
        budget: how many groups of which size.
        scale: of the attention scores; 1 where the queries are scaled already.
        window_lse: [kv_heads, blocks, rows] ``attention_lse`` of the window, whose mass then counts
            in the normalisation; None: only the candidates count.
        layer: layer number, which selects the draw numbers.

    Returns:
        groups: [blocks, kv_heads, n] int32 group numbers, n <= ``budget.groups``; -1 for none,
            which may stand between others.
        importance: [blocks, kv_heads, n], at least float32: how many groups each stands for.
    """
    kv_heads, blocks = queries.shape[:2]
    last = chunks.bound()
    if last <= chunks.first:
        empty = torch.empty(blocks, kv_heads, 0, dtype=torch.int32, device=queries.device)
        return empty, empty.to(_wide(queries).dtype)
    rows = _wide(queries) * scale
    centres = index.summaries[:, None, :last].to(rows.dtype)
    centre_scores = rows @ centres.transpose(2, 3)
    listed = candidate_chunks(kv_heads, chunks)
    rotated = rows @ hadamard(rows.shape[-1], rows.dtype, rows.device)
    shares = score_groups(
        rotated, centre_scores, index.codes, index.scales, listed, budget.group_size, window_lse
    )
    return draw_groups(shares, listed, budget, layer)
