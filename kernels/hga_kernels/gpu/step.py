"""The end of a decode step: write results to the host and prepare the state of the next step."""

import torch
import triton
import triton.language as tl

from hga_kernels.arguments import DecodeState, StepResults
from hga_kernels.gpu.build import Build, Launch, capability, pick

LAUNCHES = {90: Launch({"BLOCK": 2048}, warps=8), 120: Launch({"BLOCK": 2048}, warps=8)}


@triton.jit
def finish_step_kernel(
    drawn,
    token,
    position,
    step,
    mass,
    tokens_out,
    masses_out,
    counts,
    counts_out,
    ring,
    groups,
    BLOCK: tl.constexpr,
):
    """Run as one program, after all other kernels of the step."""
    number = tl.load(step)
    result = number % ring
    chosen = tl.load(drawn)
    for first in range(0, groups, BLOCK):
        offsets = first + tl.arange(0, BLOCK)
        inside = offsets < groups
        tl.store(masses_out + result * groups + offsets, tl.load(mass + offsets, inside), inside)
        tl.store(mass + offsets, 0.0, inside)
    tl.store(tokens_out + result, chosen)
    both = tl.arange(0, 2)
    tl.store(counts_out + result * 2 + both, tl.load(counts + both))
    tl.store(token, tl.maximum(chosen, 0))
    tl.store(position, tl.load(position) + 1)
    tl.store(step, number + 1)


def finish_step(
    drawn: torch.Tensor,
    state: DecodeState,
    mass: torch.Tensor,
    counts: torch.Tensor,
    results: StepResults,
) -> None:
    """See ``reference.finish_step``; the results may be in pinned host memory."""
    ring, groups = results.masses.shape
    launch = pick(LAUNCHES, capability())
    finish_step_kernel[(1,)](
        drawn,
        state.token,
        state.position,
        state.step,
        mass,
        results.tokens,
        results.masses,
        counts,
        results.counts,
        ring,
        groups,
        **launch.options(),
    )


BUILDS = (
    Build(
        "finish_step",
        finish_step_kernel,
        {
            "drawn": "*i64",
            "token": "*i64",
            "position": "*i32",
            "step": "*i32",
            "mass": "*fp32",
            "tokens_out": "*i64",
            "masses_out": "*fp32",
            "counts": "*i64",
            "counts_out": "*i64",
            "ring": "i32",
            "groups": "i32",
        },
        LAUNCHES,
    ),
)
