"""K/V pages while tokens are decoded: writing a token, the page cache, the window.

Shapes are those of ``arguments.LayerPages`` and ``arguments.PageTable``. Host memory is pinned, and
read and written in place.
"""

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.arguments import CHUNK, Angles, HeadWeights, LayerPages, PageTable, Window
from hga_kernels.gpu.build import (
    GROUP_SIZES,
    Build,
    Launch,
    capability,
    launches_for,
    overlap,
    pick,
)
from hga_kernels.gpu.launch import Kernel, next_power_of_2
from hga_kernels.gpu.lru import least_recently_used
from hga_kernels.reference.pages import MAX_AGE, MISSING
from hga_kernels.reference.selection import STRATA

_CHUNK = tl.constexpr(CHUNK)
_MISSING = tl.constexpr(MISSING)
_MAX_AGE = tl.constexpr(MAX_AGE)
_STRATA = tl.constexpr(STRATA)
_IN_USE = tl.constexpr(2**31 - 1)
"""The stamp of a slot that this step uses: later than every step."""

WRITE = {90: Launch({}, warps=1, stages=1)}
RESOLVE: dict[int, dict[int, Launch]] = {
    512: {90: Launch({}, warps=1, stages=1)},
    2**16: {90: Launch({}, warps=4, stages=1)},
}
"""By the largest number of cache slots that each is for."""
LOAD = {90: Launch({}, warps=4, stages=1)}
CANDIDATES = {
    "resolve_pages": tuple(Launch({}, warps=warps, stages=1) for warps in (1, 2, 4, 8)),
}


