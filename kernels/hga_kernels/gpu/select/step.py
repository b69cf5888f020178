"""Selection for one block of few query rows, as in a decode step: two kernels.

The second also finds the chosen pages in the page cache, if it is given one.
"""

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.gpu.build import Launch, capability, launches_for, overlap, pick
from hga_kernels.gpu.hadamard import load_quarters, turn_quarters
from hga_kernels.gpu.pages.attend import store_lse
from hga_kernels.gpu.pages.cache import give_slots, mark_used, padded_slots, slots_of
from hga_kernels.gpu.select.scores import (
    LIFT,
    LOG2_E,
    MOST_SCORE,
    draw_numbers,
    group_sums,
    importance_of,
    in_product_order,
    quantised,
    stratum_groups,
    stratum_room,
    token_products,
)
from hga_kernels.gpu.topk import heaviest
from hga_kernels.reference.pages import WINDOW, Window
from hga_kernels.reference.selection import STRATA

_STRATA = tl.constexpr(STRATA)


@dataclass(frozen=True)
class WindowPages:
    """Where the pages are that a token reads anyhow."""

    position: torch.Tensor
    """[1] int32 of the token."""
    resident: torch.Tensor
    """[kv_heads, slots, 2, group_size, head_dim], see ``reference_pages``."""
    sizes: Window = WINDOW


MAX_ROWS = 16
LEAST_ROWS = 8
"""Of a tile: a product has no fewer."""


def _score_launch(chunks: int, warps: int, registers: int = 0) -> Launch:
    sizes = {"CHUNKS": chunks, "WARPS": warps, "TOKENS": 128}
    return Launch(sizes, warps=warps, registers=registers)


SCORE_LAUNCHES = {90: _score_launch(8, 4), 120: _score_launch(8, 4)}
CHOOSE_LAUNCHES: dict[int, dict[int, Launch]] = {
    256: {90: Launch({}, warps=4), 120: Launch({}, warps=4)},
    512: {90: Launch({}, warps=16), 120: Launch({}, warps=16)},
    2**16: {90: Launch({}, warps=32), 120: Launch({}, warps=32)},
}
"""By the most places of a stratum."""

CANDIDATES = {
    "score_step": (
        _score_launch(8, 4),
        _score_launch(8, 4, 80),
        _score_launch(4, 4),
        _score_launch(8, 8),
        _score_launch(16, 8),
        _score_launch(16, 8, 80),
        _score_launch(32, 16),
    ),
    "choose_step": tuple(Launch({}, warps=warps) for warps in (4, 8, 16, 32)),
}


