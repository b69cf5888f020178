"""K/V pages while tokens are decoded: writing them, the page cache, the window.

Shapes and meanings are those of ``reference_pages``. Host memory is pinned, and read and written
in place.
"""

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.gpu.build import (
    GROUP_SIZES,
    Build,
    Launch,
    capability,
    launches_for,
    overlap,
    pick,
)
from hga_kernels.gpu.topk import oldest
from hga_kernels.reference.pages import CHUNK, MISSING, MOST_AGE, WINDOW, Window
from hga_kernels.reference.selection import STRATA

_CHUNK = tl.constexpr(CHUNK)
_MISSING = tl.constexpr(MISSING)
_MOST_AGE = tl.constexpr(MOST_AGE)
_STRATA = tl.constexpr(STRATA)
_IN_USE = tl.constexpr(2**31 - 1)
"""Later than every step."""

WRITE = {90: Launch({}, warps=1, stages=1)}
RESOLVE: dict[int, dict[int, Launch]] = {
    512: {90: Launch({}, warps=1, stages=1)},
    2**16: {90: Launch({}, warps=4, stages=1)},
}
"""By the most slots of a cache."""
LOAD = {90: Launch({}, warps=4, stages=1)}
GATHER = {90: Launch({"COLUMNS": 2048}, warps=8, stages=1)}
CANDIDATES = {
    "resolve_pages": tuple(Launch({}, warps=w, stages=1) for w in (1, 2, 4, 8)),
    "gather_rows": tuple(
        Launch({"COLUMNS": columns}, warps=warps, stages=1)
        for columns, warps in ((512, 2), (1024, 4), (2048, 4), (2048, 8))
    ),
}


