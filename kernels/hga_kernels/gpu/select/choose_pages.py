"""Selection and look-up of a token's pages in one go, as in a decode step."""

import torch

from hga_kernels import attention_lse, select_groups
from hga_kernels.gpu.pages.cache import resolve_pages
from hga_kernels.gpu.select.dispatch import takes
from hga_kernels.gpu.select.step import MAX_ROWS, WindowPages, select_few
from hga_kernels.reference.pages import CHUNK, list_window


def choose_pages(
    queries: torch.Tensor,
    summaries: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    first_chunk: int,
    end_chunk: torch.Tensor,
    budget: int,
    group_size: int,
    scale: float,
    table: torch.Tensor,
    owner: torch.Tensor,
    stamps: torch.Tensor,
    step: torch.Tensor,
    counts: torch.Tensor,
    window: WindowPages | None = None,
    layer: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``reference.select_groups`` for one token, then ``reference.resolve_pages``.

    It can be captured in a CUDA graph.

    Args:
        queries: [kv_heads, 1, rows, head_dim].
        summaries: [kv_heads, chunks, head_dim], all of which are to choose from.
        codes: see ``reference.select_groups``.
        scales: likewise.
        first_chunk: the first that may be chosen.
        end_chunk: [1] int32 the first that may not.
        budget: groups a KV head.
        group_size: tokens of a group.
        scale: of the scores.
        table: of the page cache, updated; see ``reference.resolve_pages``.
        owner: likewise.
        stamps: likewise.
        step: likewise.
        counts: likewise.
        window: what is read anyhow, which then counts as mass as well.
        layer: see ``reference.select_groups``.

    Returns:
        [kv_heads, budget] int32 groups, float32 how many each stands for, and their places.
    """
    cache = table, owner, stamps, step, counts
    index = queries, summaries, codes, scales
    kv_heads, _, rows, _ = queries.shape
    chunks = summaries.shape[1]
    alike = window is None or window.resident.dtype == queries.dtype
    if takes(*index, group_size) and alike and rows <= MAX_ROWS and first_chunk < chunks:
        places = torch.empty((kv_heads, budget), dtype=torch.int32, device=queries.device)
        groups, importance = select_few(
            *(queries.contiguous(), *index[1:], first_chunk, end_chunk, budget, group_size),
            *(chunks, scale, queries.is_cuda, (places, *cache), None, layer, window),
        )
        return groups[0], importance[0], places
    always = None if window is None else _log_mass(queries, window, scale)
    groups, importance = select_groups(
        *(*index, first_chunk, end_chunk, budget, group_size, chunks, scale, always, layer)
    )
    found = resolve_pages(groups[0], *cache, CHUNK // group_size)
    assert found is not None
    return groups[0], importance[0], found


def _log_mass(queries: torch.Tensor, window: WindowPages, scale: float) -> torch.Tensor:
    """[kv_heads, 1, rows] ``reference.attention_lse`` of a token's window."""
    kv_heads, slots = window.resident.shape[:2]
    groups, places = list_window(window.position, window.sizes)
    heads = torch.arange(kv_heads, dtype=torch.int32, device=places.device)[:, None] * slots
    rows = queries.transpose(0, 1).flatten(1, 2)[:, None]
    listed = groups.expand(1, kv_heads, -1), (places + heads)[None]
    pool = window.resident.flatten(0, 1)
    found: torch.Tensor = attention_lse(rows, window.position[None], *listed, pool, scale)
    return found.view(kv_heads, 1, -1)
