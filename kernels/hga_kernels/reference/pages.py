"""Decoding over pages in plain torch: window, page cache and attention.

While tokens are decoded, the host holds every page of a layer, and the device holds the pages that
are attended to: see ``arguments.LayerPages``, and ``arguments.PageTable`` for the page cache.
"""

import itertools

import torch

from hga_kernels.arguments import Angles, HeadWeights, LayerPages, PageTable, Window
from hga_kernels.gguf_blocks import from_planes
from hga_kernels.reference.attention import attend_pages
from hga_kernels.reference.model import split_heads
from hga_kernels.reference.selection import STRATA, draw_numbers, most_room
from hga_kernels.weights import Packed, plain

MISSING = 1 << 30
"""Flag in a cache slot number: the page has yet to be fetched into the slot."""
MAX_AGE = 1023
"""Slots that have not been used for so many steps, or never, count as equally old."""


def list_window(position: torch.Tensor, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
    """List the groups of a query's window.

    Args:
        position: [1] int32 of the query.
        window: its size.

    Returns:
        groups: [window.slots] int32, -1 for none.
        slots: [window.slots] int32 where they are in ``LayerPages.resident``.
    """
    last = position // window.group_size
    sinks = torch.arange(window.sinks, dtype=torch.int32, device=position.device)
    within = torch.arange(window.open, dtype=torch.int32, device=position.device)
    opened = last // window.open * window.open + within
    groups = torch.cat((sinks, opened.masked_fill(opened < window.sinks, -1)))
    return groups.masked_fill(groups > last, -1), torch.cat((sinks, window.sinks + within))


def write_token(
    heads: torch.Tensor,
    weights: HeadWeights,
    angles: Angles,
    position: torch.Tensor,
    pages: LayerPages,
) -> torch.Tensor:
    """Rotate the queries and keys of one token, and write its K and V to the window and the host.

    Args:
        heads: [1, (query_heads + 2 * kv_heads) * head_dim]: queries, keys, values.
        weights: what is applied to the heads.
        angles: of RoPE.
        position: [1] int32 of the token.
        pages: of the layer, updated.

    Returns:
        [query_heads, head_dim] queries after RoPE, in the type of the pages.
    """
    window, resident = pages.window, pages.resident
    now, kv_heads = int(position), resident.shape[0]
    group, row = divmod(now, window.group_size)
    query_heads = heads.numel() // resident.shape[-1] - 2 * kv_heads
    of_token = Angles(angles.cos[now : now + 1], angles.sin[now : now + 1])
    queries, keys, values = split_heads(heads.view(1, -1), weights, of_token, query_heads, kv_heads)
    pair = torch.stack((keys[0], values[0]), 1)  # [kv_heads, 2, dim]
    resident[:, window.slot(group), :, row] = pair
    if group < window.sinks:
        resident[:, group, :, row] = pair
    pages.host.unflatten(0, (kv_heads, -1))[:, group, :, row] = pair.to(pages.host.device)
    return queries[0].to(resident.dtype)


def resolve_pages(groups: torch.Tensor, cache: PageTable, per_chunk: int) -> torch.Tensor:
    """Look up chosen pages in the page cache, and give missing ones a slot.

    Slot s belongs to stratum ``s % STRATA`` and only ever holds groups of that stratum. The slots
    that are reused are the least recently used ones (LRU), the lowest first among those of the same
    age or of ``MAX_AGE``, and never one that this step uses. Missing groups get them in ascending
    order of slots.

    Args:
        groups: [kv_heads, budget] int32, -1 for none; no group twice.
        cache: updated; it has ``min_cache_slots`` slots or more. Where ``step`` starts anew, older
            stamps that are larger count as the step before.
        per_chunk: groups of a chunk.

    Returns:
        [kv_heads, budget] int32 cache slots, -1 for none, with the flag ``MISSING`` where the page
        has yet to be fetched.
    """
    table, owner, stamps, now = cache.table, cache.owner, cache.stamps, int(cache.step)
    found = torch.full_like(groups, -1)
    for head, stratum in itertools.product(range(groups.shape[0]), range(STRATA)):
        wanted = [
            (i, group)
            for i, group in enumerate(groups[head].tolist())
            if group >= 0 and group // per_chunk % STRATA == stratum
        ]
        slots = {group: int(table[head, group]) for _, group in wanted}
        missing = [group for group, slot in slots.items() if slot < 0]
        in_use = {slot for slot in slots.values() if slot >= 0}
        stamps[head, list(in_use)] = now
        ages = [min(now - min(stamp, now - 1), MAX_AGE) for stamp in stamps[head].tolist()]
        own = range(stratum, len(ages), STRATA)
        usable = [slot for slot in own if slot not in in_use]
        victims = sorted(sorted(usable, key=lambda slot: -ages[slot])[: len(missing)])
        for group, victim in zip(missing, victims, strict=True):
            if owner[head, victim] >= 0:
                table[head, owner[head, victim]] = -1
            table[head, group] = victim
            owner[head, victim] = group
            stamps[head, victim] = now
            slots[group] = victim | MISSING
        for i, group in wanted:
            found[head, i] = slots[group]
        cache.counts[0] += len(wanted) - len(missing)
        cache.counts[1] += len(missing)
    return found


def min_cache_slots(budget: int, per_chunk: int) -> int:
    """Return the slots per KV head that hold every possible selection of ``take_groups``.

    Args:
        budget: groups of a selection.
        per_chunk: groups of a chunk.
    """
    return STRATA * most_room(budget, per_chunk)


def prefetch_candidates(
    heads: int,
    cache_slots: int,
    first_group: int,
    end_group: int,
    per_chunk: int,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the groups to fill an empty page cache with: those that most queries will draw.

    A group is drawn by its mass and its draw number, and draw numbers are the same for all queries.
    So of groups of equal mass, every query draws those with the smallest numbers.

    Args:
        heads: KV heads of all layers.
        cache_slots: slots per KV head.
        first_group: the first group that may be chosen, at the start of a chunk.
        end_group: the group after the last one, at the end of a chunk, not below ``first_group``.
        per_chunk: groups of a chunk.
        device: of the results.

    Returns:
        groups: [heads, n] int64, n <= cache_slots.
        slots: [n] int64 slots for them, each of the group's stratum. The most likely groups get the
            highest slots, as ``resolve_pages`` reuses the lowest first.
    """
    numbered = torch.arange(first_group, end_group, device=device)
    groups, slots = [], []
    for stratum in range(STRATA):
        own = numbered[numbered // per_chunk % STRATA == stratum]
        of_stratum = torch.arange(stratum, cache_slots, STRATA, device=device)
        count = min(len(own), len(of_stratum))
        numbers = draw_numbers(0, heads, own.expand(heads, -1))
        groups.append(own[numbers.topk(count, largest=False).indices.flip(1)])
        slots.append(of_stratum[:count])
    return torch.cat(groups, 1), torch.cat(slots)


def attend_resident(
    queries: torch.Tensor,
    position: torch.Tensor,
    pages: LayerPages,
    groups: torch.Tensor,
    slots: torch.Tensor,
    scale: float,
    mass: torch.Tensor | None = None,
    importance: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attend from one token to its window and the chosen pages.

    Missing pages are read from the host and written to their cache slots.

    Args:
        queries: [query_heads, head_dim], after RoPE.
        position: [1] int32 of the token, whose K and V are in ``pages`` already.
        pages: of the layer, updated.
        groups: [kv_heads, budget] int32 chosen groups, outside the window, -1 for none.
        slots: [kv_heads, budget] int32 cache slots, from ``resolve_pages``.
        scale: of the scores, above 0.
        mass: [max_groups] float32: the weights of each group, summed over query heads, are added.
        importance: [kv_heads, budget] float32: how many groups each stands for; None: one.

    Returns:
        [query_heads, head_dim].
    """
    resident, window = pages.resident, pages.window
    kv_heads = resident.shape[0]
    window_groups, window_slots = list_window(position, window)
    host = pages.host.unflatten(0, (kv_heads, -1))
    for head in range(kv_heads):
        for group, slot in zip(groups[head].tolist(), slots[head].tolist(), strict=True):
            if slot >= MISSING:
                resident[head, window.slots + slot - MISSING] = host[head, group]
    chosen = window.slots + (slots.clamp_min(0) & (MISSING - 1))
    per_head = torch.arange(kv_heads, device=resident.device)[:, None] * resident.shape[1]
    listed = window_groups.expand(kv_heads, -1)
    if importance is not None:
        once = importance.new_ones(kv_heads, listed.shape[1])
        importance = torch.cat((once, importance), 1)[None]
    listed = torch.cat((listed, groups.masked_fill(slots < 0, -1)), 1)
    out, weights = attend_pages(
        queries[None, None],
        position[None],
        listed[None],
        (torch.cat((window_slots.expand(kv_heads, -1), chosen), 1) + per_head)[None],
        resident.flatten(0, 1),
        scale,
        with_mass=mass is not None,
        importance=importance,
    )
    if mass is not None and weights is not None:
        mass.index_add_(0, listed.clamp_min(0).flatten().long(), weights.flatten())
    return out[0, 0]


def load_window(
    host: torch.Tensor, resident: torch.Tensor, position: torch.Tensor, window: Window
) -> None:
    """Copy the window of all layers from the host.

    The open chunk is that of the last token that the host holds: where a new chunk begins, the one
    before it has yet to be indexed.

    Args:
        host: [layers, kv_heads * max_groups, 2, group_size, head_dim].
        resident: [layers, kv_heads, slots, 2, group_size, head_dim], written.
        position: [1] int32 of the next token; the host holds those before it.
        window: the slots of sinks and open chunk.
    """
    now = int(position)
    of_host = host.unflatten(1, (resident.shape[1], -1))
    end = -(-now // window.group_size)
    for group in range(min(window.sinks, end)):
        resident[:, :, group] = of_host[:, :, group].to(resident.device)
    for group in range(window.first_open(max(now - 1, 0)), end):
        resident[:, :, window.slot(group)] = of_host[:, :, group].to(resident.device)


def forget_pages(
    table: torch.Tensor, owner: torch.Tensor, stamps: torch.Tensor, from_group: int
) -> None:
    """Drop cached groups from ``from_group`` on; 0 empties the cache.

    Args:
        table: [..., kv_heads, max_groups], updated.
        owner: [..., kv_heads, cache_slots], updated.
        stamps: like ``owner``, updated.
        from_group: the first group to drop.
    """
    dropped = (owner >= from_group) | (from_group == 0)
    table[..., from_group:] = -1
    owner.masked_fill_(dropped, -1)
    stamps.masked_fill_(dropped, -1)


def gather_rows(
    ids: torch.Tensor,
    table: torch.Tensor | Packed,
    out: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Gather rows of a table, such as the embeddings of tokens.

    Args:
        ids: [n] int64, on the device of the result.
        table: [rows, size], there or in host memory, pinned where ``ids`` are on a GPU.
        out: [n, size] to write to; None: allocate it.
        dtype: type of the result; None: that of the table, which must then not be packed.

    Returns:
        [n, size] on the device of ``ids``; NaN for ids outside the table.
    """
    inside = (ids >= 0) & (ids < table.shape[0])
    if isinstance(table, Packed) and table.is_planar:
        table = Packed(from_planes(table.data, table.format), table.format)
    stored = table.data if isinstance(table, Packed) else table
    rows = stored[ids.where(inside, 0).to(stored.device)].to(ids.device)
    weight = Packed(rows, table.format) if isinstance(table, Packed) else rows
    found = plain(weight, dtype or stored.dtype).masked_fill(~inside[:, None], float("nan"))
    return found if out is None else out.copy_(found)