@triton.jit
def score_step_kernel(
    queries,
    summaries,
    codes,
    scales,
    end_chunks,
    sums,
    peaks,
    totals,
    scale,
    rows,
    query_stride,
    first_chunk,
    capacity,
    runs,
    position_at,
    resident,
    logs,
    resident_slots,
    ROWS: tl.constexpr,
    QUARTER: tl.constexpr,
    WIDTH: tl.constexpr,
    HEADS: tl.constexpr,
    SINKS: tl.constexpr,
    RECENT: tl.constexpr,
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,
    OVERLAPS: tl.constexpr,
    STANDS: tl.constexpr,
    CHUNKS: tl.constexpr,
    WARPS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """One program a run of CHUNKS chunks and KV head: weight per group and row.

    STANDS: no kernel that may still be running changes the index or ``end_chunks``. With HEADS the
    programs after the runs find the mass of TOKENS places each of what is read anyhow.
    """
    run, head = tl.program_id(0), tl.program_id(1)
    SIZE: tl.constexpr = CHUNKS * 64
    PER_CHUNK: tl.constexpr = 64 // GROUP
    REPEATS: tl.constexpr = SIZE // (16 * WARPS)
    dim: tl.constexpr = 4 * QUARTER
    if OVERLAPS:
        gdc_launch_dependents()
        if not STANDS:
            gdc_wait()
    end = tl.load(end_chunks)
    counts = (run * CHUNKS < end) & (run * CHUNKS + CHUNKS > first_chunk)
    # What is far away is asked for first.
    left = tl.where(counts, capacity - run * CHUNKS, 0)
    first = head * capacity + run * CHUNKS
    token, columns = tl.arange(0, SIZE), tl.arange(0, WIDTH)
    held = (token < left * 64)[:, None] & (columns < QUARTER)[None, :]
    start = codes + first.to(tl.int64) * (64 * QUARTER)
    code = tl.load(start + token[:, None] * QUARTER + columns[None, :], held, 0)
    token_scale = tl.load(scales + first * 64 + token, token < left * 64, 0)
    number = tl.arange(0, CHUNKS)
    s_a, s_b, s_c, s_d = load_quarters(
        summaries + first * dim, number, number < left, dim, QUARTER, WIDTH
    )
    if OVERLAPS and STANDS:
        gdc_wait()
    if counts:
        row = tl.arange(0, ROWS)
        q_a, q_b, q_c, q_d = load_quarters(
            queries + head * query_stride, row, row < rows, dim, QUARTER, WIDTH
        )
        kind = q_a.dtype
        q_a, q_b, q_c, q_d = tl.trans(q_a), tl.trans(q_b), tl.trans(q_c), tl.trans(q_d)
        a, b, c, d = turn_quarters(q_a, q_b, q_c, q_d, QUARTER, WIDTH, True)
        a, b, c, d, step, begin = quantised(a, b, c, d, 0)
        centre = tl.dot(s_a.to(kind), q_a)
        centre = tl.dot(s_b.to(kind), q_b, centre)
        centre = tl.dot(s_c.to(kind), q_c, centre)
        centre = tl.dot(s_d.to(kind), q_d, centre)
        number += run * CHUNKS
        choice = (number >= first_chunk) & (number < end)
        centre = tl.where(choice[:, None], centre * scale, -float("inf"))
        peak = tl.max(centre, 0)
        centre = tl.exp2(centre - peak[None, :])  # [CHUNKS, ROWS]

        code = in_product_order(code, REPEATS, WARPS, GROUP)
        products = token_products(code, a, b, c, d, begin, PACKED)
        ordered_scale = in_product_order(token_scale[:, None], REPEATS, WARPS, GROUP)
        ordered_scale = tl.reshape(ordered_scale, (SIZE,)).to(tl.float32)
        weight = group_sums(products, ordered_scale, step * scale, REPEATS, WARPS, GROUP)
        weight = tl.reshape(weight, (CHUNKS, PER_CHUNK, ROWS))
        weight = tl.where(choice[:, None, None], weight * centre[:, None, :], 0.0)
        weight = tl.reshape(weight, (CHUNKS * PER_CHUNK, ROWS))

        group = tl.arange(0, CHUNKS * PER_CHUNK)
        own = (head * runs + run) * (CHUNKS * PER_CHUNK)
        tl.store(sums + (own + group)[:, None] * ROWS + row[None, :], weight.to(tl.bfloat16))
        place = (head * runs + run) * ROWS + row
        tl.store(peaks + place, peak)
        tl.store(totals + place, tl.sum(weight, 0))
    if HEADS:  # noqa: SIM102 (decided when it is compiled)
        if run >= runs:
            store_lse(
                *(queries + head * query_stride, position_at, resident, logs, scale),
                *(resident_slots, run - runs, tl.num_programs(0) - runs, head),
                *(HEADS, dim, SINKS, RECENT, GROUP, ROWS, TOKENS),
            )


@triton.jit
def _held(run, first_chunk, end, rows, ROWS: tl.constexpr, CHUNKS: tl.constexpr):
    """Which runs and rows were scored: [runs, ROWS]."""
    scored = (run * CHUNKS < end) & (run * CHUNKS + CHUNKS > first_chunk)
    return scored[:, None] & (tl.arange(0, ROWS) < rows)[None, :]


@triton.jit
def _whole(peak, total, held, always, head, rows, parts, ROWS: tl.constexpr, PARTS: tl.constexpr):
    """The largest peak of each row, and what all its weights are beside it."""
    row = tl.arange(0, ROWS)
    most = tl.max(peak, 0)
    whole = tl.sum(total * tl.where(held, tl.exp2(peak - most[None, :]), 0.0), 0)
    if PARTS:
        part = tl.arange(0, PARTS)
        at = (head * parts + part)[:, None] * rows + row[None, :]
        there = (part < parts)[:, None] & (row < rows)[None, :]
        other = tl.load(always + at, there, -float("inf")) * LOG2_E - (most - LIFT)[None, :]
        whole += tl.sum(tl.exp2(tl.minimum(other, MOST_SCORE)), 0)
    return most, whole


@triton.jit
def _added_up(weight, peak, held, most, whole):
    """Masses of groups: weights [runs * groups, rows] normalised and added up over the rows."""
    share = tl.where(held, tl.exp2(peak - most[None, :]), 0.0)
    share = tl.where(held & (whole > 0)[None, :], share / whole[None, :], 0.0)
    GROUPS: tl.constexpr = weight.shape[0] // peak.shape[0]
    shared = tl.reshape(weight, (peak.shape[0], GROUPS, peak.shape[1])) * share[:, None, :]
    return tl.sum(tl.reshape(shared, weight.shape), 1)


@triton.jit(do_not_specialize=("first_head",))
def choose_step_kernel(
    end_chunks,
    sums,
    peaks,
    totals,
    always,
    groups,
    importance,
    places,
    table,
    owner,
    stamps,
    step_at,
    counts,
    rows,
    first_chunk,
    runs,
    budget,
    cache_slots,
    max_groups,
    parts,
    first_head,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
    CHUNKS: tl.constexpr,
    RUNS: tl.constexpr,
    BUDGET: tl.constexpr,
    SLOTS: tl.constexpr,
    PARTS: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program a KV head and stratum: mass per group, those drawn, with SLOTS their places.

    With PARTS what is read anyhow counts: ``always`` [kv_heads, parts, rows], logarithms.
    """
    head, stratum = tl.program_id(0), tl.program_id(1)
    PER_CHUNK: tl.constexpr = 64 // GROUP
    GROUPS: tl.constexpr = CHUNKS * PER_CHUNK
    if OVERLAPS:
        gdc_launch_dependents()
        gdc_wait()
    end = tl.load(end_chunks)
    number = stratum_groups(stratum, RUNS * GROUPS // _STRATA, PER_CHUNK)
    present = (number >= first_chunk * PER_CHUNK) & (number < end * PER_CHUNK)
    run, row = tl.arange(0, RUNS), tl.arange(0, ROWS)
    of_run = (head * runs + run)[:, None] * ROWS + row[None, :]
    held = _held(run, first_chunk, end, rows, ROWS, CHUNKS)
    peak = tl.load(peaks + of_run, held, -float("inf"))
    total = tl.load(totals + of_run, held, 0.0)
    # As one list of rows, so that neighbours read neighbours.
    at = (head * runs * GROUPS + number)[:, None] * ROWS + row[None, :]
    weight = tl.load(sums + at, present[:, None], 0.0).to(tl.float32)
    if SLOTS:
        known = tl.load(table + head * max_groups + number, present, -1)
        slot = slots_of(stratum, SLOTS)
        old = tl.load(owner + head * cache_slots + slot, slot < cache_slots, -1)
        step = tl.load(step_at)
    most, whole = _whole(peak, total, held, always, head, rows, parts, ROWS, PARTS)
    mass = _added_up(weight, peak, held, most, whole)

    odds = mass / draw_numbers(number, first_head + head)
    start, room, filled = stratum_room(stratum, first_chunk, end, budget, PER_CHUNK)
    taken, place, bound = heaviest(odds, present, room)
    groups += head * budget
    importance += head * budget
    tl.store(groups + start + place, number, taken)
    tl.store(importance + start + place, importance_of(mass, bound), taken)
    lane = tl.arange(0, BUDGET)
    rest = (lane >= tl.where(stratum == 0, filled, budget)) & (lane < budget)
    tl.store(groups + lane, -1, rest)
    tl.store(importance + lane, 1.0, rest)
    if SLOTS:
        places += head * budget
        tl.store(places + start + place, known, taken)
        tl.store(places + lane, -1, rest)
        misses = mark_used(known, taken, stamps + head * cache_slots, step, counts)
        if misses > 0:
            give_slots(
                *(misses, slot, old, groups + start, places + start, table + head * max_groups),
                *(owner + head * cache_slots, stamps + head * cache_slots, step),
                *(room, cache_slots, BUDGET),
            )


def select_few(
    queries: torch.Tensor,
    summaries: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    first_chunk: int,
    end_chunks: torch.Tensor,
    budget: int,
    group_size: int,
    last_chunk: int,
    scale: float,
    packed: bool,
    pages: tuple[torch.Tensor, ...] | None = None,
    always: torch.Tensor | None = None,
    layer: int = 0,
    window: WindowPages | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``reference.select_groups`` for one block of at most MAX_ROWS rows.

    ``pages`` are the places to fill in, and table, owner, stamps, step and counts of the page
    cache, as in ``reference.resolve_pages``. With them no kernel that may still be running
    changes the index or ``end_chunks``. ``always`` is contiguous float32 [kv_heads, parts, rows]:
    what is read anyhow may be given in parts. Or ``window`` says where it is.
    """
    kv_heads, _, rows, dim = queries.shape
    score = pick(SCORE_LAUNCHES, capability())
    chunks = score.sizes["CHUNKS"]
    groups_of_run = chunks * (64 // group_size)
    runs = -(-last_chunk // chunks)
    all_runs = int(triton.next_power_of_2(-(-summaries.shape[1] // chunks)))
    padded = max(int(triton.next_power_of_2(rows)), LEAST_ROWS)
    choose = pick(launches_for(CHOOSE_LAUNCHES, all_runs * groups_of_run // STRATA), capability())
    # ``heaviest`` wants a place a thread.
    all_runs = max(all_runs, 32 * choose.warps * STRATA // groups_of_run)
    device = queries.device
    sums = torch.empty(
        (kv_heads, runs * groups_of_run, padded), dtype=torch.bfloat16, device=device
    )
    peaks = torch.empty((kv_heads, runs, padded), dtype=torch.float32, device=device)
    totals = torch.empty_like(peaks)
    groups = torch.empty((1, kv_heads, budget), dtype=torch.int32, device=device)
    importance = torch.empty((1, kv_heads, budget), dtype=torch.float32, device=device)
    pieces = 0
    if window is not None:
        pieces = -(-window.sizes.slots * group_size // score.sizes["TOKENS"])
        always = torch.empty((kv_heads, pieces, rows), dtype=torch.float32, device=device)
    score_step_kernel[(runs + pieces, kv_heads)](
        queries,
        summaries,
        codes,
        scales,
        end_chunks,
        sums,
        peaks,
        totals,
        scale * math.log2(math.e),
        rows,
        queries.stride(0),
        first_chunk,
        summaries.shape[1],
        runs,
        None if window is None else window.position,
        None if window is None else window.resident,
        None if window is None else always,
        0 if window is None else window.resident.shape[1],
        ROWS=padded,
        QUARTER=dim // 4,
        WIDTH=max(dim // 4, 32),
        HEADS=0 if window is None else rows,
        SINKS=0 if window is None else window.sizes.sinks,
        RECENT=0 if window is None else window.sizes.recent,
        GROUP=group_size,
        PACKED=packed,
        STANDS=pages is not None,
        **overlap(device),
        **score.options(),
    )
    parts = 0 if always is None else always.shape[1]
    always = peaks if always is None else always
    sizes = {"ROWS": padded, "GROUP": group_size, "CHUNKS": chunks, "RUNS": all_runs}
    sizes |= {"PARTS": triton.next_power_of_2(parts) if parts else 0, **overlap(device)}
    _, table, owner, *_ = pages or (None,) * 6
    cache_slots = 0 if owner is None else owner.shape[1]
    choose_step_kernel[(kv_heads, STRATA)](
        end_chunks,
        sums,
        peaks,
        totals,
        always,
        groups,
        importance,
        *(pages or (None,) * 6),
        rows,
        first_chunk,
        runs,
        budget,
        cache_slots,
        0 if table is None else table.shape[1],
        parts,
        layer * kv_heads,
        BUDGET=triton.next_power_of_2(budget),
        SLOTS=padded_slots(cache_slots, choose.warps) if cache_slots else 0,
        **sizes,
        **choose.options(),
    )
    return groups, importance
