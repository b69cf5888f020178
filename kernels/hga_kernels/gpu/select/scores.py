"""Parts of the selection's kernels: 8-bit queries, the token index on tensor cores, and choosing.

A token's score is its chunk's centre score plus step * scale * (ints . codes - 1.5 sum(ints)), with
the query in 8 bits (``ints`` times ``step``) and the token's 2-bit codes and scale. All scores are
in base 2.
"""

import triton
import triton.language as tl

from hga_kernels.reference.selection import GROUP_TURN, HEAD_TURN, MAX_IMPORTANCE, STRATA, TURN

_STRATA = tl.constexpr(STRATA)
_TURN = tl.constexpr(TURN)
_GROUP_TURN = tl.constexpr(GROUP_TURN)
_HEAD_TURN = tl.constexpr(HEAD_TURN)
_MAX_IMPORTANCE = tl.constexpr(float(MAX_IMPORTANCE))
MAGIC = tl.constexpr(12582912.0)
"""1.5 * 2**23: a float whose lowest bit is worth one, so that integers can be added to its bits."""
_MAGIC_BITS = tl.constexpr(0x4B400000)
LIFT = tl.constexpr(-60.0)
"""Added to scores above the centre: the range of a float lies around what occurs."""
MOST_SCORE = tl.constexpr(100.0)
LOG2_E = tl.constexpr(1.4426950408889634)
_MOST = tl.constexpr(2.0**100)
"""What has more counts as this much, so that sums stay finite."""


@triton.jit
def quantised(a, b, c, d, AXIS: tl.constexpr):
    """Turned query quarters in 8 bits: [rows, WIDTH] if AXIS is 1, [WIDTH, rows] if it is 0.

    Returns their integers, the step of each row, and what the accumulators of each row begin with:
    the bits of MAGIC, less the middle of the codes.
    """
    size = tl.maximum(tl.maximum(tl.abs(a), tl.abs(b)), tl.maximum(tl.abs(c), tl.abs(d)))
    peak = tl.maximum(tl.max(size, AXIS), 1e-30)
    factor = tl.expand_dims(127.0 / peak, AXIS)
    a = tl.floor(a * factor + 0.5)
    b = tl.floor(b * factor + 0.5)
    c = tl.floor(c * factor + 0.5)
    d = tl.floor(d * factor + 0.5)
    total = tl.sum((a + b + (c + d)).to(tl.int32), AXIS)
    start = _MAGIC_BITS - total - (total >> 1)
    return a.to(tl.int8), b.to(tl.int8), c.to(tl.int8), d.to(tl.int8), peak / 127.0, start


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
def unpacked(codes, PACKED: tl.constexpr):
    """Codes [tokens, WIDTH] as integers 0 to 3 [tokens, 4 * WIDTH], quarter by quarter."""
    lowered = _lowered(codes, PACKED)
    a, b = _lowest(codes, PACKED), _lowest(lowered, PACKED)
    lowered = _lowered(lowered, PACKED)
    c, d = _lowest(lowered, PACKED), _lowest(_lowered(lowered, PACKED), PACKED)
    quarters = tl.permute(tl.join(tl.join(a, c), tl.join(b, d)), (0, 2, 3, 1))
    return tl.reshape(quarters, (codes.shape[0], 4 * codes.shape[1]))


@triton.jit
def in_pair_order(token, GROUP: tl.constexpr):
    """Numbers of a chunk's tokens in the order for ``row_sums``: those that meet are 8 apart."""
    if GROUP < 16:
        half: tl.constexpr = GROUP // 2
        nth = token % 8
        token = token // 16 * 16 + nth // half * GROUP + token % 16 // 8 * half + nth % half
        # What the compiler does not see: neighbours remain neighbours, half a group of them.
        token = tl.max_contiguous(tl.multiple_of(token, half), half)
    return token


