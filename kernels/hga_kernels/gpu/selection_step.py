"""Selection for one block of few query rows, as in a decode step: two kernels.

The second one also finds the chosen pages in the page cache, if it is given one.
"""

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.gpu.build import Build, Launch, capability, overlap, pick
from hga_kernels.gpu.pages import give_slots, mark_used, padded_slots
from hga_kernels.gpu.resident import store_log_mass
from hga_kernels.gpu.scores import (
    LIFT,
    LOG2_E,
    MOST_SCORE,
    draw_numbers,
    group_sums,
    heaviest,
    in_product_order,
    multiples_of,
    quantised,
    token_products,
)
from hga_kernels.gpu.turn import load_quarters, turn_quarters
from hga_kernels.reference_pages import WINDOW, Window


@dataclass(frozen=True)
class WindowPages:
    """Where the pages are that a token reads anyhow."""

    position: torch.Tensor
    """[1] int32 of the token."""
    resident: torch.Tensor
    """[kv_heads, slots, 2, 16, head_dim], see ``reference_pages``."""
    sizes: Window = WINDOW


MAX_ROWS = 16
_LEAST_ROWS = 8
"""Of a tile: a product has no fewer."""


def _score_launch(chunks: int, warps: int, registers: int = 0) -> Launch:
    sizes = {"CHUNKS": chunks, "WARPS": warps, "PAGES": 8}
    return Launch(sizes, warps=warps, registers=registers)


SCORE_LAUNCHES = {90: _score_launch(8, 4), 120: _score_launch(8, 4)}
CHOOSE_LAUNCHES = {90: Launch({}, warps=16), 120: Launch({}, warps=16)}

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
    "choose_step": tuple(Launch({}, warps=warps) for warps in (8, 16, 32)),
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
    PACKED: tl.constexpr,
    OVERLAPS: tl.constexpr,
    STANDS: tl.constexpr,
    CHUNKS: tl.constexpr,
    WARPS: tl.constexpr,
    PAGES: tl.constexpr,
):
    """One program a run of CHUNKS chunks and KV head: weight per group and row.

    STANDS: no kernel that may still be running changes the index or ``end_chunks``. With HEADS the
    programs after the runs find the mass of PAGES pages each of what is read anyhow.
    """
    run, head = tl.program_id(0), tl.program_id(1)
    TOKENS: tl.constexpr = CHUNKS * 64
    REPEATS: tl.constexpr = TOKENS // (16 * WARPS)
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
    token, columns = tl.arange(0, TOKENS), tl.arange(0, WIDTH)
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

        products = token_products(in_product_order(code, REPEATS, WARPS), a, b, c, d, begin, PACKED)
        ordered_scale = in_product_order(token_scale[:, None], REPEATS, WARPS)
        ordered_scale = tl.reshape(ordered_scale, (TOKENS,)).to(tl.float32)
        weight = group_sums(products, ordered_scale, step * scale, REPEATS, WARPS)
        weight = tl.reshape(weight, (CHUNKS, 4, ROWS))
        weight = tl.where(choice[:, None, None], weight * centre[:, None, :], 0.0)
        weight = tl.reshape(weight, (CHUNKS * 4, ROWS))

        group = tl.arange(0, CHUNKS * 4)
        own = (head * runs + run) * (CHUNKS * 4)
        tl.store(sums + (own + group)[:, None] * ROWS + row[None, :], weight.to(tl.bfloat16))
        place = (head * runs + run) * ROWS + row
        tl.store(peaks + place, peak)
        tl.store(totals + place, tl.sum(weight, 0))
    if HEADS:  # noqa: SIM102 (decided when it is compiled)
        if run >= runs:
            store_log_mass(
                *(queries + head * query_stride, position_at, resident, logs, scale),
                *(resident_slots, run - runs, tl.num_programs(0) - runs, head),
                *(HEADS, dim, SINKS, RECENT, ROWS, PAGES),
            )


