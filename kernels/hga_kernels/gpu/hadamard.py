"""The Hadamard transform inside kernels, on vectors in four quarters.

Byte b of a token's codes holds dimensions b, b + dim/4, b + dim/2 and b + 3 dim/4, and the Hadamard
matrix of size dim is the Kronecker product of those of sizes 4 and dim/4. So a vector is handled as
four quarters [rows, WIDTH], padded with zeros: each quarter is multiplied by the small matrix, then
quarters are added and subtracted.
"""

import triton
import triton.language as tl


@triton.jit
def load_quarters(start, rows, inside, stride, QUARTER: tl.constexpr, WIDTH: tl.constexpr):
    """Load four tiles [rows, WIDTH] of rows that are ``stride`` elements apart, zero outside."""
    columns = tl.arange(0, WIDTH)
    offsets = rows[:, None] * stride + columns[None, :]
    inside = inside[:, None] & (columns < QUARTER)[None, :]
    return (
        tl.load(start + offsets, inside, 0),
        tl.load(start + offsets + QUARTER, inside, 0),
        tl.load(start + offsets + 2 * QUARTER, inside, 0),
        tl.load(start + offsets + 3 * QUARTER, inside, 0),
    )


@triton.jit
def signs(QUARTER: tl.constexpr, WIDTH: tl.constexpr):
    """Return the Hadamard matrix of size QUARTER: [WIDTH, WIDTH] float32 of ±1, zero outside."""
    columns = tl.arange(0, WIDTH)
    shared = columns[:, None] & columns[None, :]
    shared ^= shared >> 4
    shared ^= shared >> 2
    shared ^= shared >> 1
    return tl.where((columns < QUARTER)[None, :], 1.0 - 2.0 * (shared & 1), 0.0)


@triton.jit
def transform_quarters(
    a, b, c, d, QUARTER: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr
):
    """Transform four tiles [rows, WIDTH], or [WIDTH, rows] if COLUMNS; the result is float32."""
    matrix = signs(QUARTER, WIDTH).to(a.dtype)
    if COLUMNS:
        # For few rows this is less to multiply.
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
