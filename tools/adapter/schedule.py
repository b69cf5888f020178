"""Learning rate and sequence length by the share of training that is done."""

import math
import random

_WARM_UP, _LEAST = 0.03, 0.02
MIDDLE = 0.5
"""Share from which on an adapter is trained that can find things already."""

_STAGES = (
    (0.12, {4_096: 1, 8_192: 3}),
    (0.30, {8_192: 2, 16_384: 3}),
    (0.50, {8_192: 1, 16_384: 1, 32_768: 4}),
    (1.00, {16_384: 1, 32_768: 3, 65_536: 8}),
)
"""Until which share sequences of which lengths are drawn, and how often. Finding what is asked for
is learned from many short sequences first, then carried to longer ones."""


def rate(share: float) -> float:
    """Return the learning rate relative to its peak: a short rise, then half a cosine."""
    if share < _WARM_UP:
        return (share + 0.002) / _WARM_UP
    done = min((share - _WARM_UP) / (1 - _WARM_UP), 1.0)
    return _LEAST + (1 - _LEAST) * (1 + math.cos(math.pi * done)) / 2


def length(share: float, step: int) -> int:
    """Return the length of a step's sequences, in tokens."""
    lengths = next(lengths for end, lengths in _STAGES if share <= end or end == 1.0)
    return random.Random(step).choices(list(lengths), list(lengths.values()))[0]
