"""Top-k and LRU of many numbers, in registers: radix select by digits of five bits."""

import triton
import triton.language as tl

_DROPPED_BITS = tl.constexpr(14)
"""Low bits of a float32 that are ignored: its exponent and nine bits of its mantissa remain."""
_SMALLEST = tl.constexpr((127 - 56) << 9)
"""What remains of 2**-56; smaller values count as equal, and so do values from 2**8 on."""
_LARGEST = tl.constexpr(2**15 - 1)
"""Largest key: what remains of a value minus _SMALLEST, three digits of five bits."""


@triton.jit
def _border_digit(digits, among, wanted):
    """Find the digit of the ``wanted``-th largest of those ``among``.

    Returns: the digit, or 0 if there are fewer; how many are larger; how many there are.
    """
    reach = tl.cumsum(tl.histogram(digits, 32, among), 0, reverse=True)
    digit = tl.arange(0, 32)
    # One search for the first digit that too few reach, and for how many do.
    too_few = (reach < wanted) & (digit > 0)
    first = tl.max(tl.where(too_few, reach * 64 + 63 - digit, 31), 0)
    return 62 - (first & 63), first >> 6, tl.max(reach, 0)


@triton.jit
def top_k(value, present, limit):
    """Take the ``limit`` largest present values, all at least 0; the first among equal ones.

    Values are equal if they have the same exponent and the same nine leading bits of the mantissa.
    There must be at least as many values as threads.

    Returns: whether each is taken, how many before it are, and the largest that is left out, as a
    lower bound: 0 if nothing is left out or it is below 2**-56.
    """
    # Non-negative floats are in the order of their bits.
    key = (value.to(tl.uint32, bitcast=True) >> _DROPPED_BITS).to(tl.int32) - _SMALLEST
    key = tl.minimum(tl.maximum(key, 0), _LARGEST)
    upper, above, count = _border_digit(key >> 10, present, limit + 1)
    room = limit + 1 - above
    among = present & (key >> 10 == upper)
    middle, above, _ = _border_digit(key >> 5 & 31, among, room)
    room -= above
    border = (upper << 5) + middle
    among = present & (key >> 5 == border)
    lower, above, _ = _border_digit(key & 31, among, room)
    room -= above
    border = (border << 5) + lower
    left_out = count > limit
    taken, rank = _first_beyond(key, border, present, tl.where(left_out, room - 1, room))
    bound = ((border + _SMALLEST) << _DROPPED_BITS).to(tl.float32, bitcast=True)
    return taken, rank, tl.where(left_out & (border > 0), bound, 0.0)


@triton.jit
def least_recently_used(age, present, limit):
    """Take the ``limit`` largest ages that are present, the first among equal ones.

    Ages are from 0 to 1,023. There must be at least ``limit`` of them present, and at least as many
    ages as threads.

    Returns: whether each is taken, and how many before it are.
    """
    upper, above, _ = _border_digit(age >> 5, present, limit)
    room = limit - above
    among = present & (age >> 5 == upper)
    lower, above, _ = _border_digit(age & 31, among, room)
    return _first_beyond(age, (upper << 5) + lower, present, room - above)


@triton.jit
def _first_beyond(key, border, present, room):
    """Take every key above the border, and the first ``room`` keys on it.

    Returns: whether each is taken, and how many before it are.
    """
    over = (present & (key > border)).to(tl.int32)
    equal = (present & (key == border)).to(tl.int32)
    # Both counts in one scan, 16 bits each; there are at most 65,536 keys.
    before = tl.cumsum(over + (equal << 16), 0) - over - (equal << 16)
    equal_before = before >> 16 & 0xFFFF
    taken = (over > 0) | ((equal > 0) & (equal_before < room))
    return taken, (before & 0xFFFF) + tl.minimum(equal_before, room)