@Kernel
@triton.jit
def _write_token(
    heads,
    q_norm,
    k_norm,
    bias,
    key_shift,
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
    HAS_BIAS: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
    SINKS: tl.constexpr,
    GROUP: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    # One program per head: queries, then keys, then values.
    OPEN: tl.constexpr = _CHUNK // GROUP
    if OVERLAPS:
        gdc_launch_dependents()
        gdc_wait()
    head = tl.program_id(0)
    half = tl.arange(0, DIM // 2)
    position = tl.load(position_at)
    first = tl.load(heads + head * DIM + half)
    second = tl.load(heads + head * DIM + DIM // 2 + half)
    if HAS_BIAS:
        first = first.to(tl.float32) + tl.load(bias + head * DIM + half)
        second = second.to(tl.float32) + tl.load(bias + head * DIM + DIM // 2 + half)
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
        rotated_first = wide_first * cos - wide_second * sin
        rotated_second = wide_second * cos + wide_first * sin
        if HAS_SHIFT and head >= num_query_heads:
            shift = key_shift + (head - num_query_heads) * DIM + half
            rotated_first -= tl.load(shift)
            rotated_second -= tl.load(shift + DIM // 2)
        first = rotated_first.to(first.dtype)
        second = rotated_second.to(first.dtype)
    first = first.to(queries.dtype.element_ty)
    second = second.to(queries.dtype.element_ty)
    if head < num_query_heads:
        tl.store(queries + head * DIM + half, first)
        tl.store(queries + head * DIM + DIM // 2 + half, second)
    else:
        which = (head - num_query_heads) // num_kv_heads
        kv_head = (head - num_query_heads) % num_kv_heads
        group = position // GROUP
        inside = (which * GROUP + position % GROUP) * DIM
        page = 2 * GROUP * DIM
        ring = kv_head * resident_slots + SINKS + group % OPEN
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
    weights: HeadWeights,
    angles: Angles,
    position: torch.Tensor,
    pages: LayerPages,
) -> torch.Tensor | None:
    """See ``reference.write_token``; None for pages that the kernel does not take."""
    resident, host = pages.resident, pages.host
    if not _takes(resident) or angles.cos.dtype != torch.float32:
        return None
    num_kv_heads, slots, _, group_size, dim = resident.shape
    num_query_heads = heads.numel() // dim - 2 * num_kv_heads
    queries = resident.new_empty(num_query_heads, dim)
    _write_token[(num_query_heads + 2 * num_kv_heads,)](
        heads,
        weights.q_norm,
        weights.k_norm,
        weights.bias,
        weights.key_shift,
        angles.cos,
        angles.sin,
        position,
        resident,
        host,
        queries,
        weights.eps,
        num_query_heads,
        num_kv_heads,
        slots,
        host.shape[0] // num_kv_heads,
        DIM=dim,
        NORM=weights.q_norm is not None,
        HAS_BIAS=weights.bias is not None,
        HAS_SHIFT=weights.key_shift is not None,
        SINKS=pages.window.sinks,
        GROUP=group_size,
        **overlap(heads.device),
        **pick(WRITE, capability(heads.device)).options(),
    )
    return queries


@triton.jit
def slots_of(stratum, SLOTS: tl.constexpr):
    """Return the cache slots of a stratum; SLOTS is at least as many as it has."""
    return tl.arange(0, SLOTS) * _STRATA + stratum


@triton.jit
def mark_used(known, listed, stamps, step, counts):
    """Count hits and misses of one stratum, and mark the slots that this step uses.

    Args: ``known``: cache slots or -1; ``listed``: which of them are chosen; ``stamps``: of the
    KV head. Returns: the number of misses. Unless it is zero, ``give_slots`` must follow.
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
    slots,
    table,
    owner,
    stamps,
    step,
    budget,
    cache_slots,
    BUDGET: tl.constexpr,
):
    """Give the missing groups of one stratum of a KV head the least recently used slots.

    Args: ``slot``: the slots of the stratum, from ``slots_of``; ``old``: the groups in them;
    ``groups`` and ``slots``: pointers to the stratum's part of the selection, where ``slots`` holds
    the slots of cached groups and -1 for missing ones; ``table``, ``owner`` and ``stamps``: of the
    KV head. BUDGET is a power of two, at least ``budget``.
    """
    # Groups, slots and stamps were written by other threads.
    tl.debug_barrier()
    lane = tl.arange(0, BUDGET)
    group = tl.load(groups + lane, mask=lane < budget, other=-1)
    cached = tl.load(slots + lane, mask=lane < budget, other=-1)
    stamp = tl.load(stamps + slot, mask=slot < cache_slots, other=_IN_USE)
    missing = (group >= 0) & (cached < 0)
    nth = tl.cumsum(missing.to(tl.int32), 0) - 1
    age = tl.minimum(step - tl.minimum(stamp, step - 1), _MAX_AGE)
    usable = (slot < cache_slots) & (stamp != _IN_USE)
    reused, rank = least_recently_used(age, usable, misses)
    tl.store(table + old, -1, mask=reused & (old >= 0))
    tl.store(stamps + slot, step, mask=reused | ((slot < cache_slots) & (stamp == _IN_USE)))
    # The n-th reused slot goes to the n-th missing group, by way of memory.
    tl.debug_barrier()
    tl.store(slots + rank, slot, mask=reused)
    tl.debug_barrier()
    given = tl.load(slots + nth, mask=missing, other=0)
    tl.store(owner + given, group, mask=missing)
    tl.store(table + group, given, mask=missing)
    tl.debug_barrier()
    tl.store(slots + lane, tl.where(missing, given | _MISSING, cached), mask=lane < budget)


@Kernel
@triton.jit
def _resolve_pages(
    groups,
    slots,
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
    slots += head * budget
    table += head * max_groups
    owner += head * cache_slots
    stamps += head * cache_slots
    lane = tl.arange(0, BUDGET)
    group = tl.load(groups + lane, mask=lane < budget, other=-1)
    step = tl.load(step_at)
    found = tl.load(table + group, mask=group >= 0, other=-1)
    # Groups may come in any order, so every stratum looks at all of them.
    for stratum in range(_STRATA):
        own = (group >= 0) & (group // per_chunk % _STRATA == stratum)
        slot = slots_of(stratum, SLOTS)
        old = tl.load(owner + slot, mask=slot < cache_slots, other=-1)
        tl.store(slots + lane, tl.where(own, found, 0), mask=lane < budget)
        misses = mark_used(found, own, stamps, step, counts)
        if misses > 0:
            give_slots(
                misses,
                slot,
                old,
                groups,
                slots,
                table,
                owner,
                stamps,
                step,
                budget,
                cache_slots,
                BUDGET,
            )
            tl.debug_barrier()
            found = tl.where(own, tl.load(slots + lane, lane < budget, -1), found)
            tl.debug_barrier()
    tl.store(slots + lane, found, mask=lane < budget)


def padded_slots(cache_slots: int, warps: int) -> int:
    """Return SLOTS of ``slots_of``: a power of two, at least one slot per thread."""
    return max(int(next_power_of_2(-(-cache_slots // STRATA))), 32 * warps)


def resolve_pages(groups: torch.Tensor, cache: PageTable, per_chunk: int) -> torch.Tensor:
    """See ``reference.resolve_pages``."""
    kv_heads, budget = groups.shape
    cache_slots = cache.owner.shape[1]
    slots = torch.empty_like(groups)
    launch = pick(launches_for(RESOLVE, cache_slots), capability(groups.device))
    _resolve_pages[(kv_heads,)](
        groups,
        slots,
        cache.table,
        cache.owner,
        cache.stamps,
        cache.step,
        cache.counts,
        budget,
        cache_slots,
        cache.table.shape[1],
        per_chunk,
        BUDGET=next_power_of_2(budget),
        SLOTS=padded_slots(cache_slots, launch.warps),
        **launch.options(),
    )
    return slots


@Kernel
@triton.jit
def _load_window(
    host,
    resident,
    position_at,
    max_groups,
    resident_slots,
    SIZE: tl.constexpr,
    SINKS: tl.constexpr,
    GROUP: tl.constexpr,
):
    slot, head, layer = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = layer * tl.num_programs(1) + head
    position = tl.load(position_at)
    group = slot
    if slot >= SINKS:
        # The chunk of the last token: one that has just been closed is indexed from here.
        group = tl.maximum(position - 1, 0) // _CHUNK * (_CHUNK // GROUP) + slot - SINKS
    if (group >= 0) & (group * GROUP < position):
        element = tl.arange(0, SIZE)
        source = row.to(tl.int64) * max_groups + group
        target = row.to(tl.int64) * resident_slots + slot
        tl.store(resident + target * SIZE + element, tl.load(host + source * SIZE + element))


def load_window(
    host: torch.Tensor, resident: torch.Tensor, position: torch.Tensor, window: Window
) -> bool | None:
    """See ``reference.load_window``; True, or None for pages that the kernel does not take."""
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
        GROUP=group,
        **pick(LOAD, capability(resident.device)).options(),
    )
    return True


def _takes(pages: torch.Tensor) -> bool:
    """Tell whether these are bf16 pages of a size that the kernels take."""
    dim = pages.shape[-1]
    sizes = pages.shape[-2] in GROUP_SIZES and dim & (dim - 1) == 0 and dim >= 16
    return pages.dtype == torch.bfloat16 and sizes


_INTEGERS = ("num_query_heads", "num_kv_heads", "resident_slots", "max_groups", "budget")
_WRITE_TYPES = {
    **dict.fromkeys(("heads", "q_norm", "k_norm", "resident", "host", "queries"), "*bf16"),
    **dict.fromkeys(("cos_table", "sin_table", "bias", "key_shift"), "*fp32"),
    "position_at": "*i32",
    "eps": "fp32",
    **dict.fromkeys(_INTEGERS, "i32"),
}
_PLAIN = {"HAS_BIAS": False, "HAS_SHIFT": False, "bias": None, "key_shift": None}
_NO_NORM = {"NORM": False, "q_norm": None, "k_norm": None}


def _builds(group: int) -> tuple[Build, ...]:
    window = {"SINKS": CHUNK // group, "GROUP": group}
    token = {**window, "OVERLAPS": True}
    return (
        Build(
            f"write_token/qwen3/{group}",
            _write_token,
            _WRITE_TYPES,
            WRITE,
            {"DIM": 128, "NORM": True, **_PLAIN, **token},
        ),
        Build(
            f"write_token/smollm2/{group}",
            _write_token,
            _WRITE_TYPES,
            WRITE,
            {"DIM": 64, **_NO_NORM, **_PLAIN, **token},
        ),
        Build(
            f"write_token/qwen2/{group}",
            _write_token,
            _WRITE_TYPES,
            WRITE,
            {"DIM": 128, **_NO_NORM, "HAS_BIAS": True, "HAS_SHIFT": True, **token},
        ),
        Build(
            f"resolve_pages/{group}",
            _resolve_pages,
            {
                **dict.fromkeys(("groups", "slots", "table", "owner", "stamps"), "*i32"),
                "step_at": "*i32",
                "counts": "*i64",
                **dict.fromkeys(("budget", "cache_slots", "max_groups", "per_chunk"), "i32"),
            },
            RESOLVE[2**16],
            {"BUDGET": 4096 // group, "SLOTS": 4096 // group},
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
    *_builds(4),
    *_builds(2),
)
"""For groups of 4 and of 2 tokens."""
