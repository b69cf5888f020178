"""Selection for one block of few query rows, as in a decode step.

Two kernels: the first scores groups, the second draws them and, if it is given a page cache, looks
up their pages.
"""

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.arguments import CHUNK, Budget, ChunkIndex, ChunkRange, PageTable, TokenWindow
from hga_kernels.gpu.build import Launch, capability, launches_for, overlap, pick
from hga_kernels.gpu.hadamard import load_quarters, transform_quarters
from hga_kernels.gpu.launch import Kernel, next_power_of_2
from hga_kernels.gpu.pages.attend import LOG2_E, store_window_lse
from hga_kernels.gpu.pages.cache import give_slots, mark_used, padded_slots, slots_of
from hga_kernels.gpu.select.scores import (
    LIFT,
    MAX_SCORE,
    draw,
    group_sums,
    in_product_order,
    quantise,
    stratum_groups,
    token_products,
)
from hga_kernels.reference.selection import STRATA, most_room

_STRATA = tl.constexpr(STRATA)


@dataclass(frozen=True)
class Lookup:
    """Where the second kernel looks up the pages that it has drawn."""

    slots: torch.Tensor
    """[kv_heads, budget] int32, written: as from ``reference.resolve_pages``."""
    cache: PageTable
    """The layer's page table, updated."""


MAX_ROWS = 16
"""Query rows that these kernels take."""
MIN_ROWS = 8
"""Rows of a tile are padded to so many, the fewest of a matrix product."""


def _score_launch(chunks: int, warps: int, registers: int = 0) -> Launch:
    sizes = {"CHUNKS": chunks, "WARPS": warps, "TOKENS": 128}
    return Launch(sizes, warps=warps, registers=registers)


SCORE_LAUNCHES = {90: _score_launch(8, 4), 120: _score_launch(8, 4)}
CHOOSE_LAUNCHES: dict[int, dict[int, Launch]] = {
    256: {90: Launch({}, warps=4), 120: Launch({}, warps=4)},
    512: {90: Launch({}, warps=16), 120: Launch({}, warps=16)},
    2**16: {90: Launch({}, warps=32), 120: Launch({}, warps=32)},
}
"""By the largest number of groups in a stratum that each is for."""

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


@Kernel
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
    window_lse,
    resident_slots,
    ROWS: tl.constexpr,
    QUARTER: tl.constexpr,
    WIDTH: tl.constexpr,
    HEADS: tl.constexpr,
    SINKS: tl.constexpr,
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,
    OVERLAPS: tl.constexpr,
    INDEX_READY: tl.constexpr,
    CHUNKS: tl.constexpr,
    WARPS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """One program per run of CHUNKS chunks and KV head: weight per group and query row.

    INDEX_READY: no kernel that may still be running writes to the index or to ``end_chunks``. If
    HEADS is not 0, the programs after the runs compute the log-sum-exp of the window, TOKENS tokens
    each.
    """
    run, head = tl.program_id(0), tl.program_id(1)
    SIZE: tl.constexpr = CHUNKS * 64
    PER_CHUNK: tl.constexpr = 64 // GROUP
    REPEATS: tl.constexpr = SIZE // (16 * WARPS)
    dim: tl.constexpr = 4 * QUARTER
    if OVERLAPS:
        gdc_launch_dependents()
        if not INDEX_READY:
            gdc_wait()
    end = tl.load(end_chunks)
    counts = (run * CHUNKS < end) & (run * CHUNKS + CHUNKS > first_chunk)
    # What comes from far away is loaded first.
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
    if OVERLAPS and INDEX_READY:
        gdc_wait()
    if counts:
        row = tl.arange(0, ROWS)
        q_a, q_b, q_c, q_d = load_quarters(
            queries + head * query_stride, row, row < rows, dim, QUARTER, WIDTH
        )
        kind = q_a.dtype
        q_a, q_b, q_c, q_d = tl.trans(q_a), tl.trans(q_b), tl.trans(q_c), tl.trans(q_d)
        a, b, c, d = transform_quarters(q_a, q_b, q_c, q_d, QUARTER, WIDTH, True)
        a, b, c, d, step, begin = quantise(a, b, c, d, 0)
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
        of_run = (head * runs + run) * ROWS + row
        tl.store(peaks + of_run, peak)
        tl.store(totals + of_run, tl.sum(weight, 0))
    if HEADS:  # noqa: SIM102 (HEADS is a constant, `run` is not)
        if run >= runs:
            store_window_lse(
                queries + head * query_stride,
                position_at,
                resident,
                window_lse,
                scale,
                resident_slots,
                run - runs,
                tl.num_programs(0) - runs,
                head,
                HEADS,
                dim,
                SINKS,
                GROUP,
                ROWS,
                TOKENS,
            )


