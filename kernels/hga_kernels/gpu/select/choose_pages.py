"""Selection and look-up of a token's pages in two kernels, as in a decode step."""

import torch

from hga_kernels import reference
from hga_kernels.arguments import (
    CHUNK,
    Budget,
    ChunkIndex,
    ChunkRange,
    PageTable,
    TokenWindow,
)
from hga_kernels.dispatch import dispatch
from hga_kernels.gpu.pages.cache import resolve_pages
from hga_kernels.gpu.select.dispatch import takes
from hga_kernels.gpu.select.step import MAX_ROWS, Lookup, select_few
from hga_kernels.reference.pages import list_window

# What the two kernels do not take goes through these, one after the other.
_select_groups = dispatch(reference.select_groups, None, "select.dispatch")
_attention_lse = dispatch(reference.attention_lse, None, "attention")


def choose_pages(
    queries: torch.Tensor,
    index: ChunkIndex,
    chunks: ChunkRange,
    budget: Budget,
    scale: float,
    cache: PageTable,
    window: TokenWindow | None = None,
    layer: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run ``reference.select_groups`` for one token, then ``reference.resolve_pages``.

    This can be captured in a CUDA graph.

    Args:
        queries: [kv_heads, 1, rows, head_dim].
        index: of the layer.
        chunks: which chunks may be chosen from; its end is read on the GPU, and its upper bound is
            the capacity of the index.
        budget: how many groups of which size.
        scale: of the scores.
        cache: the page cache of the layer, updated.
        window: the token's window, whose mass then counts in the normalisation.
        layer: layer number, which selects the draw numbers.

    Returns:
        groups: [kv_heads, budget] int32, -1 for none.
        importance: [kv_heads, budget] float32: how many groups each stands for.
        slots: [kv_heads, budget] int32 cache slots of their pages, see ``reference.resolve_pages``.
    """
    kv_heads, _, rows, _ = queries.shape
    chunks = ChunkRange(chunks.first, chunks.ends, index.summaries.shape[1])
    same_dtype = window is None or window.pages.resident.dtype == queries.dtype
    is_taken = takes(queries, index, budget.group_size) and same_dtype and rows <= MAX_ROWS
    if is_taken and chunks.first < chunks.bound():
        slots = torch.empty((kv_heads, budget.groups), dtype=torch.int32, device=queries.device)
        groups, importance = select_few(
            queries.contiguous(), index, chunks, budget, scale, window, layer, Lookup(slots, cache)
        )
        return groups[0], importance[0], slots
    window_lse = None if window is None else _window_lse(queries, window, scale)
    groups, importance = _select_groups(queries, index, chunks, budget, scale, window_lse, layer)
    slots = resolve_pages(groups[0], cache, CHUNK // budget.group_size)
    return groups[0], importance[0], slots


def _window_lse(queries: torch.Tensor, window: TokenWindow, scale: float) -> torch.Tensor:
    """Return ``reference.attention_lse`` of a token's window: [kv_heads, 1, rows]."""
    resident = window.pages.resident
    kv_heads, slots_of_head = resident.shape[:2]
    groups, slots = list_window(window.position, window.pages.window)
    heads = torch.arange(kv_heads, dtype=torch.int32, device=slots.device)[:, None] * slots_of_head
    lse: torch.Tensor = _attention_lse(
        queries.transpose(0, 1).flatten(1, 2)[:, None],
        window.position[None],
        groups.expand(1, kv_heads, -1),
        (slots + heads)[None],
        resident.flatten(0, 1),
        scale,
    )
    return lse.view(kv_heads, 1, -1)
