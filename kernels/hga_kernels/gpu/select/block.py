"""Kernels of the selection for blocks of many query rows: centres, token index, choice.

A pair is a block and a KV head, number block * heads + head; it has one or more units, tiles of at
most ROWS query rows.
"""

import triton
import triton.language as tl

from hga_kernels.gpu.hadamard import load_quarters, turn_quarters
from hga_kernels.gpu.select.scores import (
    LIFT,
    LOG2_E,
    MOST_SCORE,
    draw_numbers,
    importance_of,
    in_pair_order,
    quantised,
    row_sums,
    stratum_groups,
    stratum_room,
    unpacked,
)
from hga_kernels.gpu.topk import heaviest

CENTRE_TILE = 64
"""Chunks whose centres are scored at a time."""

_COUNTS = (
    *("heads", "tiles", "rows", "head_rows", "block_rows", "first_chunk", "capacity"),
    *("runs", "places", "spans", "budget", "first_head"),
)
"""Not compiled anew for ones and importance of 16, which they are by turns."""


@triton.jit
def _first_row(unit, heads, tiles, head_rows, block_rows, ROWS: tl.constexpr):
    """Number of a unit's first row among all rows in memory."""
    pair = unit // tiles
    return (pair % heads) * head_rows + (pair // heads) * block_rows + (unit % tiles) * ROWS


@triton.jit(do_not_specialize=_COUNTS)
def turn_rows_kernel(
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
    """One program a unit: its queries turned, in 8 bits, WIDTH bytes a quarter."""
    unit = tl.program_id(0)
    first = _first_row(unit, heads, tiles, head_rows, block_rows, ROWS)
    start = queries + first.to(tl.int64) * (4 * QUARTER)
    row = tl.arange(0, ROWS)
    inside = row + unit % tiles * ROWS < rows
    a, b, c, d = load_quarters(start, row, inside, 4 * QUARTER, QUARTER, WIDTH)
    a, b, c, d = turn_quarters(a, b, c, d, QUARTER, WIDTH, False)
    a, b, c, d, step, begin = quantised(a, b, c, d, 1)
    own = ints + unit.to(tl.int64) * (4 * ROWS * WIDTH)
    places = own + row[:, None] * (4 * WIDTH) + tl.arange(0, WIDTH)[None, :]
    tl.store(places, a)
    tl.store(places + WIDTH, b)
    tl.store(places + 2 * WIDTH, c)
    tl.store(places + 3 * WIDTH, d)
    tl.store(starts + unit * ROWS + row, begin)
    tl.store(steps + unit * ROWS + row, step * scale)


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
    """One program a run of TILE chunks and unit: centre scores, and their peak per row."""
    run, unit = tl.program_id(0), tl.program_id(1)
    pair = unit // tiles
    end = tl.load(end_chunks + pair // heads)
    chunk, row = run * TILE + tl.arange(0, TILE), tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    place = (unit * runs + run) * ROWS + row
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
        tl.store(peaks + place, peak)
    else:
        tl.store(peaks + place, tl.full([ROWS], -float("inf"), tl.float32))


@triton.jit
def _row_peaks(peaks, unit, runs, ROWS: tl.constexpr, RUNS: tl.constexpr):
    """The largest centre score of each row."""
    run = tl.arange(0, RUNS)
    places = (unit * runs + run)[:, None] * ROWS + tl.arange(0, ROWS)[None, :]
    inside = (run < runs)[:, None] & (places >= 0)
    return tl.max(tl.load(peaks + places, inside, -float("inf")), 0)


@triton.jit
def _within(chunk, first_chunk, last):
    """A chunk before ``last``, -1 if it is none to choose from."""
    return tl.where((chunk >= first_chunk) & (chunk < last), chunk, -1)


@triton.jit
def _load_chunk(scales, centres, chunk, ROWS: tl.constexpr, GROUP: tl.constexpr):
    """Scales [64] and centre scores [ROWS] of a chunk, which may be -1."""
    token, row = in_pair_order(tl.arange(0, 64), GROUP), tl.arange(0, ROWS)
    at = tl.maximum(chunk, 0)
    scale = tl.load(scales + at * 64 + token, token < tl.where(chunk >= 0, 64, 0), 0)
    centre = tl.load(centres + at * ROWS + row, row < tl.where(chunk >= 0, ROWS, 0), -float("inf"))
    return scale.to(tl.float32), centre


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
    always,
    heads,
    tiles,
    rows,
    first_chunk,
    capacity,
    runs,
    places,
    spans,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
    QUARTER: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    RUNS: tl.constexpr,
    PACKED: tl.constexpr,
    ALWAYS: tl.constexpr,
    SPAN: tl.constexpr,
):
    """One program SPAN chunks and a unit: weight per group and row.

    ALWAYS: what is read anyhow, of which ``always`` [pairs, rows] is the logarithm, counts in the
    sum of the last span.
    """
    span, unit = tl.program_id(0), tl.program_id(1)
    PER_CHUNK: tl.constexpr = 64 // GROUP
    COLUMNS: tl.constexpr = 32 if GROUP == 2 else 8
    pair = unit // tiles
    head = pair % heads
    end = tl.load(end_chunks + pair // heads)
    limit = tl.minimum(end, places)
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
        own_sums = sums + unit.to(tl.int64) * places * (PER_CHUNK * ROWS)
        last = tl.minimum(span * SPAN + SPAN, limit)
        chunk = _within(span * SPAN, first_chunk, last)
        next_chunk = _within(span * SPAN + 1, first_chunk, last)
        scale, centre = _load_chunk(own_scales, own_centres, chunk, ROWS, GROUP)
        for place in range(span * SPAN, last):
            # The compiler asks for codes ahead of their use; the rest is asked for here.
            chunk = _within(place, first_chunk, last)
            held = (token < tl.where(chunk >= 0, 64, 0))[:, None] & (byte < QUARTER)[None, :]
            at = tl.maximum(chunk, 0) * 64 + token
            code = tl.load(own_codes + at[:, None] * QUARTER + byte[None, :], held, 0)
            later = _within(place + 2, first_chunk, last)
            next_scale, next_centre = _load_chunk(own_scales, own_centres, next_chunk, ROWS, GROUP)
            products = tl.zeros([ROWS, 64], tl.int32) + begin[:, None]
            products = tl.dot(query, tl.trans(unpacked(code, PACKED)), products, out_dtype=tl.int32)
            weight = row_sums(products, scale, step, centre - peak, GROUP)
            total += weight
            at = (place * PER_CHUNK + group)[None, :] * ROWS + row[:, None]
            inside = (group < PER_CHUNK)[None, :] & (row >= 0)[:, None]
            tl.store(own_sums + at, weight.to(tl.bfloat16), inside)
            scale, centre, next_chunk = next_scale, next_centre, later
        if ALWAYS and span * SPAN + SPAN >= limit:
            at = unit % tiles * ROWS + row
            other = tl.load(always + pair * rows + at, at < rows, -float("inf")) * LOG2_E
            other = tl.exp2(tl.minimum(other - peak, MOST_SCORE))
            total += tl.where((group == 0)[None, :], other[:, None], 0.0)
    tl.store(totals + (unit * spans + span) * ROWS + row, tl.sum(total, 1))


@triton.jit(do_not_specialize=_COUNTS)
def weigh_kernel(
    values,
    totals,
    end_chunks,
    masses,
    heads,
    tiles,
    rows,
    first_chunk,
    runs,
    places,
    ROWS: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
    PER_CHUNK: tl.constexpr,
):
    """One program BLOCK groups and a pair: weights per row, normalised and added over the rows."""
    part, pair = tl.program_id(0), tl.program_id(1)
    end = tl.load(end_chunks + pair // heads)
    limit = tl.minimum(end * PER_CHUNK, places)
    place, row = part * BLOCK + tl.arange(0, BLOCK), tl.arange(0, ROWS)
    if (part * BLOCK < limit) & (part * BLOCK + BLOCK > first_chunk * PER_CHUNK):
        mass = tl.zeros([BLOCK], tl.float32)
        for tile in range(tiles):
            unit = pair * tiles + tile
            inside = row + tile * ROWS < rows
            run = tl.arange(0, RUNS)
            at = (unit * runs + run)[:, None] * ROWS + row[None, :]
            total = tl.sum(tl.load(totals + at, (run < runs)[:, None] & (at >= 0), 0.0), 0)
            at = place[:, None] * ROWS + row[None, :]
            held = (place < limit)[:, None] & (row >= 0)[None, :]
            start = values + unit.to(tl.int64) * places * ROWS
            value = tl.load(start + at, held, 0.0).to(tl.float32)
            share = tl.where(inside & (total > 0), 1.0 / total, 0.0)
            mass += tl.sum(value * share[None, :], 1)
        tl.store(masses + pair * places + place, mass, place < places)


@triton.jit(do_not_specialize=_COUNTS)
def choose_kernel(
    masses,
    end_chunks,
    chosen,
    importance,
    heads,
    first_chunk,
    places,
    budget,
    first_head,
    PLACES: tl.constexpr,
    BUDGET: tl.constexpr,
    PER_CHUNK: tl.constexpr,
):
    """One program a pair and stratum: the groups that are drawn, in ascending order."""
    pair, stratum = tl.program_id(0), tl.program_id(1)
    end = tl.load(end_chunks + pair // heads)
    end = tl.minimum(end, places // PER_CHUNK)
    number = stratum_groups(stratum, PLACES, PER_CHUNK)
    present = (number >= first_chunk * PER_CHUNK) & (number < end * PER_CHUNK)
    mass = tl.load(masses + pair * places + number, present, 0.0)
    odds = mass / draw_numbers(number, first_head + pair % heads)
    start, room, filled = stratum_room(stratum, first_chunk, end, budget, PER_CHUNK)
    taken, order, bound = heaviest(odds, present, room)
    chosen += pair * budget
    importance += pair * budget
    tl.store(chosen + start + order, number, taken)
    tl.store(importance + start + order, importance_of(mass, bound), taken)
    rest = tl.arange(0, BUDGET)
    is_rest = (rest >= tl.where(stratum == 0, filled, budget)) & (rest < budget)
    tl.store(chosen + rest, -1, is_rest)
    tl.store(importance + rest, 1.0, is_rest)
