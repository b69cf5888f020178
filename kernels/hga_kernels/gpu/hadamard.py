"""Parts of kernels that turn vectors by a Hadamard matrix, in the quarters that codes come in.

Byte b of a token's codes holds dimensions b, b + dim/4, b + dim/2 and b + 3 dim/4, and the
Hadamard matrix of dim is that of 4 by that of dim/4. So vectors are four quarters [rows, WIDTH],
padded with zeros: each is turned by the small matrix, then they are added and subtracted.
"""

import triton
import triton.language as tl


@triton.jit
def load_quarters(start, rows, inside, stride, QUARTER: tl.constexpr, WIDTH: tl.constexpr):
    """Four tiles [rows, WIDTH] of rows ``stride`` apart, zero outside."""
    columns = tl.arange(0, WIDTH)
    places = rows[:, None] * stride + columns[None, :]
    inside = inside[:, None] & (columns < QUARTER)[None, :]
    return (
        tl.load(start + places, inside, 0),
        tl.load(start + places + QUARTER, inside, 0),
        tl.load(start + places + 2 * QUARTER, inside, 0),
        tl.load(start + places + 3 * QUARTER, inside, 0),
    )


@triton.jit
def signs(QUARTER: tl.constexpr, WIDTH: tl.constexpr):
    """[WIDTH, WIDTH] float32: the Hadamard matrix of QUARTER, not normalised, zero outside."""
    columns = tl.arange(0, WIDTH)
    shared = columns[:, None] & columns[None, :]
    shared ^= shared >> 4
    shared ^= shared >> 2
    shared ^= shared >> 1
    return tl.where((columns < QUARTER)[None, :], 1.0 - 2.0 * (shared & 1), 0.0)


@triton.jit
def turn_quarters(a, b, c, d, QUARTER: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """Four tiles [rows, WIDTH], turned, in float32; if COLUMNS, they are [WIDTH, rows]."""
    matrix = signs(QUARTER, WIDTH).to(a.dtype)
    if COLUMNS:
        # Few rows: less is to be multiplied so.
        matrix = tl.trans(matrix)
        a = tl.dot(matrix, a)
        b = tl.dot(matrix, b)
        c = tl.dot(matrix, c)
        d = tl.dot(matrix, d)
    else:
        a = tl.dot(a, matrix)
        b = tl.dot(b, matrix)
        c = tl.dot(c, matrix)
        d = tl.dot(d, matrix)
    size: tl.constexpr = (4 * QUARTER) ** -0.5
    return (
        (a + b + (c + d)) * size,
        (a - b + (c - d)) * size,
        (a + b - (c + d)) * size,
        (a - b - (c - d)) * size,
    )
