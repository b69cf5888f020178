"""The least recently used of many slots, in registers: radix select by digits of five bits."""

import triton
import triton.language as tl


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
