"""Attention over pages in plain torch."""

import math

import torch

from hga_kernels.reference.model import widen as _wide


def list_pages(
    chosen: torch.Tensor,
    importance: torch.Tensor | None,
    window: torch.Tensor,
    sinks: int,
    pages: int,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """List the pages of blocks: those of the sinks, those chosen, those of the open chunk.

    Args:
        chosen: [blocks, kv_heads, n] int32 groups of ``pages`` pages each, -1 for none.
        importance: [blocks, kv_heads, n] float32 importance weights; None: one.
        window: [blocks, kv_heads, m] int32 pages, -1 for none.
        sinks: how many of them are the sinks'.
        pages: pages of a chosen group.

    Returns:
        pages [blocks, kv_heads, m + n * pages] int32, -1 for none, and their importance weights,
        one for the window; None if ``importance`` is.
    """
    within = torch.arange(pages, dtype=chosen.dtype, device=chosen.device)
    of_chosen = (chosen[..., None] * pages + within).masked_fill(chosen[..., None] < 0, -1)
    listed = torch.cat((window[..., :sinks], of_chosen.flatten(-2), window[..., sinks:]), -1)
    if importance is None:
        return listed, None
    around = (sinks, window.shape[-1] - sinks)
    weights = importance.repeat_interleave(pages, -1)
    return listed, torch.nn.functional.pad(weights, around, value=1.0)


def attention_lse(
    queries: torch.Tensor,
    positions: torch.Tensor,
    groups: torch.Tensor,
    slots: torch.Tensor,
    pool: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Return the log-sum-exp of the scores over the listed pages.

    Args:
        queries: [blocks, rows, query_heads, head_dim], after RoPE.
        positions: [blocks, rows] of the queries; a query sees tokens up to its own position.
        groups: [blocks, kv_heads, pages] group numbers, -1 for none; no group twice.
        slots: [blocks, kv_heads, pages] where those pages are in ``pool``.
        pool: [slots, 2, group_size, head_dim].
        scale: of the scores.

    Returns:
        [blocks, rows, query_heads], at least float32; -inf where a query sees nothing.
    """
    blocks = queries.shape[0]
    out = _wide(queries).new_empty(queries.shape[:3])
    step = max(1, 2**24 // max(1, groups.shape[1:].numel() * pool.shape[2:].numel()))
    for first in range(0, blocks, step):
        part = slice(first, first + step)
        keys = _wide(pool[slots[part].clamp_min(0).long(), 0]).flatten(2, 3)
        scores, _ = _masked_scores(queries[part], positions[part], groups[part], keys, scale)
        out[part] = scores.logsumexp(-1).flatten(1, 2).transpose(1, 2)
    return out


def attend_pages(
    queries: torch.Tensor,
    positions: torch.Tensor,
    groups: torch.Tensor,
    slots: torch.Tensor,
    pool: torch.Tensor,
    scale: float,
    with_mass: bool = False,
    importance: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend exactly and causally to the listed pages.

    Args:
        queries: [blocks, rows, query_heads, head_dim], after RoPE.
        positions: [blocks, rows] of the queries; a query sees tokens up to its own position.
        groups: [blocks, kv_heads, pages] group numbers, -1 for none; no group twice.
        slots: [blocks, kv_heads, pages] where those pages are in ``pool``.
        pool: [slots, 2, group_size, head_dim].
        scale: of the scores.
        with_mass: whether to return the attention mass per page as well.
        importance: [blocks, kv_heads, pages] float32: how many pages each stands for; None: one.

    Returns:
        out: like ``queries``.
        mass: [blocks, kv_heads, pages] weights of each page, counted once whatever it stands for,
            summed over rows and the query heads that share the KV head; None unless asked for.
    """
    blocks, pages, size = queries.shape[0], groups.shape[2], pool.shape[2]
    out = torch.empty_like(queries)
    mass = groups.new_empty(groups.shape, dtype=torch.float32) if with_mass else None
    step = max(1, 2**24 // max(1, groups.shape[1:].numel() * pool.shape[2:].numel()))
    for first in range(0, blocks, step):
        part = slice(first, first + step)
        gathered = _wide(pool[slots[part].clamp_min(0).long()])  # [b, h, pages, 2, size, dim]
        keys = gathered[:, :, :, 0].flatten(2, 3)
        values = gathered[:, :, :, 1].flatten(2, 3)
        scores, hidden = _masked_scores(queries[part], positions[part], groups[part], keys, scale)
        if importance is None:
            weights = scores.softmax(-1)
        else:
            factor = importance[part].to(scores.dtype).repeat_interleave(size, 2)[:, :, None, None]
            weights = (scores + factor.log()).softmax(-1)
        # What no query of the block sees may hold anything, even NaN.
        values = values.masked_fill(hidden.all(2).unsqueeze(-1), 0)
        attended = torch.einsum("bhqrt,bhtd->brhqd", weights, values)
        out[part] = attended.flatten(2, 3).to(out.dtype)
        if mass is not None:
            weights = weights if importance is None else weights / factor
            mass[part] = weights.sum((2, 3)).unflatten(-1, (pages, size)).sum(-1).float()
    return out, mass


def _masked_scores(
    queries: torch.Tensor,
    positions: torch.Tensor,
    groups: torch.Tensor,
    keys: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score the tokens of the listed pages, -inf where a query must not see them.

    Args as for ``attend_pages``, and ``keys``: [blocks, kv_heads, tokens, head_dim] of the pages.

    Returns:
        scores: [blocks, kv_heads, query heads per KV head, rows, tokens].
        hidden: [blocks, kv_heads, rows, tokens] bool.
    """
    kv_heads, size = groups.shape[1], keys.shape[2] // max(1, groups.shape[2])
    grouped = _wide(queries).unflatten(2, (kv_heads, -1))
    scores = torch.einsum("brhqd,bhtd->bhqrt", grouped, keys) * scale
    tokens = groups[..., None] * size + torch.arange(size, device=groups.device)
    tokens = tokens.masked_fill(groups[..., None] < 0, torch.iinfo(tokens.dtype).max)
    hidden = tokens.flatten(2)[:, :, None] > positions[:, None, :, None]
    return scores.masked_fill(hidden[:, :, None], -math.inf), hidden