@triton.jit(do_not_specialize=("first_head",))
def choose_step_kernel(
    end_chunks,
    sums,
    peaks,
    totals,
    always,
    groups,
    multiples,
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
    CHUNKS: tl.constexpr,
    RUNS: tl.constexpr,
    BUDGET: tl.constexpr,
    SLOTS: tl.constexpr,
    PARTS: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program a KV head: mass per group, those that are drawn, with SLOTS their places.

    With PARTS what is read anyhow counts: ``always`` [kv_heads, parts, rows], logarithms.
    """
    head = tl.program_id(0)
    GROUPS: tl.constexpr = CHUNKS * 4
    if OVERLAPS:
        gdc_launch_dependents()
        gdc_wait()
    end = tl.load(end_chunks)
    run, row = tl.arange(0, RUNS), tl.arange(0, ROWS)
    scored = (run * CHUNKS < end) & (run * CHUNKS + CHUNKS > first_chunk)
    place = (head * runs + run)[:, None] * ROWS + row[None, :]
    held = scored[:, None] & (row < rows)[None, :]
    peak = tl.load(peaks + place, held, -float("inf"))
    total = tl.load(totals + place, held, 0.0)
    number = tl.arange(0, RUNS * GROUPS)
    present = (number >= first_chunk * 4) & (number < end * 4)
    # As one list of rows, so that neighbours read neighbours.
    at = (head * runs * GROUPS + number)[:, None] * ROWS + row[None, :]
    weight = tl.load(sums + at, present[:, None], 0.0).to(tl.float32)
    if SLOTS:
        slot = tl.arange(0, SLOTS)
        old = tl.load(owner + head * cache_slots + slot, slot < cache_slots, -1)
        known = tl.load(table + head * max_groups + number, present, -1)
        step = tl.load(step_at)

    most = tl.max(peak, 0)
    share = tl.where(held, tl.exp2(peak - most[None, :]), 0.0)
    whole = tl.sum(total * share, 0)
    if PARTS:
        part = tl.arange(0, PARTS)
        at = (head * parts + part)[:, None] * rows + row[None, :]
        there = (part < parts)[:, None] & (row < rows)[None, :]
        other = tl.load(always + at, there, -float("inf")) * LOG2_E - (most - LIFT)[None, :]
        whole += tl.sum(tl.exp2(tl.minimum(other, MOST_SCORE)), 0)
    share = tl.where(held & (whole > 0)[None, :], share / whole[None, :], 0.0)
    weight = tl.reshape(weight, (RUNS, GROUPS, ROWS)) * share[:, None, :]
    mass = tl.sum(tl.reshape(weight, (RUNS * GROUPS, ROWS)), 1)

    odds = mass / draw_numbers(number, first_head + head)
    taken, place, count, bound = heaviest(odds, present, budget)
    tl.store(groups + head * budget + place, number, taken)
    tl.store(multiples + head * budget + place, multiples_of(mass, bound), taken)
    lane = tl.arange(0, BUDGET)
    rest = (lane >= count) & (lane < budget)
    tl.store(groups + head * budget + lane, -1, rest)
    tl.store(multiples + head * budget + lane, 1.0, rest)
    if SLOTS:
        places += head * budget
        tl.store(places + place, known, taken)
        tl.store(places + lane, -1, rest)
        misses = mark_used(known, taken, stamps + head * cache_slots, step, counts)
        if misses > 0:
            give_slots(
                *(misses, old, groups + head * budget, places, table + head * max_groups),
                *(owner + head * cache_slots, stamps + head * cache_slots, step),
                *(budget, cache_slots, BUDGET, SLOTS),
            )


def select_few(
    queries: torch.Tensor,
    summaries: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    first_chunk: int,
    end_chunks: torch.Tensor,
    budget: int,
    last_chunk: int,
    scale: float,
    packed: bool,
    pages: tuple[torch.Tensor, ...] | None = None,
    always: torch.Tensor | None = None,
    layer: int = 0,
    window: WindowPages | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``reference.select_groups`` for one block of at most MAX_ROWS rows, keeping every chunk.

    ``pages`` are the places to fill in, and table, owner, stamps, step and counts of the page
    cache, as in ``reference_pages.resolve_pages``. With them no kernel that may still be running
    changes the index or ``end_chunks``. ``always`` is contiguous float32 [kv_heads, parts, rows]:
    what is read anyhow may be given in parts. Or ``window`` says where it is.
    """
    kv_heads, _, rows, dim = queries.shape
    score, choose = pick(SCORE_LAUNCHES, capability()), pick(CHOOSE_LAUNCHES, capability())
    chunks = score.sizes["CHUNKS"]
    runs = -(-last_chunk // chunks)
    padded = max(triton.next_power_of_2(rows), _LEAST_ROWS)
    device = queries.device
    sums = torch.empty((kv_heads, runs, chunks * 4, padded), dtype=torch.bfloat16, device=device)
    peaks = torch.empty((kv_heads, runs, padded), dtype=torch.float32, device=device)
    totals = torch.empty_like(peaks)
    groups = torch.empty((1, kv_heads, budget), dtype=torch.int32, device=device)
    multiples = torch.empty((1, kv_heads, budget), dtype=torch.float32, device=device)
    pieces = 0
    if window is not None:
        pieces = -(-window.sizes.slots // score.sizes["PAGES"])
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
        PACKED=packed,
        STANDS=pages is not None,
        **overlap(device),
        **score.options(),
    )
    _, table, owner, *_ = pages or (None,) * 6
    cache_slots = 0 if owner is None else owner.shape[1]
    choose_step_kernel[(kv_heads,)](
        end_chunks,
        sums,
        peaks,
        totals,
        peaks if always is None else always,
        groups,
        multiples,
        *(pages or (None,) * 6),
        rows,
        first_chunk,
        runs,
        budget,
        cache_slots,
        0 if table is None else table.shape[1],
        0 if always is None else always.shape[1],
        layer * kv_heads,
        ROWS=padded,
        CHUNKS=chunks,
        # ``heaviest`` wants a place a thread.
        RUNS=max(triton.next_power_of_2(-(-summaries.shape[1] // chunks)), choose.warps),
        BUDGET=triton.next_power_of_2(budget),
        SLOTS=padded_slots(cache_slots, choose.warps) if cache_slots else 0,
        PARTS=0 if always is None else triton.next_power_of_2(always.shape[1]),
        **overlap(device),
        **choose.options(),
    )
    return groups, multiples


def _builds(dim: int, rows: int, model: str) -> tuple[Build, Build]:
    padded = max(triton.next_power_of_2(rows), _LEAST_ROWS)
    return (
        Build(
            f"score_step {model}",
            score_step_kernel,
            {
                "queries": "*bf16",
                "summaries": "*bf16",
                "codes": "*u8",
                "scales": "*bf16",
                "end_chunks": "*i32",
                "sums": "*bf16",
                "peaks": "*fp32",
                "totals": "*fp32",
                "scale": "fp32",
                **dict.fromkeys(("rows", "query_stride", "first_chunk", "capacity", "runs"), "i32"),
                "position_at": "*i32",
                "resident": "*bf16",
                "logs": "*fp32",
                "resident_slots": "i32",
            },
            SCORE_LAUNCHES,
            {
                "ROWS": padded,
                "HEADS": rows,
                "SINKS": WINDOW.sinks,
                "RECENT": WINDOW.recent,
                "QUARTER": dim // 4,
                "WIDTH": max(dim // 4, 32),
                "PACKED": True,
                "OVERLAPS": True,
                "STANDS": True,
            },
        ),
        Build(
            f"choose_step {model}",
            choose_step_kernel,
            {
                "end_chunks": "*i32",
                "sums": "*bf16",
                "peaks": "*fp32",
                "totals": "*fp32",
                "always": "*fp32",
                "groups": "*i32",
                "multiples": "*fp32",
                **dict.fromkeys(("places", "table", "owner", "stamps", "step_at"), "*i32"),
                "counts": "*i64",
                **dict.fromkeys(("rows", "first_chunk", "runs", "budget"), "i32"),
                **dict.fromkeys(("cache_slots", "max_groups", "parts", "first_head"), "i32"),
            },
            CHOOSE_LAUNCHES,
            {
                "ROWS": padded,
                "CHUNKS": 8,
                "RUNS": 128,
                "BUDGET": 64,
                "SLOTS": 512,
                "PARTS": 2,
                "OVERLAPS": True,
            },
        ),
    )


BUILDS = _builds(128, 8, "qwen3-30b-a3b") + _builds(64, 3, "smollm2-64k")
