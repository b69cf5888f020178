"""The plain torch definition of what ends a decode step."""

import torch


def finish_step(
    drawn: torch.Tensor,
    token: torch.Tensor,
    position: torch.Tensor,
    step: torch.Tensor,
    mass: torch.Tensor,
    tokens_out: torch.Tensor,
    masses_out: torch.Tensor,
    counts: torch.Tensor,
    counts_out: torch.Tensor,
) -> None:
    """Hand a step's results out and prepare the next step, all in place.

    Args:
        drawn: [1] int64: the token that was drawn, negative if none could be.
        token: [1] int64: becomes that token, 0 if there is none.
        position: [1] int32: goes up by one.
        step: [1] int32: number of this step; goes up by one.
        mass: [groups] float32: attention mass of this step; becomes zero.
        tokens_out: [ring] int64: row ``step % ring`` receives ``drawn``.
        masses_out: [ring, groups] float32: row ``step % ring`` receives ``mass``.
        counts: [2] int64: pages looked for so far that were found, and that were not.
        counts_out: [ring, 2] int64: row ``step % ring`` receives ``counts``.
    """
    place = int(step) % len(tokens_out)
    tokens_out[place] = drawn[0]
    masses_out[place] = mass
    counts_out[place] = counts
    mass.zero_()
    token.copy_(drawn.clamp_min(0))
    position += 1
    step += 1
