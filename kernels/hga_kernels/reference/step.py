"""The end of a decode step in plain torch."""

import torch

from hga_kernels.arguments import DecodeState, StepResults


def finish_step(
    drawn: torch.Tensor,
    state: DecodeState,
    mass: torch.Tensor,
    counts: torch.Tensor,
    results: StepResults,
) -> None:
    """Write the results of a step to the ring and prepare the next step, all in place.

    Args:
        drawn: [1] int64: the token that was drawn, negative if none could be.
        state: of this step; becomes that of the next: the drawn token (0 if there is none), the
            next position, the next step.
        mass: [groups] float32 attention mass of this step; becomes zero.
        counts: [2] int64 hits and misses of the page cache so far.
        results: the ring.
    """
    row = int(state.step) % len(results.tokens)
    results.tokens[row] = drawn[0]
    results.masses[row] = mass
    results.counts[row] = counts
    mass.zero_()
    state.token.copy_(drawn.clamp_min(0))
    state.position.add_(1)
    state.step.add_(1)