@triton.jit
def _scored(run, first_chunk, end, rows, ROWS: tl.constexpr, CHUNKS: tl.constexpr):
    """Return which runs and rows were scored: [runs, ROWS]."""
    has_chunks = (run * CHUNKS < end) & (run * CHUNKS + CHUNKS > first_chunk)
    return has_chunks[:, None] & (tl.arange(0, ROWS) < rows)[None, :]


@triton.jit
def _whole(
    peak,
    total,
    scored,
    window_lse,
    head,
    rows,
    pieces,
    ROWS: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Return the largest peak of each row, and the sum of all its weights relative to that."""
    row = tl.arange(0, ROWS)
    most = tl.max(peak, 0)
    whole = tl.sum(total * tl.where(scored, tl.exp2(peak - most[None, :]), 0.0), 0)
    if PIECES:
        piece = tl.arange(0, PIECES)
        at = (head * pieces + piece)[:, None] * rows + row[None, :]
        there = (piece < pieces)[:, None] & (row < rows)[None, :]
        other = tl.load(window_lse + at, there, -float("inf")) * LOG2_E - (most - LIFT)[None, :]
        whole += tl.sum(tl.exp2(tl.minimum(other, MAX_SCORE)), 0)
    return most, whole


@Kernel
@triton.jit(do_not_specialize=("first_head",))
def choose_step_kernel(
    end_chunks,
    sums,
    peaks,
    totals,
    window_lse,
    groups,
    importance,
    slots,
    table,
    owner,
    stamps,
    step_at,
    counts,
    rows,
    first_chunk,
    runs,
    budget,
    expected,
    cache_slots,
    max_groups,
    pieces,
    first_head,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
    CHUNKS: tl.constexpr,
    RUNS: tl.constexpr,
    BUDGET: tl.constexpr,
    ROOM: tl.constexpr,
    SLOTS: tl.constexpr,
    PIECES: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program per KV head and stratum: compute the shares of groups and draw some of them.

    If SLOTS is not 0, look up their pages as well. If PIECES is not 0, the window counts in the
    normalisation: ``window_lse`` [kv_heads, pieces, rows].
    """
    head, stratum = tl.program_id(0), tl.program_id(1)
    PER_CHUNK: tl.constexpr = 64 // GROUP
    OWN: tl.constexpr = RUNS * CHUNKS // _STRATA
    if OVERLAPS:
        gdc_launch_dependents()
        gdc_wait()
    end = tl.load(end_chunks)
    number = stratum_groups(stratum, OWN * PER_CHUNK, PER_CHUNK)
    present = (number >= first_chunk * PER_CHUNK) & (number < end * PER_CHUNK)
    run, row = tl.arange(0, RUNS), tl.arange(0, ROWS)
    of_run = (head * runs + run)[:, None] * ROWS + row[None, :]
    scored = _scored(run, first_chunk, end, rows, ROWS, CHUNKS)
    peak = tl.load(peaks + of_run, scored, -float("inf"))
    total = tl.load(totals + of_run, scored, 0.0)
    run_of_own = (tl.arange(0, OWN) * _STRATA + stratum) // CHUNKS
    scored_own = _scored(run_of_own, first_chunk, end, rows, ROWS, CHUNKS)
    of_run = (head * runs + run_of_own)[:, None] * ROWS + row[None, :]
    own_peak = tl.load(peaks + of_run, scored_own, -float("inf"))
    # One row per group, so that neighbouring threads read neighbouring addresses.
    at = (head * runs * (CHUNKS * PER_CHUNK) + number)[:, None] * ROWS + row[None, :]
    weight = tl.load(sums + at, present[:, None], 0.0).to(tl.float32)
    if SLOTS:
        known = tl.load(table + head * max_groups + number, present, -1)
        slot = slots_of(stratum, SLOTS)
        old = tl.load(owner + head * cache_slots + slot, slot < cache_slots, -1)
        step = tl.load(step_at)
    most, whole = _whole(peak, total, scored, window_lse, head, rows, pieces, ROWS, PIECES)
    worth = tl.where(scored_own, tl.exp2(own_peak - most[None, :]), 0.0)
    worth = tl.where(scored_own & (whole > 0)[None, :], worth / (whole * rows)[None, :], 0.0)
    shares = tl.reshape(weight, (OWN, PER_CHUNK, ROWS)) * worth[:, None, :]
    share = tl.sum(tl.reshape(shares, (OWN * PER_CHUNK, ROWS)), 1)

    groups += head * budget
    is_drawn, place, empty, start, room = draw(
        share,
        number,
        first_head + head,
        present,
        stratum,
        first_chunk,
        end,
        budget,
        expected,
        groups,
        importance + head * budget,
        PER_CHUNK,
        BUDGET,
    )
    if SLOTS:
        slots += head * budget
        tl.store(slots + place, known, is_drawn)
        tl.store(slots + tl.arange(0, BUDGET), -1, empty)
        misses = mark_used(known, is_drawn, stamps + head * cache_slots, step, counts)
        if misses > 0:
            give_slots(
                misses,
                slot,
                old,
                groups + start,
                slots + start,
                table + head * max_groups,
                owner + head * cache_slots,
                stamps + head * cache_slots,
                step,
                room,
                cache_slots,
                ROOM,
            )


def select_few(
    queries: torch.Tensor,
    index: ChunkIndex,
    chunks: ChunkRange,
    budget: Budget,
    scale: float,
    window: torch.Tensor | TokenWindow | None = None,
    layer: int = 0,
    lookup: Lookup | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run ``reference.select_groups`` for one block of at most MAX_ROWS rows.

    Args:
        queries: [kv_heads, 1, rows, head_dim], contiguous.
        index: of the layer.
        chunks: which may be chosen from, with an upper bound of the end.
        budget: how many groups of which size.
        scale: of the scores.
        window: the window, whose mass then counts in the normalisation: contiguous float32
            [kv_heads, pieces, rows] log-sum-exp of each of its pieces, or where its pages are.
        layer: layer number, which selects the draw numbers.
        lookup: looks up the chosen pages in the page cache as well. Then no kernel that may still
            be running writes to the index or to the end of the range.

    Returns:
        Groups [1, kv_heads, budget] int32 and importance weights of the same shape, float32.
    """
    kv_heads, _, rows, dim = queries.shape
    assert chunks.last is not None
    group_size, capacity = budget.group_size, index.summaries.shape[1]
    score = pick(SCORE_LAUNCHES, capability())
    run_chunks = score.sizes["CHUNKS"]
    groups_of_run = run_chunks * (CHUNK // group_size)
    runs = -(-chunks.last // run_chunks)
    # Every stratum has a chunk.
    all_runs = max(int(next_power_of_2(-(-capacity // run_chunks))), STRATA // run_chunks)
    padded = max(int(next_power_of_2(rows)), MIN_ROWS)
    choose = pick(launches_for(CHOOSE_LAUNCHES, all_runs * groups_of_run // STRATA), capability())
    device = queries.device
    sums = torch.empty(
        (kv_heads, runs * groups_of_run, padded), dtype=torch.bfloat16, device=device
    )
    peaks = torch.empty((kv_heads, runs, padded), dtype=torch.float32, device=device)
    totals = torch.empty_like(peaks)
    groups = torch.empty((1, kv_heads, budget.groups), dtype=torch.int32, device=device)
    importance = torch.empty((1, kv_heads, budget.groups), dtype=torch.float32, device=device)
    token = window if isinstance(window, TokenWindow) else None
    window_lse = window if isinstance(window, torch.Tensor) else None
    new_pieces = 0
    if token is not None:
        new_pieces = -(-token.pages.window.slots * group_size // score.sizes["TOKENS"])
        window_lse = torch.empty((kv_heads, new_pieces, rows), dtype=torch.float32, device=device)
    score_step_kernel[(runs + new_pieces, kv_heads)](
        queries,
        index.summaries,
        index.codes,
        index.scales,
        chunks.ends,
        sums,
        peaks,
        totals,
        scale * math.log2(math.e),
        rows,
        queries.stride(0),
        chunks.first,
        capacity,
        runs,
        None if token is None else token.position,
        None if token is None else token.pages.resident,
        None if token is None else window_lse,
        0 if token is None else token.pages.resident.shape[1],
        ROWS=padded,
        QUARTER=dim // 4,
        WIDTH=max(dim // 4, 32),
        HEADS=0 if token is None else rows,
        SINKS=0 if token is None else token.pages.window.sinks,
        GROUP=group_size,
        PACKED=queries.is_cuda,
        INDEX_READY=lookup is not None,
        **overlap(device),
        **score.options(),
    )
    pieces = 0 if window_lse is None else window_lse.shape[1]
    cache = None if lookup is None else lookup.cache
    cache_slots = 0 if cache is None else cache.owner.shape[1]
    choose_step_kernel[(kv_heads, STRATA)](
        chunks.ends,
        sums,
        peaks,
        totals,
        peaks if window_lse is None else window_lse,
        groups,
        importance,
        None if lookup is None else lookup.slots,
        None if cache is None else cache.table,
        None if cache is None else cache.owner,
        None if cache is None else cache.stamps,
        None if cache is None else cache.step,
        None if cache is None else cache.counts,
        rows,
        chunks.first,
        runs,
        budget.groups,
        budget.expected,
        cache_slots,
        0 if cache is None else cache.table.shape[1],
        pieces,
        layer * kv_heads,
        ROWS=padded,
        GROUP=group_size,
        CHUNKS=run_chunks,
        RUNS=all_runs,
        BUDGET=next_power_of_2(budget.groups),
        ROOM=next_power_of_2(most_room(budget.groups, CHUNK // group_size)),
        SLOTS=padded_slots(cache_slots, choose.warps) if cache_slots else 0,
        PIECES=next_power_of_2(pieces) if pieces else 0,
        **overlap(device),
        **choose.options(),
    )
    return groups, importance
