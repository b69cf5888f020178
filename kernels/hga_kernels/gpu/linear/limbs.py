"""Rows as integers of two signed bytes, and their products with the integers of packed weights.

A number is ``(256 * high + low) * scale``. Scales are those of 32 columns, or of fewer, so that the
largest number there has 15 bits and a sign: as exact as float32 needs for products with weights of
at most 8 bits. One byte would not be: it changes the choice of 2% of tokens.

A thread holds four bytes of a row in the order of those of a weight's word, and multiplies all four
in one instruction. Sums of products are exact: at most 255 * 2**15 * 32 < 2**31.
"""

import torch
import triton
import triton.language as tl
from triton import knobs

from hga_kernels.gpu.launch import cdiv, next_power_of_2
from hga_kernels.gpu.linear.packed import (
    factor_of,
    has_shifts,
    integers_of,
    is_signed,
    load_words,
    nothing,
    offset_of,
    parts_of,
    pieces_of,
    place_of,
    scale_and_shift,
    split_words,
)

_STEP = tl.constexpr(1 / (127 * 256 + 127))
"""Of the largest number."""
_TINY = tl.constexpr(1e-30)
_HAS_DP4A = tl.constexpr(not knobs.runtime.interpret)
_EACH = tl.constexpr(1 if knobs.runtime.interpret else 4)
"""Operands of ``_dot`` per 16 columns."""