@triton.jit
def _write_token(
    heads,
    q_norm,
    k_norm,
    cos_table,
    sin_table,
    position_at,
    resident,
    host,
    queries,
    eps,
    num_query_heads,
    num_kv_heads,
    resident_slots,
    max_groups,
    DIM: tl.constexpr,
    NORM: tl.constexpr,
    SINKS: tl.constexpr,
    RECENT: tl.constexpr,
    GROUP: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    # One program a head: queries, then keys, then values.
    if OVERLAPS:
        gdc_launch_dependents()
        gdc_wait()
    head = tl.program_id(0)
    half = tl.arange(0, DIM // 2)
    position = tl.load(position_at)
    first = tl.load(heads + head * DIM + half)
    second = tl.load(heads + head * DIM + DIM // 2 + half)
    if head < num_query_heads + num_kv_heads:
        wide_first, wide_second = first.to(tl.float32), second.to(tl.float32)
        if NORM:
            norm = tl.where(head < num_query_heads, q_norm, k_norm)
            squares = tl.sum(wide_first * wide_first + wide_second * wide_second, 0)
            factor = tl.rsqrt(squares / DIM + eps)
            normed_first = (wide_first * factor).to(first.dtype).to(tl.float32)
            normed_second = (wide_second * factor).to(first.dtype).to(tl.float32)
            scaled_first = normed_first * tl.load(norm + half).to(tl.float32)
            scaled_second = normed_second * tl.load(norm + DIM // 2 + half).to(tl.float32)
            wide_first = scaled_first.to(first.dtype).to(tl.float32)
            wide_second = scaled_second.to(first.dtype).to(tl.float32)
        cos = tl.load(cos_table + position * (DIM // 2) + half)
        sin = tl.load(sin_table + position * (DIM // 2) + half)
        first = (wide_first * cos - wide_second * sin).to(first.dtype)
        second = (wide_second * cos + wide_first * sin).to(first.dtype)
    if head < num_query_heads:
        tl.store(queries + head * DIM + half, first)
        tl.store(queries + head * DIM + DIM // 2 + half, second)
    else:
        which = (head - num_query_heads) // num_kv_heads
        kv_head = (head - num_query_heads) % num_kv_heads
        group = position // GROUP
        inside = (which * GROUP + position % GROUP) * DIM
        page = 2 * GROUP * DIM
        ring = kv_head * resident_slots + SINKS + group % RECENT
        at = resident + ring.to(tl.int64) * page + inside + half
        tl.store(at, first)
        tl.store(at + DIM // 2, second)
        if group < SINKS:
            sink = kv_head * resident_slots + group
            at = resident + sink.to(tl.int64) * page + inside + half
            tl.store(at, first)
            tl.store(at + DIM // 2, second)
        at = host + (kv_head * max_groups + group).to(tl.int64) * page + inside + half
        tl.store(at, first)
        tl.store(at + DIM // 2, second)


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
) -> torch.Tensor | None:
    """See ``reference.write_token``."""
    dim = resident.shape[-1]
    if not _takes(resident) or cos_table.dtype != torch.float32:
        return None
    queries = heads.new_empty(num_query_heads, dim)
    _write_token[(num_query_heads + 2 * num_kv_heads,)](
        heads,
        q_norm,
        k_norm,
        cos_table,
        sin_table,
        position,
        resident,
        host,
        queries,
        eps,
        num_query_heads,
        num_kv_heads,
        resident.shape[1],
        host.shape[0] // num_kv_heads,
        DIM=dim,
        NORM=q_norm is not None,
        SINKS=window.sinks,
        RECENT=window.recent,
        GROUP=resident.shape[3],
        **overlap(heads.device),
        **pick(WRITE, capability(heads.device)).options(),
    )
    return queries


@triton.jit
def slots_of(stratum, SLOTS: tl.constexpr):
    """The slots of a stratum; there are SLOTS or fewer in the cache."""
    return tl.arange(0, SLOTS) * _STRATA + stratum


@triton.jit
def mark_used(known, listed, stamps, step, counts):
    """Count hits and misses of one stratum, and mark the slots that this step uses.

    Args: ``known`` are cache slots or -1, ``listed`` which of them are wanted; ``stamps`` of the
    head. Returns: the number of misses. Where there are some, ``give_slots`` has to follow.
    """
    hit = listed & (known >= 0)
    misses = tl.sum((listed & (known < 0)).to(tl.int32), 0)
    tl.atomic_add(counts, tl.sum(hit.to(tl.int64), 0), sem="relaxed")
    tl.atomic_add(counts + 1, misses.to(tl.int64), sem="relaxed")
    tl.store(stamps + known, tl.where(misses > 0, _IN_USE, step), mask=hit)
    return misses


@triton.jit
def give_slots(
    misses,
    slot,
    old,
    groups,
    places,
    table,
    owner,
    stamps,
    step,
    budget,
    cache_slots,
    BUDGET: tl.constexpr,
):
    """Give the missing groups of one stratum of a KV head the slots least recently used.

    Args: ``slot`` are those of the stratum, from ``slots_of``, ``old`` the groups in them;
    ``groups`` and ``places`` are its part, the other pointers those of the head. ``places`` hold
    the slots of groups that are there and -1. ``BUDGET`` is a power of two, at least ``budget``.
    """
    # Groups, places and stamps were written by other threads.
    tl.debug_barrier()
    lane = tl.arange(0, BUDGET)
    group = tl.load(groups + lane, mask=lane < budget, other=-1)
    place = tl.load(places + lane, mask=lane < budget, other=-1)
    stamp = tl.load(stamps + slot, mask=slot < cache_slots, other=_IN_USE)
    missing = (group >= 0) & (place < 0)
    nth = tl.cumsum(missing.to(tl.int32), 0) - 1
    age = tl.minimum(step - tl.minimum(stamp, step - 1), _MOST_AGE)
    usable = (slot < cache_slots) & (stamp != _IN_USE)
    reused, rank = oldest(age, usable, misses)
    tl.store(table + old, -1, mask=reused & (old >= 0))
    tl.store(stamps + slot, step, mask=reused | ((slot < cache_slots) & (stamp == _IN_USE)))
    # The n-th slot meets the n-th missing group through memory.
    tl.debug_barrier()
    tl.store(places + rank, slot, mask=reused)
    tl.debug_barrier()
    given = tl.load(places + nth, mask=missing, other=0)
    tl.store(owner + given, group, mask=missing)
    tl.store(table + group, given, mask=missing)
    tl.debug_barrier()
    tl.store(places + lane, tl.where(missing, given | _MISSING, place), mask=lane < budget)


@triton.jit
def _resolve_pages(
    groups,
    places,
    table,
    owner,
    stamps,
    step_at,
    counts,
    budget,
    cache_slots,
    max_groups,
    per_chunk,
    BUDGET: tl.constexpr,
    SLOTS: tl.constexpr,
):
    head = tl.program_id(0)
    groups += head * budget
    places += head * budget
    table += head * max_groups
    owner += head * cache_slots
    stamps += head * cache_slots
    lane = tl.arange(0, BUDGET)
    group = tl.load(groups + lane, mask=lane < budget, other=-1)
    step = tl.load(step_at)
    place = tl.load(table + group, mask=group >= 0, other=-1)
    # One stratum after the other, as all may be mixed.
    for stratum in range(_STRATA):
        own = (group >= 0) & (group // per_chunk % _STRATA == stratum)
        slot = slots_of(stratum, SLOTS)
        old = tl.load(owner + slot, mask=slot < cache_slots, other=-1)
        tl.store(places + lane, tl.where(own, place, 0), mask=lane < budget)
        misses = mark_used(place, own, stamps, step, counts)
        if misses > 0:
            give_slots(
                *(misses, slot, old, groups, places, table, owner, stamps, step, budget),
                *(cache_slots, BUDGET),
            )
            tl.debug_barrier()
            place = tl.where(own, tl.load(places + lane, lane < budget, -1), place)
            tl.debug_barrier()
    tl.store(places + lane, place, mask=lane < budget)


def padded_slots(cache_slots: int, warps: int) -> int:
    """``SLOTS`` of ``slots_of`` for a program of so many warps."""
    return max(int(triton.next_power_of_2(-(-cache_slots // STRATA))), 32 * warps)


def resolve_pages(
    groups: torch.Tensor,
    table: torch.Tensor,
    owner: torch.Tensor,
    stamps: torch.Tensor,
    step: torch.Tensor,
    counts: torch.Tensor,
    per_chunk: int,
) -> torch.Tensor | None:
    """See ``reference.resolve_pages``."""
    kv_heads, budget = groups.shape
    cache_slots = owner.shape[1]
    places = torch.empty_like(groups)
    launch = pick(launches_for(RESOLVE, cache_slots), capability(groups.device))
    _resolve_pages[(kv_heads,)](
        groups,
        places,
        table,
        owner,
        stamps,
        step,
        counts,
        budget,
        cache_slots,
        table.shape[1],
        per_chunk,
        BUDGET=triton.next_power_of_2(budget),
        SLOTS=padded_slots(cache_slots, launch.warps),
        **launch.options(),
    )
    return places


@triton.jit
def _load_window(
    host,
    resident,
    position_at,
    max_groups,
    resident_slots,
    SIZE: tl.constexpr,
    SINKS: tl.constexpr,
    RECENT: tl.constexpr,
    GROUP: tl.constexpr,
):
    slot, head, layer = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = layer * tl.num_programs(1) + head
    position = tl.load(position_at)
    group = slot
    if slot >= SINKS:
        # The one group of the window's span that the ring holds there. A chunk that has just been
        # closed is to be indexed from there.
        first = (tl.maximum(position - 1, 0) // _CHUNK + 1) * (_CHUNK // GROUP) - RECENT
        group = first + ((slot - SINKS - first) % RECENT + RECENT) % RECENT
    if (group >= 0) & (group * GROUP < position):
        element = tl.arange(0, SIZE)
        source = row.to(tl.int64) * max_groups + group
        target = row.to(tl.int64) * resident_slots + slot
        tl.store(resident + target * SIZE + element, tl.load(host + source * SIZE + element))


def load_window(
    host: torch.Tensor, resident: torch.Tensor, position: torch.Tensor, window: Window = WINDOW
) -> bool | None:
    """See ``reference.load_window``; True when it has done so."""
    layers, kv_heads, slots, _, group, dim = resident.shape
    if not _takes(resident):
        return None
    _load_window[(window.slots, kv_heads, layers)](
        host,
        resident,
        position,
        host.shape[1] // kv_heads,
        slots,
        SIZE=2 * group * dim,
        SINKS=window.sinks,
        RECENT=window.recent,
        GROUP=group,
        **pick(LOAD, capability(resident.device)).options(),
    )
    return True


@triton.jit
def _gather_rows(table, ids, out, rows, size, COLUMNS: tl.constexpr):
    place = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.load(ids + place)
    known = tl.where((row >= 0) & (row < rows), size, 0)
    values = tl.load(table + row * size + column, mask=column < known, other=float("nan"))
    tl.store(out + place * size + column, values, mask=column < size)


def gather_rows(
    table: torch.Tensor, ids: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor | None:
    """See ``reference.gather_rows``; ``out`` [n, size] is contiguous."""
    if not table.is_contiguous():
        return None
    rows, size = table.shape
    if out is None:
        out = torch.empty(ids.shape[0], size, dtype=table.dtype, device=ids.device)
    launch = pick(GATHER, capability(ids.device))
    if ids.shape[0]:
        _gather_rows[(ids.shape[0], triton.cdiv(size, launch.sizes["COLUMNS"]))](
            table, ids, out, rows, size, **launch.options()
        )
    return out


def _takes(pages: torch.Tensor) -> bool:
    """Whether these are bf16 pages of a size the kernels take."""
    dim = pages.shape[-1]
    sizes = pages.shape[-2] in GROUP_SIZES and dim & (dim - 1) == 0 and dim >= 16
    return pages.dtype == torch.bfloat16 and sizes


_INTEGERS = ("num_query_heads", "num_kv_heads", "resident_slots", "max_groups", "budget")
_WRITE_TYPES = {
    **dict.fromkeys(("heads", "q_norm", "k_norm", "resident", "host", "queries"), "*bf16"),
    **dict.fromkeys(("cos_table", "sin_table"), "*fp32"),
    "position_at": "*i32",
    "eps": "fp32",
    **dict.fromkeys(_INTEGERS, "i32"),
}
_NO_NORM = {"NORM": False, "q_norm": None, "k_norm": None}


def _builds(group: int) -> tuple[Build, ...]:
    window = {"SINKS": 64 // group, "RECENT": 64 // group, "GROUP": group}
    token = {**window, "OVERLAPS": True}
    return (
        Build(
            f"write_token/qwen3/{group}",
            _write_token,
            _WRITE_TYPES,
            WRITE,
            {"DIM": 128, "NORM": True, **token},
        ),
        Build(
            f"write_token/smollm2/{group}",
            _write_token,
            _WRITE_TYPES,
            WRITE,
            {"DIM": 64, **_NO_NORM, **token},
        ),
        Build(
            f"resolve_pages/{group}",
            _resolve_pages,
            {
                **dict.fromkeys(("groups", "places", "table", "owner", "stamps"), "*i32"),
                "step_at": "*i32",
                "counts": "*i64",
                **dict.fromkeys(("budget", "cache_slots", "max_groups", "per_chunk"), "i32"),
            },
            RESOLVE[512 if group == 16 else 2**16],
            {"BUDGET": 2048 // group, "SLOTS": 2048 // group},
        ),
        Build(
            f"load_window/{group}",
            _load_window,
            {
                **dict.fromkeys(("host", "resident"), "*bf16"),
                "position_at": "*i32",
                **dict.fromkeys(("max_groups", "resident_slots"), "i32"),
            },
            LOAD,
            {"SIZE": 2 * group * 128, **window},
        ),
    )


BUILDS = (
    *_builds(16),
    *_builds(2),
    Build(
        "gather_rows",
        _gather_rows,
        {**dict.fromkeys(("table", "out"), "*bf16"), "ids": "*i64", "rows": "i32", "size": "i32"},
        GATHER,
    ),
)
"""In groups of 16 and of 2 tokens."""
