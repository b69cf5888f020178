"""Parts of the selection's kernels: 8-bit queries, token scores on tensor cores, draws.

A token's score is that of its chunk's centre plus step * scale * (ints . codes - 1.5 sum(ints)),
where the query is 8-bit integers ``ints`` times ``step`` and the token has 2-bit codes and a scale.
All scores are in base 2.
"""

import triton
import triton.language as tl

from hga_kernels.reference.selection import (
    GROUP_STEP,
    HEAD_STEP,
    MAX_IMPORTANCE,
    PERIOD,
    STRATA,
)

_STRATA = tl.constexpr(STRATA)
_PERIOD = tl.constexpr(PERIOD)
_GROUP_STEP = tl.constexpr(GROUP_STEP)
_HEAD_STEP = tl.constexpr(HEAD_STEP)
_MAX_IMPORTANCE = tl.constexpr(float(MAX_IMPORTANCE))
MAGIC = tl.constexpr(12582912.0)
"""1.5 * 2**23: a float32 whose lowest bit counts one, so integers can be added to its bits."""
_MAGIC_BITS = tl.constexpr(0x4B400000)
"""The bits of MAGIC."""
LIFT = tl.constexpr(-60.0)
"""Added to scores relative to the centre, so that exponentials stay in the range of a float32."""
MAX_SCORE = tl.constexpr(100.0)
_MAX_WEIGHT = tl.constexpr(2.0**100)
"""Larger scores and weights count as these, so that sums stay finite."""


