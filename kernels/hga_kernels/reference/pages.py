"""The plain torch definition of decoding over pages: window, page cache, attention.

While tokens are decoded, a layer's K/V is in two places. ``host`` [kv_heads * max_groups, 2,
group_size, dim], pinned where there is a GPU, holds every page: that of a head's group is at
``head * max_groups + group``. ``resident`` [kv_heads, slots, 2, group_size, dim] on the device
holds the pages that are read: sinks, a ring of recent groups, and the page cache in the slots after
those.

A page cache is three int32 tensors: ``table`` [kv_heads, max_groups], the cache slot of a group or
-1; ``owner`` [kv_heads, cache_slots], the group in a slot or -1; ``stamps`` [kv_heads,
cache_slots], the step that used a slot last, -1 for none.
"""

import itertools
from dataclasses import dataclass

import torch

from hga_kernels.reference.attention import attend_pages
from hga_kernels.reference.model import rms_norm, rotate
from hga_kernels.reference.selection import STRATA, draw_numbers

CHUNK = 64
MISSING = 1 << 30
"""Set in a place whose page has yet to be fetched into its slot."""
MOST_AGE = 1023
"""Slots that were not used for so many steps, or never, are equally old."""


@dataclass(frozen=True)
class Window:
    """The slots of ``resident`` that are no cache: groups that every query reads.

    Recent groups are those of the open chunk and of whole chunks before it; group g is in slot
    ``sinks + g % recent``. Sinks are in slots of their own, and in the ring while they are recent.
    """

    sinks: int = 4
    """Groups from the start of a session."""
    recent: int = 4
    """Groups, those of whole chunks."""
    group_size: int = 16
    """Tokens of a group."""

    @property
    def slots(self) -> int:
        """Slots of the window; those of the cache follow."""
        return self.sinks + self.recent

    def recent_groups(self, position: int) -> range:
        """Groups of the ring for a query at ``position``, without sinks."""
        return range(
            max(self.sinks, self.end(position) - self.recent), position // self.group_size + 1
        )

    def end(self, position: int) -> int:
        """The group after the chunk of a position."""
        return (position // CHUNK + 1) * (CHUNK // self.group_size)


WINDOW = Window()
"""Of the router's own configuration."""


def list_window(position: torch.Tensor, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
    """The groups that a query reads anyhow.

    Args:
        position: [1] int32 of the query.
        window: how many there are.

    Returns:
        groups: [window.slots] int32, -1 for none.
        slots: [window.slots] int32: where they are in ``resident``.
    """
    last = position // window.group_size
    sinks = torch.arange(window.sinks, dtype=torch.int32, device=position.device)
    recent = torch.arange(window.recent, dtype=torch.int32, device=position.device)
    per_chunk = CHUNK // window.group_size
    recent = (last // per_chunk + 1) * per_chunk - window.recent + recent
    groups = torch.cat((sinks, recent.masked_fill(recent < window.sinks, -1)))
    slots = torch.cat((sinks, window.sinks + recent % window.recent))
    return groups.masked_fill(groups > last, -1), slots


def write_token(
    heads: torch.Tensor,
    q_norm: torch.Tensor | None,
    k_norm: torch.Tensor | None,
    eps: float,
    cos_table: torch.Tensor,
    sin_table: torch.Tensor,
    position: torch.Tensor,
    resident: torch.Tensor,
    host: torch.Tensor,
    num_query_heads: int,
    num_kv_heads: int,
    window: Window = WINDOW,
) -> torch.Tensor:
    """Turn one token's queries and keys, and write its K and V to the window and to the host.

    Args:
        heads: [1, (num_query_heads + 2 * num_kv_heads) * head_dim]: queries, keys, values.
        q_norm: [head_dim] RMSNorm weight of queries; None: they have no norm.
        k_norm: the same of keys.
        eps: of the norms.
        cos_table: [context, head_dim / 2] float32.
        sin_table: likewise.
        position: [1] int32 of the token.
        resident: [num_kv_heads, slots, 2, group_size, head_dim].
        host: [num_kv_heads * max_groups, 2, group_size, head_dim].
        num_query_heads: query heads.
        num_kv_heads: KV heads.
        window: the slots of sinks and recent groups.

    Returns:
        [num_query_heads, head_dim] queries after RoPE.
    """
    place = int(position)
    group, row = divmod(place, window.group_size)
    split = heads.view(num_query_heads + 2 * num_kv_heads, -1)
    queries, keys, values = split.split((num_query_heads, num_kv_heads, num_kv_heads))
    if q_norm is not None and k_norm is not None:
        queries = rms_norm(queries, q_norm, eps)
        keys = rms_norm(keys, k_norm, eps)
    turning = torch.cat((queries, keys))[None]
    angles = cos_table[place : place + 1], sin_table[place : place + 1]
    turned: torch.Tensor = rotate(turning, *angles, turning.shape[1])[0]
    pair = torch.stack((turned[num_query_heads:], values), 1)  # [kv_heads, 2, dim]
    resident[:, window.sinks + group % window.recent, :, row] = pair
    if group < window.sinks:
        resident[:, group, :, row] = pair
    host.unflatten(0, (num_kv_heads, -1))[:, group, :, row] = pair.to(host.device)
    return turned[:num_query_heads]


def resolve_pages(
    groups: torch.Tensor,
    table: torch.Tensor,
    owner: torch.Tensor,
    stamps: torch.Tensor,
    step: torch.Tensor,
    counts: torch.Tensor,
    per_chunk: int,
) -> torch.Tensor:
    """Find chosen pages in the page cache, and give those that are not there a slot.

    Every n-th slot belongs to a stratum (``STRATA``), and holds its groups only. Reused
    are those least recently used, the lowest first among those of the same age or of ``MOST_AGE``,
    never one that this step uses. Missing groups get them in the order of both.

    Args:
        groups: [kv_heads, budget] int32, -1 for none; no group twice.
        table: [kv_heads, max_groups] int32, updated.
        owner: [kv_heads, cache_slots] int32, ``least_slots`` or more, updated.
        stamps: like ``owner``, updated.
        step: [1] int32, one more with every call; where it starts anew, older stamps that are
            larger count as the step before.
        counts: [2] int64: hits and misses, added to.
        per_chunk: groups of a chunk.

    Returns:
        [kv_heads, budget] int32 cache slots, with ``MISSING`` set where the page has to be fetched
        into it; -1 for none.
    """
    now = int(step)
    places = torch.full_like(groups, -1)
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
        ages = [min(now - min(stamp, now - 1), MOST_AGE) for stamp in stamps[head].tolist()]
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
            places[head, i] = slots[group]
        counts[0] += len(wanted) - len(missing)
        counts[1] += len(missing)
    return places


def least_slots(budget: int, per_chunk: int) -> int:
    """Slots of a KV head in which every choice of ``take_groups`` has a place."""
    # A stratum may have a chunk more than the others, and a group more by rounding.
    return budget + STRATA * (per_chunk + 2)


def likely_groups(
    heads: int,
    cache_slots: int,
    first_group: int,
    end_group: int,
    per_chunk: int,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The groups that most queries draw, for a page cache that is empty.

    What a query draws depends on its fixed number (``draw_numbers``) as well as on its
    mass: of groups alike those of the smallest numbers are drawn, by every query.

    Args:
        heads: KV heads of all layers.
        cache_slots: of a KV head.
        first_group: the first that may be chosen.
        end_group: the first that may not, not below ``first_group``; both are of whole chunks.
        per_chunk: groups of a chunk.
        device: of the results.

    Returns:
        groups: [heads, n] int64, n <= cache_slots.
        slots: [n] int64: where to put them, each in a slot of its stratum. The likeliest are in the
            last ones, as ``resolve_pages`` reuses the first.
    """
    numbered = torch.arange(first_group, end_group, device=device)
    groups, slots = [], []
    for stratum in range(STRATA):
        own = numbered[numbered // per_chunk % STRATA == stratum]
        places = torch.arange(stratum, cache_slots, STRATA, device=device)
        count = min(len(own), len(places))
        numbers = draw_numbers(0, heads, own.expand(heads, -1))
        groups.append(own[numbers.topk(count, largest=False).indices.flip(1)])
        slots.append(places[:count])
    return torch.cat(groups, 1), torch.cat(slots)


def attend_resident(
    queries: torch.Tensor,
    groups: torch.Tensor,
    places: torch.Tensor,
    position: torch.Tensor,
    resident: torch.Tensor,
    host: torch.Tensor,
    scale: float,
    mass: torch.Tensor | None = None,
    window: Window = WINDOW,
    importance: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of one token over sinks, recent groups and chosen pages.

    Pages that are missing are read from the host, and written to their slots.

    Args:
        queries: [query_heads, head_dim], after RoPE.
        groups: [kv_heads, budget] int32 chosen groups, neither sinks nor recent, -1 for none.
        places: [kv_heads, budget] int32, from ``resolve_pages``.
        position: [1] int32 of the token, whose K and V are in ``resident``.
        resident: [kv_heads, slots, 2, group_size, head_dim].
        host: [kv_heads * max_groups, 2, group_size, head_dim].
        scale: of the scores, above 0.
        mass: [max_groups] float32, added to: each group's weights, summed over query heads.
        window: the slots of sinks and recent groups.
        importance: [kv_heads, budget] float32: how many groups each stands for; None: one.

    Returns:
        [query_heads, head_dim].
    """
    kv_heads = resident.shape[0]
    always, slots = list_window(position, window)
    of_host = host.unflatten(0, (kv_heads, -1))
    for head in range(kv_heads):
        for group, place in zip(groups[head].tolist(), places[head].tolist(), strict=True):
            if place >= MISSING:
                resident[head, window.slots + place - MISSING] = of_host[head, group]
    fixed = slots.expand(kv_heads, -1)
    chosen = window.slots + (places.clamp_min(0) & (MISSING - 1))
    per_head = torch.arange(kv_heads, device=resident.device)[:, None] * resident.shape[1]
    listed = always.expand(kv_heads, -1)
    if importance is not None:
        once = importance.new_ones(kv_heads, listed.shape[1])
        importance = torch.cat((once, importance), 1)[None]
    listed = torch.cat((listed, groups.masked_fill(places < 0, -1)), 1)
    out, weights = attend_pages(
        queries[None, None],
        position[None],
        listed[None],
        (torch.cat((fixed, chosen), 1) + per_head)[None],
        resident.flatten(0, 1),
        scale,
        with_mass=mass is not None,
        importance=importance,
    )
    if mass is not None and weights is not None:
        mass.index_add_(0, listed.clamp_min(0).flatten().long(), weights.flatten())
    return out[0, 0]


def load_window(
    host: torch.Tensor, resident: torch.Tensor, position: torch.Tensor, window: Window = WINDOW
) -> None:
    """Copy sinks and recent groups of all layers from the host.

    Recent ones are those of the last token that the host holds: where a chunk begins, the one
    before it still has to be indexed.

    Args:
        host: [layers, kv_heads * max_groups, 2, group_size, head_dim].
        resident: [layers, kv_heads, slots, 2, group_size, head_dim], written.
        position: [1] int32 of the next token; the host holds those before it.
        window: the slots of sinks and recent groups.
    """
    now = int(position)
    of_host = host.unflatten(1, (resident.shape[1], -1))
    for group in range(min(window.sinks, -(-now // window.group_size))):
        resident[:, :, group] = of_host[:, :, group].to(resident.device)
    end = window.end(max(now - 1, 0))
    for group in range(max(0, end - window.recent), -(-now // window.group_size)):
        slot = window.sinks + group % window.recent
        resident[:, :, slot] = of_host[:, :, group].to(resident.device)


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
    table: torch.Tensor, ids: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Rows of a table, such as embeddings of tokens.

    Args:
        table: [rows, size], pinned where ``ids`` are on a GPU.
        ids: [n] int64.
        out: [n, size] where they go; None: new memory.

    Returns:
        [n, size] on the device of ``ids``; NaN where an id is outside of the table.
    """
    inside = (ids >= 0) & (ids < table.shape[0])
    rows = table[ids.where(inside, 0).to(table.device)].to(ids.device)
    rows = rows.masked_fill(~inside[:, None], float("nan"))
    return rows if out is None else out.copy_(rows)
