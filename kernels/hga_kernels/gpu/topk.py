"""The largest of many numbers, in registers."""

import triton
import triton.language as tl

_DROPPED_BITS = tl.constexpr(14)
"""Of a mass: what is left is its exponent and nine digits."""


_LEAST = tl.constexpr((127 - 56) << 9)
"""What is left of 2**-56. Lighter masses are alike, and so are those from 2**8 on."""


_GREATEST = tl.constexpr(2**15 - 1)
"""Of what is left, from _LEAST on: three digits of five bits."""


@triton.jit
def _border_digit(digits, among, wanted):
    """The digit of the ``wanted``-th largest of those ``among``.

    Returns: the digit, or 0 if there are fewer; how many have a larger one; how many there are.
    """
    reach = tl.cumsum(tl.histogram(digits, 32, among), 0, reverse=True)
    digit = tl.arange(0, 32)
    # The first digit that too few reach, with how many do, in one search.
    too_few = (reach < wanted) & (digit > 0)
    first = tl.max(tl.where(too_few, reach * 64 + 63 - digit, 31), 0)
    return 62 - (first & 63), first >> 6, tl.max(reach, 0)


@triton.jit
def heaviest(mass, present, limit):
    """The ``limit`` heaviest of what is present, the first among those nearly alike.

    There are at least as many places as threads. Masses are alike that have the same exponent and
    the same nine digits after it.

    Returns: whether each is taken, how many before it are, and what the heaviest of the others is:
    0 if nothing is left out, or as light as that.
    """
    # Positive floats are in the order of their bits.
    key = (mass.to(tl.uint32, bitcast=True) >> _DROPPED_BITS).to(tl.int32) - _LEAST
    key = tl.minimum(tl.maximum(key, 0), _GREATEST)
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
    taken, place = _first_beyond(key, border, present, tl.where(left_out, room - 1, room))
    bound = ((border + _LEAST) << _DROPPED_BITS).to(tl.float32, bitcast=True)
    return taken, place, tl.where(left_out & (border > 0), bound, 0.0)


@triton.jit
def oldest(age, present, limit):
    """The ``limit`` oldest of what is present, the first among equals; there are as many.

    Ages are from 0 to 1,023; there are at least as many places as threads.

    Returns: whether each is taken, and how many before it are.
    """
    upper, above, _ = _border_digit(age >> 5, present, limit)
    room = limit - above
    among = present & (age >> 5 == upper)
    lower, above, _ = _border_digit(age & 31, among, room)
    return _first_beyond(age, (upper << 5) + lower, present, room - above)


@triton.jit
def _first_beyond(key, border, present, room):
    """What lies above the border, and the first ``room`` of what lies on it.

    Returns: whether each is taken, and how many before it are.
    """
    over = (present & (key > border)).to(tl.int32)
    equal = (present & (key == border)).to(tl.int32)
    # Both counts in one scan; there are at most 65,536 places.
    before = tl.cumsum(over + (equal << 16), 0) - over - (equal << 16)
    equal_before = before >> 16 & 0xFFFF
    taken = (over > 0) | ((equal > 0) & (equal_before < room))
    return taken, (before & 0xFFFF) + tl.minimum(equal_before, room)
