"""Selection for one block of few query rows, as in a decode step: two kernels.

The second one also finds the chosen pages in the page cache, if it is given one.
"""

import math

import torch
import triton
import triton.language as tl

from hga_kernels.gpu.build import Build, Launch, capability, pick
from hga_kernels.gpu.pages import resolve_head
from hga_kernels.gpu.scores import group_sums, heaviest, quantised, token_of, token_products
from hga_kernels.gpu.turn import load_quarters, turn_quarters

MAX_ROWS = 16

SCORE_LAUNCHES = {
    90: Launch({"CHUNKS": 8, "RUNS": 2, "WARPS": 4}, warps=4),
    120: Launch({"CHUNKS": 8, "RUNS": 2, "WARPS": 4}, warps=4),
}
CHOOSE_LAUNCHES = {90: Launch({}, warps=16), 120: Launch({}, warps=16)}

CANDIDATES = {
    "score_step": tuple(
        Launch({"CHUNKS": chunks, "RUNS": runs, "WARPS": warps}, warps=warps)
        for chunks, runs, warps in (
            (8, 1, 4),
            (8, 2, 4),
            (8, 4, 4),
            (8, 1, 8),
            (8, 2, 8),
            (16, 1, 8),
            (16, 2, 8),
        )
    ),
    "choose_step": tuple(Launch({}, warps=warps) for warps in (4, 8, 16, 32)),
}


@triton.jit
def _load_run(
    codes,
    scales,
    first,
    left,
    QUARTER: tl.constexpr,
    WIDTH: tl.constexpr,
    CHUNKS: tl.constexpr,
    WARPS: tl.constexpr,
):
    """Codes and scales of CHUNKS chunks from ``first`` on, of which there are ``left``."""
    TOKENS: tl.constexpr = CHUNKS * 64
    REPEATS: tl.constexpr = TOKENS // (16 * WARPS)
    token = token_of(tl.arange(0, TOKENS), REPEATS, WARPS)
    inside = token // 64 < left
    columns = tl.arange(0, WIDTH)
    start = codes + first.to(tl.int64) * (64 * QUARTER)
    held = inside[:, None] & (columns < QUARTER)[None, :]
    code = tl.load(start + token[:, None] * QUARTER + columns[None, :], held, 0)
    return code, tl.load(scales + first * 64 + token, inside, 0)


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
    ROWS: tl.constexpr,
    KEPT_ROWS: tl.constexpr,
    QUARTER: tl.constexpr,
    WIDTH: tl.constexpr,
    CHUNKS: tl.constexpr,
    RUNS: tl.constexpr,
    WARPS: tl.constexpr,
    PACKED: tl.constexpr,
):
    """One program RUNS runs of CHUNKS chunks, and a KV head: weight per group and row."""
    first_run, head = tl.program_id(0) * RUNS, tl.program_id(1)
    end = tl.load(end_chunks)
    if (first_run * CHUNKS < end) & ((first_run + RUNS) * CHUNKS > first_chunk):
        TOKENS: tl.constexpr = CHUNKS * 64
        REPEATS: tl.constexpr = TOKENS // (16 * WARPS)
        dim: tl.constexpr = 4 * QUARTER
        # What is far away is asked for first.
        first = first_run * CHUNKS
        code, token_scale = _load_run(
            codes, scales, head * capacity + first, capacity - first, QUARTER, WIDTH, CHUNKS, WARPS
        )
        row = tl.arange(0, ROWS)
        q_a, q_b, q_c, q_d = load_quarters(
            queries + head * query_stride, row, row < rows, dim, QUARTER, WIDTH
        )
        kind = q_a.dtype
        a, b, c, d = turn_quarters(q_a, q_b, q_c, q_d, QUARTER, WIDTH)
        a, b, c, d, step, start = quantised(a, b, c, d)
        a, b, c, d = tl.trans(a), tl.trans(b), tl.trans(c), tl.trans(d)
        kept = row < KEPT_ROWS
        group = tl.arange(0, CHUNKS * 4)
        for number in tl.static_range(RUNS):
            run = first_run + number
            if number + 1 < RUNS:
                # While this run is scored.
                first = (run + 1) * CHUNKS
                # Past the end nothing is asked for.
                left = tl.where(first < end, capacity - first, 0)
                next_code, next_scale = _load_run(
                    *(codes, scales, head * capacity + first, left, QUARTER, WIDTH, CHUNKS, WARPS)
                )
            if (run * CHUNKS < end) & (run * CHUNKS + CHUNKS > first_chunk):
                chunk = run * CHUNKS + tl.arange(0, CHUNKS)
                s_a, s_b, s_c, s_d = load_quarters(
                    *(summaries + head * capacity * dim, chunk, chunk < capacity),
                    *(dim, QUARTER, WIDTH),
                )
                centre = tl.dot(q_a, tl.trans(s_a.to(kind)))
                centre = tl.dot(q_b, tl.trans(s_b.to(kind)), centre)
                centre = tl.dot(q_c, tl.trans(s_c.to(kind)), centre)
                centre = tl.dot(q_d, tl.trans(s_d.to(kind)), centre)
                choice = (chunk >= first_chunk) & (chunk < end)
                centre = tl.where(choice[None, :], centre * scale, -float("inf"))
                peak = tl.max(centre, 1)
                centre = tl.trans(tl.exp2(centre - peak[:, None]))  # [CHUNKS, ROWS]

                products = token_products(code, a, b, c, d, start, PACKED)
                wide_scale = token_scale.to(tl.float32)
                weight = group_sums(products, wide_scale, step * scale, REPEATS, WARPS)
                weight = tl.reshape(weight, (CHUNKS, 4, ROWS))
                weight = tl.where(choice[:, None, None], weight * centre[:, None, :], 0.0)
                weight = tl.reshape(weight, (CHUNKS * 4, ROWS))

                own = (head * runs + run) * (CHUNKS * 4)
                places = (own + group)[:, None] * KEPT_ROWS + row[None, :]
                tl.store(
                    sums + places, weight.to(tl.bfloat16), kept[None, :] & (group >= 0)[:, None]
                )
                place = (head * runs + run) * KEPT_ROWS + row
                tl.store(peaks + place, peak, kept)
                tl.store(totals + place, tl.sum(weight, 0), kept)
            if number + 1 < RUNS:
                code = next_code
                token_scale = next_scale