def empty_rows(rows: int, size: int, device: torch.device, in_limbs: bool) -> torch.Tensor:
    """Return memory for rows: bf16, or int32 words that ``store_row`` fills."""
    if not in_limbs:
        return torch.empty(rows, size, dtype=torch.bfloat16, device=device)
    # Two bytes a column; a sum and a scale per 16.
    return torch.empty(rows, size // 2 + size // 8, dtype=torch.int32, device=device)


def part_of(size: int, programs: int) -> int:
    """Return the columns of a row that each of some programs stores: whole scales, 2**n of them."""
    return max(int(next_power_of_2(cdiv(size, programs))), 32)


@triton.jit
def _larger(first, second):
    # What is no number stays none.
    return tl.maximum(first, second, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _columns(words):
    """Return words [units, 4] as ``_dot`` takes them: in columns, or together."""
    return split_words(words) if _HAS_DP4A else (words,)


@triton.jit
def _dot(weights, x, total, SIGNED: tl.constexpr):
    """Add products of bytes of weights and signed bytes of a row to ``total`` [units].

    Operands are words [units]; where there is no such instruction, [units, 4].
    """
    if _HAS_DP4A:
        # The sum below, in one instruction.
        asm: tl.constexpr = f"dp4a.{'s32' if SIGNED else 'u32'}.s32 $0, $1, $2, $3;"
        total = tl.inline_asm_elementwise(
            asm, "=r,r,r,r", [weights, x, total], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        at = tl.arange(0, 4)[None, None, :] * 8
        weight = weights[:, :, None] >> at
        weight = weight.to(tl.int8).to(tl.int32) if SIGNED else weight & 255
        products = weight * (x[:, :, None] >> at).to(tl.int8).to(tl.int32)
        total += tl.sum(tl.sum(products, 2), 1)
    return total


@triton.jit
def _sum_of(weights, highs, lows, start, SIGNED: tl.constexpr, COUNT: tl.constexpr):
    """Return ``start`` plus the products of words of weights and of a row."""
    total = tl.zeros_like(start)
    for nth in tl.static_range(COUNT):
        total = _dot(weights[nth], highs[nth], total, SIGNED)
    total = (total << 8) + start
    for nth in tl.static_range(COUNT):
        total = _dot(weights[nth], lows[nth], total, SIGNED)
    return total


@triton.jit
def _rounded(x, inverse):
    """Return int32 whose two low bytes are the high limb and the low one plus 128."""
    # Adding 1.5 * 2**23 leaves the integer in the mantissa.
    return (x * inverse + (12582912.0 + 128)).to(tl.int32, bitcast=True)


@triton.jit
def _limbs_of(pairs, COUNT: tl.constexpr):
    """Quantise COUNT words of two bf16 columns each: high words, low words, their scale."""
    numbers = nothing()
    largest = tl.full(pairs[0].shape, _TINY, tl.float32)
    for nth in tl.static_range(COUNT):
        first = (pairs[nth] << 16).to(tl.float32, bitcast=True)
        second = (pairs[nth] & -0x10000).to(tl.float32, bitcast=True)
        numbers += (first, second)
        largest = _larger(largest, _larger(tl.abs(first), tl.abs(second)))
    scale = largest * _STEP
    inverse = 1.0 / scale
    highs = nothing()
    lows = nothing()
    for nth in tl.static_range(0, COUNT * 2, 4):
        even = _rounded(numbers[nth], inverse) & 0xFFFF | _rounded(numbers[nth + 2], inverse) << 16
        odd = _rounded(numbers[nth + 1], inverse) & 0xFFFF
        odd |= _rounded(numbers[nth + 3], inverse) << 16
        highs += (even >> 8 & 0xFF00FF | odd & -0xFF0100,)
        lows += ((even & 0xFF00FF | (odd & 0xFF00FF) << 8) ^ -0x7F7F7F80,)
    return highs, lows, scale


@triton.jit
def row_of(x_ptr, row, SIZE: tl.constexpr):
    """Return where a row of SIZE columns begins, of bf16 or stored by ``store_row``."""
    if x_ptr.dtype.element_ty == tl.int32:
        return x_ptr + row * (SIZE // 2 + SIZE // 8)
    return x_ptr + row * SIZE


@triton.jit
def _together(columns, COUNT: tl.constexpr):
    """Undo ``split_words``, COUNT times."""
    found = nothing()
    for nth in tl.static_range(0, COUNT * 4, 4):
        even = tl.join(columns[nth], columns[nth + 2])
        odd = tl.join(columns[nth + 1], columns[nth + 3])
        found += (tl.reshape(tl.join(even, odd), [even.shape[0], 4]),)
    return found


@triton.jit
def limbs(
    x_ptr,
    first,
    within,
    mask,
    RUN: tl.constexpr,
    SIZE: tl.constexpr,
    MASKED: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """Return what a run of units is multiplied with.

    Args:
        x_ptr: a row of bf16, which is quantised here, or one that ``store_row`` has stored.
        first: [units] the first columns of their blocks.
        within: [units] as in ``load_units``.
        mask: [units] whether they are inside the row.
        RUN: which of the units' runs.
        SIZE: columns of the row.
        MASKED: whether any unit may be outside.
        FORMAT: of the weights.

    Returns:
        High words and low words, tuples of [units]; scales and sums [units].
    """
    PIECES: tl.constexpr = pieces_of(FORMAT)
    column = first + place_of(within, RUN * PIECES, FORMAT)
    words = x_ptr.to(tl.pointer_type(tl.int32), bitcast=True)
    if x_ptr.dtype.element_ty == tl.int32:
        highs = nothing()
        lows = nothing()
        # Scale and sum of 16 columns.
        pair = (words + SIZE // 2).to(tl.pointer_type(tl.int64), bitcast=True) + column // 16
        total = tl.zeros_like(column)
        for piece in tl.static_range(PIECES):
            at = words + (column // 4 + piece * 4)
            highs += _columns(load_words(at, mask, MASKED, 1))
            lows += _columns(load_words(at + SIZE // 4, mask, MASKED, 1))
            both = tl.load(pair + piece, mask=mask, other=0) if MASKED else tl.load(pair + piece)
            total += both.to(tl.int32)
            scale = (both >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    else:
        loaded = nothing()
        for piece in tl.static_range(PIECES * 2):
            at = words + (column // 2 + piece * 4)
            loaded += split_words(load_words(at, mask, MASKED, 1))
        highs, lows, scale = _limbs_of(loaded, PIECES * 8)
        if not _HAS_DP4A:
            highs = _together(highs, PIECES)
            lows = _together(lows, PIECES)
        total = tl.zeros_like(column)
        if offset_of(FORMAT) != 0 or has_shifts(FORMAT):
            ones = nothing()
            for nth in tl.static_range(PIECES * _EACH):
                ones += (tl.full(highs[nth].shape, 0x01010101, tl.int32),)
            total = _sum_of(ones, highs, lows, total, False, PIECES * _EACH)
    return highs, lows, scale, total


@triton.jit
def unpack_run(units, within, RUN: tl.constexpr, FORMAT: tl.constexpr):
    """Return the words of integers of a run, and its scales and shifts [units]."""
    PIECES: tl.constexpr = pieces_of(FORMAT)
    words = nothing()
    for piece in tl.static_range(PIECES):
        words += _columns(integers_of(units, within, RUN * PIECES + piece, FORMAT))
    scale, shift = scale_and_shift(units, within, RUN * PIECES, FORMAT)
    return words, scale, shift


@triton.constexpr_function
def runs_of(name: str) -> int:
    """Return the runs of a unit."""
    return int(parts_of(name) // pieces_of(name))


@triton.jit
def product_of(run, x, RUN: tl.constexpr, FORMAT: tl.constexpr):
    """Return the products [units] of ``unpack_run`` and ``limbs``."""
    words, scale, shift = run
    highs, lows, x_scale, total = x
    FACTOR: tl.constexpr = factor_of(FORMAT, RUN * pieces_of(FORMAT))
    start = total * (-FACTOR * offset_of(FORMAT))
    COUNT: tl.constexpr = pieces_of(FORMAT) * _EACH
    found = _sum_of(words, highs, lows, start, is_signed(FORMAT), COUNT).to(tl.float32) * scale
    if has_shifts(FORMAT):
        found += (total * FACTOR).to(tl.float32) * shift
    return found * (x_scale * (1 / FACTOR))


@triton.jit
def store_row(out_ptr, x, first, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Store [BLOCK] columns of a row from ``first`` as two bytes each, with scales and sums.

    Words of ``out``: all high bytes, all low bytes, then a sum and a scale per 16 columns.
    """
    tile = tl.reshape(x, [BLOCK // 32, 32])
    tiny = tl.full([BLOCK // 32], _TINY, tl.float32)
    largest = _larger(tl.reduce(tl.abs(tile), 1, _larger), tiny)
    scales = largest * _STEP
    numbers = _rounded(tile, (1.0 / scales)[:, None])
    # From 16 bits with a sign.
    numbers = (numbers << 16 >> 16) - 128
    flat = tl.reshape(numbers, [BLOCK])
    column = first + tl.arange(0, BLOCK)
    bytes_ptr = out_ptr.to(tl.pointer_type(tl.int8), bitcast=True) + column
    inside = column < SIZE
    tl.store(bytes_ptr, (flat + 128 >> 8).to(tl.int8), mask=inside)
    tl.store(bytes_ptr + SIZE, flat.to(tl.int8), mask=inside)
    sums = tl.sum(tl.reshape(numbers, [BLOCK // 32, 2, 16]), 2)
    scales = scales.to(tl.int32, bitcast=True)[:, None]
    column = first // 32 + tl.arange(0, BLOCK // 32)[:, None]
    pair = out_ptr + SIZE // 2 + column * 4 + tl.arange(0, 2)[None, :] * 2
    inside = tl.broadcast_to(column < SIZE // 32, [BLOCK // 32, 2])
    tl.store(pair, sums, mask=inside)
    tl.store(pair + 1, tl.broadcast_to(scales, [BLOCK // 32, 2]), mask=inside)


@triton.jit
def store_normed(out_ptr, row, x, first, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Store [BLOCK] columns of a row of ``empty_rows``."""
    if out_ptr.dtype.element_ty == tl.int32:
        store_row(row_of(out_ptr, row, SIZE), x, first, SIZE, BLOCK)
    else:
        column = first + tl.arange(0, BLOCK)
        tl.store(out_ptr + row * SIZE + column, x.to(tl.bfloat16), mask=column < SIZE)
