"""Parts of the selection's kernels: 8-bit queries, the token index on tensor cores, and choosing.

A token's score is its chunk's centre score plus step * scale * (ints . codes - 1.5 sum(ints)), with
the query in 8 bits (``ints`` times ``step``) and the token's 2-bit codes and scale. All scores are
in base 2.
"""

import triton
import triton.language as tl

MAGIC = tl.constexpr(12582912.0)
"""1.5 * 2**23: a float whose lowest bit is worth one, so that integers can be added to its bits."""
_MAGIC_BITS = tl.constexpr(0x4B400000)
_LIFT = tl.constexpr(-60.0)
"""Added to scores above the centre: the range of a float lies around what occurs."""
_MOST = tl.constexpr(1.2676506002282294e30)
"""2**100. A group with more counts as this much, so that sums stay finite."""


@triton.jit
def quantised(a, b, c, d):
    """Turned query quarters [rows, WIDTH] in 8 bits.

    Returns their integers, the step of each row, and what the accumulators of each row begin with:
    the bits of MAGIC, less the middle of the codes.
    """
    peak = tl.maximum(tl.maximum(tl.max(tl.abs(a), 1), tl.max(tl.abs(b), 1)), 1e-30)
    peak = tl.maximum(tl.maximum(tl.max(tl.abs(c), 1), tl.max(tl.abs(d), 1)), peak)
    step = peak / 127.0
    a = tl.floor(a / step[:, None] + 0.5)
    b = tl.floor(b / step[:, None] + 0.5)
    c = tl.floor(c / step[:, None] + 0.5)
    d = tl.floor(d / step[:, None] + 0.5)
    total = tl.sum((a + b + (c + d)).to(tl.int32), 1)
    start = _MAGIC_BITS - total - (total >> 1)
    return a.to(tl.int8), b.to(tl.int8), c.to(tl.int8), d.to(tl.int8), step, start


@triton.jit
def _lowest(codes, PACKED: tl.constexpr):
    """The lowest bit pair of each byte."""
    if PACKED:
        pair = tl.inline_asm_elementwise(
            "and.b32 $0, $1, 0x03030303;", "=r,r", [codes], dtype=tl.int8, is_pure=True, pack=4
        )
    else:
        pair = (codes & 3).to(tl.int8)
    return pair


@triton.jit
def _lowered(codes, PACKED: tl.constexpr):
    """Bytes whose lowest bit pair is the next one; the upper ones are of no account."""
    if PACKED:
        lowered = tl.inline_asm_elementwise(
            "shr.b32 $0, $1, 2;", "=r,r", [codes], dtype=tl.uint8, is_pure=True, pack=4
        )
    else:
        lowered = codes >> 2
    return lowered


@triton.jit
def token_products(codes, a, b, c, d, start, PACKED: tl.constexpr):
    """MAGIC plus ints . (codes - 1.5) as floats [tokens, rows].

    ``codes`` are [tokens, WIDTH] bytes, the quarters of the query [WIDTH, rows] integers.
    """
    sums = tl.zeros([codes.shape[0], a.shape[1]], tl.int32) + start[None, :]
    sums = tl.dot(_lowest(codes, PACKED), a, sums, out_dtype=tl.int32)
    codes = _lowered(codes, PACKED)
    sums = tl.dot(_lowest(codes, PACKED), b, sums, out_dtype=tl.int32)
    codes = _lowered(codes, PACKED)
    sums = tl.dot(_lowest(codes, PACKED), c, sums, out_dtype=tl.int32)
    codes = _lowered(codes, PACKED)
    sums = tl.dot(_lowest(codes, PACKED), d, sums, out_dtype=tl.int32)
    return sums.to(tl.float32, bitcast=True)


@triton.jit
def token_of(place, REPEATS: tl.constexpr, WARPS: tl.constexpr):
    """Which token of a tile each row of its product is.

    A thread holds rows 8 apart, and rows 16 * WARPS apart: they are given to one group, so that
    its pairs meet in a thread and most of its sum does not leave it.
    """
    lane, half = place % 8, place // 8 % 2
    warp, repeat = place // 16 % WARPS, place // (16 * WARPS)
    LANES: tl.constexpr = 8 // REPEATS
    group = warp * REPEATS + lane // LANES
    return group * 16 + half * 8 + repeat * LANES + lane % LANES


@triton.jit
def group_sums(products, scale, step, REPEATS: tl.constexpr, WARPS: tl.constexpr):
    """Sums of 2**(score above the centre + LIFT) over the pairs of each group: [groups, rows].

    Args: ``products`` [tokens, rows] from ``token_products``, ``scale`` [tokens] in the order of
    ``token_of``, ``step`` [rows].
    """
    ROWS: tl.constexpr = products.shape[1]
    LANES: tl.constexpr = 8 // REPEATS
    # Exact: a bf16 scale times MAGIC has few digits.
    score = tl.fma(products, scale[:, None], (scale * -MAGIC)[:, None])
    score = tl.reshape(score, (REPEATS, WARPS, 2, REPEATS, LANES, ROWS))
    weight = tl.exp2(tl.max(score, 2) * step[None, None, None, None, :] + _LIFT)
    weight = tl.sum(tl.sum(weight, 0), 2)
    return tl.minimum(tl.reshape(weight, (WARPS * REPEATS, ROWS)), _MOST)


@triton.jit
def heaviest(mass, present, limit):
    """The ``limit`` heaviest of what is present, the first among equals.

    Returns: whether each is taken, how many before it are, and how many in all.
    """
    # Positive floats are in the order of their bits; zero is left for what is absent.
    bits = tl.where(present, mass.to(tl.uint32, bitcast=True) + 1, 0)
    # Two bits of the border a round, until it parts the heaviest from the rest.
    border = tl.full([], 0, tl.uint32)
    shift = tl.full([], 30, tl.int32)
    count = tl.full([], 1, tl.int32) + limit
    while (shift >= 0) & (count != limit):
        one = tl.full([], 1, tl.uint32) << shift
        reach = (bits >= border + one).to(tl.int64)
        reach += (bits >= border + 2 * one).to(tl.int64) << 20
        reach += (bits >= border + 3 * one).to(tl.int64) << 40
        counts = tl.sum(reach, 0)
        lower = (counts & 0xFFFFF).to(tl.int32)
        middle = (counts >> 20 & 0xFFFFF).to(tl.int32)
        upper = (counts >> 40).to(tl.int32)
        count = tl.where(lower >= limit, lower, count)
        count = tl.where(middle >= limit, middle, count)
        count = tl.where(upper >= limit, upper, count)
        passed = (lower >= limit).to(tl.uint32) + (middle >= limit).to(tl.uint32)
        border += (passed + (upper >= limit).to(tl.uint32)) * one
        shift -= 2
    above = (bits > border).to(tl.int32)
    equal = ((bits == border) & present).to(tl.int32)
    # Both counts in one scan.
    before = tl.cumsum(above + (equal << 16), 0) - above - (equal << 16)
    room = limit - tl.sum(above, 0)
    taken = (above > 0) | ((equal > 0) & ((before >> 16) < room))
    place = (before & 0xFFFF) + tl.minimum(before >> 16, room)
    return taken, place, tl.sum(taken.to(tl.int32), 0)