@triton.jit
def choose_step_kernel(
    end_chunks,
    sums,
    peaks,
    totals,
    groups,
    masses,
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
    KEPT_ROWS: tl.constexpr,
    CHUNKS: tl.constexpr,
    PROGRAMS: tl.constexpr,
    BUDGET: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """One program a KV head: mass per group, the heaviest, and with SLOTS their places."""
    head = tl.program_id(0)
    end = tl.load(end_chunks)
    run, row = tl.arange(0, PROGRAMS), tl.arange(0, KEPT_ROWS)
    scored = (run * CHUNKS < end) & (run * CHUNKS + CHUNKS > first_chunk)
    place = (head * runs + run)[:, None] * KEPT_ROWS + row[None, :]
    held = scored[:, None] & (row < rows)[None, :]
    peak = tl.load(peaks + place, held, -float("inf"))
    total = tl.load(totals + place, held, 0.0)
    GROUPS: tl.constexpr = CHUNKS * 4
    group = tl.arange(0, GROUPS)
    at = ((head * runs + run)[:, None, None] * GROUPS + group[None, :, None]) * KEPT_ROWS
    at += row[None, None, :]
    # Rows that are none have weights as well, which lets whole vectors be read.
    weight = tl.load(sums + at, scored[:, None, None], 0.0).to(tl.float32)

    most = tl.max(peak, 0)
    share = tl.where(held, tl.exp2(peak - most[None, :]), 0.0)
    whole = tl.sum(total * share, 0)
    share = tl.where(held & (whole > 0)[None, :], share / whole[None, :], 0.0)
    mass = tl.reshape(tl.sum(weight * share[:, None, :], 2), (PROGRAMS * GROUPS,))

    number = tl.arange(0, PROGRAMS * GROUPS)
    present = (number >= first_chunk * 4) & (number < end * 4)
    taken, place, count = heaviest(mass, present, budget)
    tl.store(groups + head * budget + place, number, taken)
    tl.store(masses + head * budget + place, mass, taken)
    place = tl.arange(0, BUDGET)
    rest = (place >= count) & (place < budget)
    tl.store(groups + head * budget + place, -1, rest)
    tl.store(masses + head * budget + place, 0.0, rest)
    if SLOTS:
        # The groups are read again, by other threads.
        tl.debug_barrier()
        resolve_head(
            *(head, groups, places, table, owner, stamps, step_at, counts),
            *(budget, cache_slots, max_groups, BUDGET, SLOTS),
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
) -> tuple[torch.Tensor, torch.Tensor]:
    """``reference.select_groups`` for one block of at most MAX_ROWS rows, keeping every chunk.

    ``pages`` are the places to fill in, and table, owner, stamps, step and counts of the page
    cache, as in ``reference_pages.resolve_pages``.
    """
    kv_heads, _, rows, dim = queries.shape
    score = pick(SCORE_LAUNCHES, capability())
    chunks = score.sizes["CHUNKS"]
    runs = -(-last_chunk // chunks)
    kept_rows = triton.next_power_of_2(rows)
    device = queries.device
    sums = torch.empty((kv_heads, runs, chunks * 4, kept_rows), dtype=torch.bfloat16, device=device)
    peaks = torch.empty((kv_heads, runs, kept_rows), dtype=torch.float32, device=device)
    totals = torch.empty_like(peaks)
    groups = torch.empty((1, kv_heads, budget), dtype=torch.int32, device=device)
    masses = torch.empty((1, kv_heads, budget), dtype=torch.float32, device=device)
    score_step_kernel[(triton.cdiv(runs, score.sizes["RUNS"]), kv_heads)](
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
        ROWS=MAX_ROWS,
        KEPT_ROWS=kept_rows,
        QUARTER=dim // 4,
        WIDTH=max(dim // 4, 32),
        PACKED=packed,
        **score.options(),
    )
    _, table, owner, *_ = pages or (None,) * 6
    cache_slots = 0 if owner is None else owner.shape[1]
    choose_step_kernel[(kv_heads,)](
        end_chunks,
        sums,
        peaks,
        totals,
        groups,
        masses,
        *(pages or (None,) * 6),
        rows,
        first_chunk,
        runs,
        budget,
        cache_slots,
        0 if table is None else table.shape[1],
        KEPT_ROWS=kept_rows,
        CHUNKS=chunks,
        PROGRAMS=triton.next_power_of_2(-(-summaries.shape[1] // chunks)),
        BUDGET=triton.next_power_of_2(budget),
        SLOTS=triton.next_power_of_2(cache_slots) if cache_slots else 0,
        **pick(CHOOSE_LAUNCHES, capability()).options(),
    )
    return groups, masses


def _builds(dim: int, rows: int, model: str) -> tuple[Build, Build]:
    kept_rows = triton.next_power_of_2(rows)
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
            },
            SCORE_LAUNCHES,
            {
                "ROWS": MAX_ROWS,
                "KEPT_ROWS": kept_rows,
                "QUARTER": dim // 4,
                "WIDTH": max(dim // 4, 32),
                "PACKED": True,
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
                "groups": "*i32",
                "masses": "*fp32",
                **dict.fromkeys(("places", "table", "owner", "stamps", "step_at"), "*i32"),
                "counts": "*i64",
                **dict.fromkeys(("rows", "first_chunk", "runs", "budget"), "i32"),
                **dict.fromkeys(("cache_slots", "max_groups"), "i32"),
            },
            CHOOSE_LAUNCHES,
            {"KEPT_ROWS": kept_rows, "CHUNKS": 8, "PROGRAMS": 128, "BUDGET": 64, "SLOTS": 512},
        ),
    )


BUILDS = _builds(128, 8, "qwen3-30b-a3b") + _builds(64, 3, "smollm2-64k")