@triton.jit
def quantise(a, b, c, d, AXIS: tl.constexpr):
    """Quantise transformed query quarters to 8 bits along AXIS, the axis of dimensions.

    Returns: their integers, the step of each row, and the initial value of each row's accumulators:
    the bits of MAGIC minus 1.5 times the sum of the integers.
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
    """Return the lowest bit pair of each byte."""
    if PACKED:
        pair = tl.inline_asm_elementwise(
            "and.b32 $0, $1, 0x03030303;", "=r,r", [codes], dtype=tl.int8, is_pure=True, pack=4
        )
    else:
        pair = (codes & 3).to(tl.int8)
    return pair


@triton.jit
def _shifted(codes, PACKED: tl.constexpr):
    """Shift each byte by a bit pair; what comes into its upper bits does not matter."""
    if PACKED:
        shifted = tl.inline_asm_elementwise(
            "shr.b32 $0, $1, 2;", "=r,r", [codes], dtype=tl.uint8, is_pure=True, pack=4
        )
    else:
        shifted = codes >> 2
    return shifted


@triton.jit
def unpack(codes, PACKED: tl.constexpr):
    """Unpack codes [tokens, WIDTH] to integers 0..3 [tokens, 4 * WIDTH], quarter by quarter."""
    shifted = _shifted(codes, PACKED)
    a, b = _lowest(codes, PACKED), _lowest(shifted, PACKED)
    shifted = _shifted(shifted, PACKED)
    c, d = _lowest(shifted, PACKED), _lowest(_shifted(shifted, PACKED), PACKED)
    quarters = tl.permute(tl.join(tl.join(a, c), tl.join(b, d)), (0, 2, 3, 1))
    return tl.reshape(quarters, (codes.shape[0], 4 * codes.shape[1]))


@triton.constexpr_function
def columns_of(group):
    """Return the columns that the groups of a chunk have in a matrix product: at least 8."""
    return max(64 // group, 8)


@triton.jit
def in_pair_order(token, GROUP: tl.constexpr):
    """Permute token numbers of a chunk for ``row_sums``: the tokens of a pair are 8 apart."""
    if GROUP < 16:
        half: tl.constexpr = GROUP // 2
        nth = token % 8
        token = token // 16 * 16 + nth // half * GROUP + token % 16 // 8 * half + nth % half
        # The compiler cannot see that runs of half a group stay contiguous.
        token = tl.max_contiguous(tl.multiple_of(token, half), half)
    return token


@triton.jit
def row_sums(products, scale, step, lift, GROUP: tl.constexpr):
    """Sum 2**score over the pairs of each group of a chunk: [rows, groups].

    There are ``columns_of`` columns; those beyond the groups are zero.

    Args: ``products``: [rows, 64] int32 plus the bits of MAGIC, and ``scale``: [64] float32, both
    ``in_pair_order``; ``step``: [rows]; ``lift``: [rows], added to the scores.
    """
    ROWS: tl.constexpr = products.shape[0]
    COLUMNS: tl.constexpr = columns_of(GROUP)
    # Exact: MAGIC has two significant bits, so MAGIC times a bf16 scale fits float32.
    score = tl.fma(products.to(tl.float32, bitcast=True), scale[None, :], (scale * -MAGIC)[None, :])
    score = tl.max(tl.reshape(score, (ROWS, 4, 2, 8)), 2)
    weight = tl.exp2(tl.minimum(score * step[:, None, None] + lift[:, None, None], MAX_SCORE))
    # Summed by a matrix product, which moves no data between threads.
    ones = tl.arange(0, 32)[:, None] // (GROUP // 2) == tl.arange(0, COLUMNS)[None, :]
    weight = tl.reshape(weight.to(tl.bfloat16), (ROWS, 32))
    return tl.dot(weight, tl.where(ones, 1.0, 0.0).to(tl.bfloat16))


@triton.jit
def token_products(codes, a, b, c, d, start, PACKED: tl.constexpr):
    """Return MAGIC plus ints . (codes - 1.5) as floats [tokens, rows].

    Args: ``codes``: [tokens, WIDTH] bytes; the quarters of the query: [WIDTH, rows] integers;
    ``start``: from ``quantise``.
    """
    sums = tl.zeros([codes.shape[0], a.shape[1]], tl.int32) + start[None, :]
    sums = tl.dot(_lowest(codes, PACKED), a, sums, out_dtype=tl.int32)
    codes = _shifted(codes, PACKED)
    sums = tl.dot(_lowest(codes, PACKED), b, sums, out_dtype=tl.int32)
    codes = _shifted(codes, PACKED)
    sums = tl.dot(_lowest(codes, PACKED), c, sums, out_dtype=tl.int32)
    codes = _shifted(codes, PACKED)
    sums = tl.dot(_lowest(codes, PACKED), d, sums, out_dtype=tl.int32)
    return sums.to(tl.float32, bitcast=True)


@triton.jit
def in_product_order(tokens, REPEATS: tl.constexpr, WARPS: tl.constexpr, GROUP: tl.constexpr):
    """Permute the rows of a tile [tokens, WIDTH] for the matrix product.

    A thread holds rows of the product that are 8 apart, and REPEATS rows that are 16 * WARPS apart.
    The permutation gives these rows to one group, or to whole groups, so that both tokens of a pair
    and most of a group's sum are in one thread.
    """
    WIDTH: tl.constexpr = tokens.shape[1]
    # LANES of 8 lanes share a group; a thread holds PAIRS pairs of each of GROUPS groups.
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
    """Sum 2**(score relative to the centre + LIFT) over the pairs of each group: [groups, rows].

    Args: ``products``: [tokens, rows] from ``token_products``; ``scale``: [tokens] in the same
    order; ``step``: [rows].
    """
    ROWS: tl.constexpr = products.shape[1]
    LANES: tl.constexpr = GROUP // 2 // REPEATS if GROUP // 2 > REPEATS else 1
    PAIRS: tl.constexpr = GROUP // 2 // LANES
    GROUPS: tl.constexpr = REPEATS // PAIRS
    # Exact: MAGIC has two significant bits, so MAGIC times a bf16 scale fits float32.
    score = tl.fma(products, scale[:, None], (scale * -MAGIC)[:, None])
    score = tl.reshape(score, (GROUPS, PAIRS, WARPS, 2, 8 // LANES, LANES, ROWS))
    weight = tl.exp2(tl.max(score, 3) * step[None, None, None, None, None, :] + LIFT)
    weight = tl.permute(tl.sum(tl.sum(weight, 1), 3), (1, 0, 2, 3))
    return tl.minimum(tl.reshape(weight, (16 * WARPS * REPEATS // GROUP, ROWS)), _MAX_WEIGHT)


@triton.jit
def stratum_groups(stratum, COUNT: tl.constexpr, PER_CHUNK: tl.constexpr):
    """Return the numbers of the first COUNT groups of a stratum."""
    nth = tl.arange(0, COUNT)
    return (nth // PER_CHUNK * _STRATA + stratum) * PER_CHUNK + nth % PER_CHUNK


@triton.jit
def _in_strata_before(stratum, end):
    """Count the chunks before ``end`` that are in strata before this one."""
    return end // _STRATA * stratum + tl.minimum(end % _STRATA, stratum)


@triton.jit
def stratum_room(stratum, first, end, budget, PER_CHUNK: tl.constexpr):
    """Return a stratum's part of the budget, for chunks from ``first`` up to ``end``.

    Returns: where its part begins, how many groups it has, and how many all parts have together.
    """
    end = tl.maximum(end, first)
    filled = tl.minimum(budget, (end - first) * PER_CHUNK)
    before = _in_strata_before(stratum, end) - _in_strata_before(stratum, first)
    after = _in_strata_before(stratum + 1, end) - _in_strata_before(stratum + 1, first)
    chunks = tl.maximum(end - first, 1)
    start = filled * before // chunks
    return start, filled * after // chunks - start, filled


@triton.jit
def _draw_numbers(group, head):
    """See ``reference.draw_numbers``; ``head`` counts the KV heads of all layers."""
    # The products may overflow: PERIOD divides 2**32, so the remainder stays right.
    steps = (group * _GROUP_STEP + (group * 0 + head) * _HEAD_STEP) & (_PERIOD - 1)
    return tl.maximum(steps.to(tl.float32) * (1.0 / _PERIOD), 1.0 / _MAX_IMPORTANCE)


@triton.jit
def draw(
    share,
    group,
    head,
    present,
    stratum,
    first,
    end,
    budget,
    expected,
    groups,
    importance,
    PER_CHUNK: tl.constexpr,
    BUDGET: tl.constexpr,
):
    """Draw groups of a stratum and write them, see ``reference.draw_groups``.

    Args: ``share`` and ``present``: of the stratum's groups ``group``; ``first`` and ``end``: the
    chunks that may be chosen from; ``groups`` and ``importance``: pointers to the selection of the
    KV head, ``budget`` places; ``expected``: see ``Budget``. BUDGET is a power of two, at least
    ``budget``.

    Returns: whether each is drawn; its place; which of the BUDGET places this stratum leaves empty;
    where its room begins, and how large it is.
    """
    start, room, filled = stratum_room(stratum, first, end, budget, PER_CHUNK)
    takes_all = 2 * (end - first) * PER_CHUNK <= budget
    number = _draw_numbers(group, head)
    # A share is at most 1. Where sums of weights are too small to divide by, it might be infinite,
    # and halving would never end.
    odds = tl.where(takes_all, 1.0, tl.minimum(share, 1.0) * expected)
    odds = tl.where(present, odds, 0.0)
    drawn = tl.sum((odds >= number).to(tl.int32), 0)
    while drawn > room:
        odds *= 0.5
        drawn = tl.sum((odds >= number).to(tl.int32), 0)
    is_drawn = odds >= number
    place = start + tl.cumsum(is_drawn.to(tl.int32), 0) - 1
    # A stratum empties what it leaves of its room, and its part of the places beyond all rooms.
    lane = tl.arange(0, BUDGET)
    empty = lane >= tl.maximum(filled, budget * stratum // _STRATA)
    empty &= lane < budget * (stratum + 1) // _STRATA
    empty |= (lane >= start + drawn) & (lane < start + room)
    tl.store(groups + place, group, is_drawn)
    tl.store(importance + place, tl.maximum(1.0 / odds, 1.0), is_drawn)
    tl.store(groups + lane, -1, empty)
    tl.store(importance + lane, 1.0, empty)
    return is_drawn, place, empty, start, room