@triton.jit
def row_sums(products, scale, step, lift, GROUP: tl.constexpr):
    """Sums of 2**score over the pairs of each group of a chunk: [rows, groups].

    Of 4 groups there are 8 columns, the last four zero.

    Args: ``products`` [rows, 64] int32, MAGIC added to their bits; ``scale`` [64] float32, both
    ``in_pair_order``; ``step`` [rows], and ``lift`` [rows], which is added to the scores.
    """
    ROWS: tl.constexpr = products.shape[0]
    COLUMNS: tl.constexpr = 32 if GROUP == 2 else 8
    # Exact: a bf16 scale times MAGIC has few digits.
    score = tl.fma(products.to(tl.float32, bitcast=True), scale[None, :], (scale * -MAGIC)[None, :])
    score = tl.max(tl.reshape(score, (ROWS, 4, 2, 8)), 2)
    weight = tl.exp2(tl.minimum(score * step[:, None, None] + lift[:, None, None], MOST_SCORE))
    # Added up by a product, as that moves nothing between threads.
    ones = tl.arange(0, 32)[:, None] // (GROUP // 2) == tl.arange(0, COLUMNS)[None, :]
    weight = tl.reshape(weight.to(tl.bfloat16), (ROWS, 32))
    return tl.dot(weight, tl.where(ones, 1.0, 0.0).to(tl.bfloat16))


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
def in_product_order(tokens, REPEATS: tl.constexpr, WARPS: tl.constexpr, GROUP: tl.constexpr):
    """Rows of a tile [tokens, WIDTH], in the order that they are multiplied in.

    A thread holds rows of a product 8 apart, and REPEATS rows 16 * WARPS apart: they are given to
    one group, or to several, so that pairs meet in a thread and most of a sum does not leave it.
    """
    WIDTH: tl.constexpr = tokens.shape[1]
    # Of 8 lanes so many share a group; a thread holds so many pairs of it, of so many groups.
    LANES: tl.constexpr = GROUP // 2 // REPEATS if GROUP // 2 > REPEATS else 1
    PAIRS: tl.constexpr = GROUP // 2 // LANES
    GROUPS: tl.constexpr = REPEATS // PAIRS
    tokens = tl.reshape(tokens, (WARPS, GROUPS, 8 // LANES, 2, PAIRS, LANES, WIDTH))
    tokens = tl.permute(tokens, (1, 4, 0, 3, 2, 5, 6))
    return tl.reshape(tokens, (16 * WARPS * REPEATS, WIDTH))


@triton.jit
def group_sums(
    products, scale, step, REPEATS: tl.constexpr, WARPS: tl.constexpr, GROUP: tl.constexpr
):
    """Sums of 2**(score above the centre + LIFT) over the pairs of each group: [groups, rows].

    Args: ``products`` [tokens, rows] from ``token_products``, ``scale`` [tokens] in the
    same order, ``step`` [rows].
    """
    ROWS: tl.constexpr = products.shape[1]
    LANES: tl.constexpr = GROUP // 2 // REPEATS if GROUP // 2 > REPEATS else 1
    PAIRS: tl.constexpr = GROUP // 2 // LANES
    GROUPS: tl.constexpr = REPEATS // PAIRS
    # Exact: a bf16 scale times MAGIC has few digits.
    score = tl.fma(products, scale[:, None], (scale * -MAGIC)[:, None])
    score = tl.reshape(score, (GROUPS, PAIRS, WARPS, 2, 8 // LANES, LANES, ROWS))
    weight = tl.exp2(tl.max(score, 3) * step[None, None, None, None, None, :] + LIFT)
    weight = tl.permute(tl.sum(tl.sum(weight, 1), 3), (1, 0, 2, 3))
    return tl.minimum(tl.reshape(weight, (16 * WARPS * REPEATS // GROUP, ROWS)), _MOST)


@triton.jit
def stratum_groups(stratum, PLACES: tl.constexpr, PER_CHUNK: tl.constexpr):
    """The first PLACES groups of a stratum."""
    place = tl.arange(0, PLACES)
    return (place // PER_CHUNK * _STRATA + stratum) * PER_CHUNK + place % PER_CHUNK


@triton.jit
def _in_strata_before(stratum, end):
    """How many of the chunks before ``end`` are in strata before this one."""
    return end // _STRATA * stratum + tl.minimum(end % _STRATA, stratum)


@triton.jit
def stratum_room(stratum, first, end, budget, PER_CHUNK: tl.constexpr):
    """What is drawn from a stratum, when groups of chunks from ``first`` to ``end`` may be.

    Returns: where its part begins, how many groups it has, and how many all parts together have.
    """
    end = tl.maximum(end, first)
    filled = tl.minimum(budget, (end - first) * PER_CHUNK)
    before = _in_strata_before(stratum, end) - _in_strata_before(stratum, first)
    after = _in_strata_before(stratum + 1, end) - _in_strata_before(stratum + 1, first)
    chunks = tl.maximum(end - first, 1)
    start = filled * before // chunks
    return start, filled * after // chunks - start, filled


@triton.jit
def draw_numbers(group, head):
    """``reference.draw_numbers`` of groups; ``head`` is numbered through all layers."""
    # Products may wrap around: a turn divides what they lose.
    turned = (group * _GROUP_TURN + (group * 0 + head) * _HEAD_TURN) & (_TURN - 1)
    return tl.maximum(turned.to(tl.float32) * (_MAX_IMPORTANCE / _TURN), 1.0)


@triton.jit
def importance_of(mass, bound):
    """How many groups each stands for that was taken with a ratio of at least ``bound``."""
    reach = bound * _MAX_IMPORTANCE
    # A mass above the reach stands for itself, and so does what has none.
    ratio = reach / tl.maximum(mass, 1e-37)
    return tl.minimum(tl.maximum(ratio, 1.0), _MAX_IMPORTANCE)
