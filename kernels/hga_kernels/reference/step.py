"""The end of a decode step in plain torch."""

import torch

from hga_kernels.arguments import DecodeState, Reported, StepResults


def count_layers(
    step_mass: torch.Tensor,
    mass: torch.Tensor,
    layer_mass: torch.Tensor,
    position: torch.Tensor,
    reported: Reported,
) -> None:
    """Add up the attention mass that the layers of a step have counted, all in place.

    Args:
        step_mass: [layers, groups] float32 of this step; becomes zero.
        mass: [groups] float32, written: the sum over layers.
        layer_mass: [layers, groups] float32; what traces report of this step is added.
        position: [1] int32 of the query.
        reported: what traces report.
    """
    groups = torch.arange(len(mass), device=mass.device)
    end = position // reported.chunk * reported.per_chunk
    routed = (groups >= reported.first) & (groups < end)
    is_reported = routed | ((end <= reported.first) & (groups >= reported.least))
    mass.copy_(step_mass.sum(0))
    layer_mass.add_(step_mass * is_reported)
    step_mass.zero_()


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
