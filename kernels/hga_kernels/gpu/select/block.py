"""Kernels of the selection for blocks of many query rows.

They quantise queries, score chunks, score groups, normalise, and draw. A pair is a block and a KV
head, with number block * heads + head. Its query rows are split into one or more units of at most
ROWS rows.
"""

import triton
import triton.language as tl

from hga_kernels.gpu.hadamard import load_quarters, transform_quarters
from hga_kernels.gpu.launch import Kernel
from hga_kernels.gpu.pages.attend import LOG2_E
from hga_kernels.gpu.select.scores import (
    LIFT,
    MAX_SCORE,
    columns_of,
    draw,
    in_pair_order,
    quantise,
    row_sums,
    stratum_groups,
    unpack,
)

CENTRE_TILE = 64
"""Chunks whose centres one program scores."""

_COUNTS = (
    "heads",
    "tiles",
    "rows",
    "head_rows",
    "block_rows",
    "first_chunk",
    "capacity",
    "runs",
    "last_chunk",
    "all_groups",
    "spans",
    "budget",
    "first_head",
)
"""Arguments that Triton does not specialise: they are 1 or a multiple of 16 only now and then."""


@triton.jit
def _first_row(unit, heads, tiles, head_rows, block_rows, ROWS: tl.constexpr):
    """Return the number of a unit's first row among all rows in memory."""
    pair = unit // tiles
    return (pair % heads) * head_rows + (pair // heads) * block_rows + (unit % tiles) * ROWS


@Kernel
@triton.jit(do_not_specialize=_COUNTS)
def quantise_rows_kernel(
    queries,
    ints,
    starts,
    steps,
    scale,
    heads,
    tiles,
    rows,
    head_rows,
    block_rows,
    ROWS: tl.constexpr,
    QUARTER: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One program per unit: transform its queries and quantise them, WIDTH bytes a quarter."""
    unit = tl.program_id(0)
    first = _first_row(unit, heads, tiles, head_rows, block_rows, ROWS)
    start = queries + first.to(tl.int64) * (4 * QUARTER)
    row = tl.arange(0, ROWS)
    inside = row + unit % tiles * ROWS < rows
    a, b, c, d = load_quarters(start, row, inside, 4 * QUARTER, QUARTER, WIDTH)
    a, b, c, d = transform_quarters(a, b, c, d, QUARTER, WIDTH, False)
    a, b, c, d, step, begin = quantise(a, b, c, d, 1)
    own = ints + unit.to(tl.int64) * (4 * ROWS * WIDTH)
    targets = own + row[:, None] * (4 * WIDTH) + tl.arange(0, WIDTH)[None, :]
    tl.store(targets, a)
    tl.store(targets + WIDTH, b)
    tl.store(targets + 2 * WIDTH, c)
    tl.store(targets + 3 * WIDTH, d)
    tl.store(starts + unit * ROWS + row, begin)
    tl.store(steps + unit * ROWS + row, step * scale)


@Kernel
@triton.jit(do_not_specialize=_COUNTS)
def score_chunks_kernel(
    queries,
    summaries,
    end_chunks,
    centres,
    peaks,
    scale,
    heads,
    tiles,
    rows,
    head_rows,
    block_rows,
    first_chunk,
    capacity,
    runs,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    TILE: tl.constexpr,
):
    """One program per run of TILE chunks and unit: centre scores, and their peak per row."""
    run, unit = tl.program_id(0), tl.program_id(1)
    pair = unit // tiles
    end = tl.load(end_chunks + pair // heads)
    chunk, row = run * TILE + tl.arange(0, TILE), tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    of_run = (unit * runs + run) * ROWS + row
    if (run * TILE < end) & (run * TILE + TILE > first_chunk):
        first = _first_row(unit, heads, tiles, head_rows, block_rows, ROWS)
        start = queries + first.to(tl.int64) * DIM
        inside = row + unit % tiles * ROWS < rows
        query = tl.load(start + row[:, None] * DIM + dims[None, :], inside[:, None], 0.0)
        choice = (chunk >= first_chunk) & (chunk < end)
        start = summaries + (pair % heads).to(tl.int64) * (capacity * DIM)
        summary = tl.load(start + chunk[:, None] * DIM + dims[None, :], choice[:, None], 0.0)
        centre = tl.dot(summary.to(query.dtype), tl.trans(query)) * scale
        centre = tl.where(choice[:, None], centre, -float("inf"))
        peak = tl.max(centre, 0)
        start = centres + (unit * runs + run).to(tl.int64) * (TILE * ROWS)
        tl.store(start + tl.arange(0, TILE)[:, None] * ROWS + row[None, :], centre)
        tl.store(peaks + of_run, peak)
    else:
        tl.store(peaks + of_run, tl.full([ROWS], -float("inf"), tl.float32))


@triton.jit
def _row_peaks(peaks, unit, runs, ROWS: tl.constexpr, RUNS: tl.constexpr):
    """Return the largest centre score of each row."""
    run = tl.arange(0, RUNS)
    offsets = (unit * runs + run)[:, None] * ROWS + tl.arange(0, ROWS)[None, :]
    inside = (run < runs)[:, None] & (offsets >= 0)
    return tl.max(tl.load(peaks + offsets, inside, -float("inf")), 0)


@triton.jit
def _within(chunk, first_chunk, last):
    """Return the chunk, or -1 if it may not be chosen from."""
    return tl.where((chunk >= first_chunk) & (chunk < last), chunk, -1)


@triton.jit
def _load_chunk(scales, centres, chunk, ROWS: tl.constexpr, GROUP: tl.constexpr):
    """Load scales [64] and centre scores [ROWS] of a chunk, which may be -1."""
    token, row = in_pair_order(tl.arange(0, 64), GROUP), tl.arange(0, ROWS)
    at = tl.maximum(chunk, 0)
    scale = tl.load(scales + at * 64 + token, token < tl.where(chunk >= 0, 64, 0), 0)
    centre = tl.load(centres + at * ROWS + row, row < tl.where(chunk >= 0, ROWS, 0), -float("inf"))
    return scale.to(tl.float32), centre


@Kernel
@triton.jit(do_not_specialize=_COUNTS)
def score_groups_kernel(
    ints,
    starts,
    steps,
    centres,
    peaks,
    codes,
    scales,
    end_chunks,
    sums,
    totals,
    window_lse,
    heads,
    tiles,
    rows,
    first_chunk,
    capacity,
    runs,
    last_chunk,
    spans,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
    QUARTER: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    RUNS: tl.constexpr,
    PACKED: tl.constexpr,
    WITH_WINDOW: tl.constexpr,
    SPAN: tl.constexpr,
):
    """One program per span of SPAN chunks and unit: weight per group and row.

    WITH_WINDOW: the window, whose log-sum-exp is ``window_lse`` [pairs, rows], counts in the sum of
    the last span.
    """
    span, unit = tl.program_id(0), tl.program_id(1)
    PER_CHUNK: tl.constexpr = 64 // GROUP
    COLUMNS: tl.constexpr = columns_of(GROUP)
    pair = unit // tiles
    head = pair % heads
    end = tl.load(end_chunks + pair // heads)
    limit = tl.minimum(end, last_chunk)
    row, group = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    if (span * SPAN < limit) & (span * SPAN + SPAN > first_chunk):
        token = in_pair_order(tl.arange(0, 64), GROUP)
        byte, columns = tl.arange(0, WIDTH), tl.arange(0, 4 * WIDTH)
        own = ints + unit.to(tl.int64) * (4 * ROWS * WIDTH)
        query = tl.load(own + row[:, None] * (4 * WIDTH) + columns[None, :])
        begin, step = tl.load(starts + unit * ROWS + row), tl.load(steps + unit * ROWS + row)
        peak = _row_peaks(peaks, unit, runs, ROWS, RUNS)
        peak = tl.where(peak > -float("inf"), peak, 0.0) - LIFT
        own_centres = centres + (unit * runs).to(tl.int64) * (TILE * ROWS)
        own_codes = codes + (head * capacity).to(tl.int64) * (64 * QUARTER)
        own_scales = scales + (head * capacity).to(tl.int64) * 64
        own_sums = sums + unit.to(tl.int64) * last_chunk * (PER_CHUNK * ROWS)
        last = tl.minimum(span * SPAN + SPAN, limit)
        chunk = _within(span * SPAN, first_chunk, last)
        next_chunk = _within(span * SPAN + 1, first_chunk, last)
        scale, centre = _load_chunk(own_scales, own_centres, chunk, ROWS, GROUP)
        for number in range(span * SPAN, last):
            # The compiler prefetches the codes; scales and centres are prefetched here.
            chunk = _within(number, first_chunk, last)
            held = (token < tl.where(chunk >= 0, 64, 0))[:, None] & (byte < QUARTER)[None, :]
            at = tl.maximum(chunk, 0) * 64 + token
            code = tl.load(own_codes + at[:, None] * QUARTER + byte[None, :], held, 0)
            later = _within(number + 2, first_chunk, last)
            next_scale, next_centre = _load_chunk(own_scales, own_centres, next_chunk, ROWS, GROUP)
            products = tl.zeros([ROWS, 64], tl.int32) + begin[:, None]
            products = tl.dot(query, tl.trans(unpack(code, PACKED)), products, out_dtype=tl.int32)
            weight = row_sums(products, scale, step, centre - peak, GROUP)
            total += weight
            at = (number * PER_CHUNK + group)[None, :] * ROWS + row[:, None]
            inside = (group < PER_CHUNK)[None, :] & (row >= 0)[:, None]
            tl.store(own_sums + at, weight.to(tl.bfloat16), inside)
            scale, centre, next_chunk = next_scale, next_centre, later
        if WITH_WINDOW and span * SPAN + SPAN >= limit:
            at = unit % tiles * ROWS + row
            other = tl.load(window_lse + pair * rows + at, at < rows, -float("inf")) * LOG2_E
            other = tl.exp2(tl.minimum(other - peak, MAX_SCORE))
            total += tl.where((group == 0)[None, :], other[:, None], 0.0)
    tl.store(totals + (unit * spans + span) * ROWS + row, tl.sum(total, 1))


@Kernel
@triton.jit(do_not_specialize=_COUNTS)
def weigh_kernel(
    values,
    totals,
    end_chunks,
    shares,
    heads,
    tiles,
    rows,
    first_chunk,
    runs,
    all_groups,
    ROWS: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
    PER_CHUNK: tl.constexpr,
):
    """One program per BLOCK groups and pair: normalise weights per row; the mean over the rows."""
    part, pair = tl.program_id(0), tl.program_id(1)
    end = tl.load(end_chunks + pair // heads)
    limit = tl.minimum(end * PER_CHUNK, all_groups)
    group, row = part * BLOCK + tl.arange(0, BLOCK), tl.arange(0, ROWS)
    if (part * BLOCK < limit) & (part * BLOCK + BLOCK > first_chunk * PER_CHUNK):
        mean = tl.zeros([BLOCK], tl.float32)
        for tile in range(tiles):
            unit = pair * tiles + tile
            inside = row + tile * ROWS < rows
            run = tl.arange(0, RUNS)
            at = (unit * runs + run)[:, None] * ROWS + row[None, :]
            total = tl.sum(tl.load(totals + at, (run < runs)[:, None] & (at >= 0), 0.0), 0)
            at = group[:, None] * ROWS + row[None, :]
            held = (group < limit)[:, None] & (row >= 0)[None, :]
            start = values + unit.to(tl.int64) * all_groups * ROWS
            value = tl.load(start + at, held, 0.0).to(tl.float32)
            share = tl.where(inside & (total > 0), 1.0 / total, 0.0)
            mean += tl.sum(value * share[None, :], 1)
        tl.store(shares + pair * all_groups + group, mean / rows, group < all_groups)


@Kernel
@triton.jit(do_not_specialize=_COUNTS)
def choose_kernel(
    shares,
    end_chunks,
    chosen,
    importance,
    heads,
    first_chunk,
    all_groups,
    budget,
    expected,
    first_head,
    COUNT: tl.constexpr,
    BUDGET: tl.constexpr,
    PER_CHUNK: tl.constexpr,
):
    """One program per pair and stratum: draw groups, in ascending order."""
    pair, stratum = tl.program_id(0), tl.program_id(1)
    end = tl.load(end_chunks + pair // heads)
    end = tl.minimum(end, all_groups // PER_CHUNK)
    number = stratum_groups(stratum, COUNT, PER_CHUNK)
    present = (number >= first_chunk * PER_CHUNK) & (number < end * PER_CHUNK)
    share = tl.load(shares + pair * all_groups + number, present, 0.0)
    draw(
        share,
        number,
        first_head + pair % heads,
        present,
        stratum,
        first_chunk,
        end,
        budget,
        expected,
        chosen + pair * budget,
        importance + pair * budget,
        PER_CHUNK,
        BUDGET,
    )
