"""The end of a decode step: write results to the host and prepare the state of the next step."""

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.arguments import DecodeState, Reported, StepResults
from hga_kernels.gpu.build import Build, Launch, capability, overlap, pick
from hga_kernels.gpu.launch import Kernel, cdiv, next_power_of_2

COUNT_LAUNCHES = {90: Launch({"BLOCK": 32}, warps=4), 120: Launch({"BLOCK": 32}, warps=4)}
LAUNCHES = {90: Launch({"BLOCK": 2048}, warps=8), 120: Launch({"BLOCK": 2048}, warps=8)}


@Kernel
@triton.jit
def count_layers_kernel(
    step_mass,  # [LAYERS, stride] float32
    mass,  # [groups] float32
    layer_mass,  # [LAYERS, groups] float32
    position,  # [1] int32
    groups,
    stride,
    FIRST: tl.constexpr,
    CHUNK: tl.constexpr,
    PER_CHUNK: tl.constexpr,
    LEAST: tl.constexpr,
    LAYERS: tl.constexpr,
    PADDED: tl.constexpr,
    OVERLAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per BLOCK groups."""
    if OVERLAPS:
        gdc_launch_dependents()
        gdc_wait()
    group = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    layer = tl.arange(0, PADDED)[:, None]
    end = tl.load(position) // CHUNK * PER_CHUNK
    least = tl.where(end <= FIRST, LEAST, FIRST)
    end = tl.where(end <= FIRST, groups, end)
    there = (layer < LAYERS) & (group < groups)[None, :]
    counted = there & ((group >= least) & (group < end))[None, :]
    own = step_mass + layer * stride + group[None, :]
    found = tl.load(own, mask=there, other=0.0)
    of_answer = layer_mass + layer * groups + group[None, :]
    before = tl.load(of_answer, mask=counted, other=0.0)
    tl.store(mass + group, tl.sum(found, 0), mask=group < groups)
    tl.store(of_answer, before + found, mask=counted)
    tl.store(own, 0.0, mask=there)


@Kernel
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
    OVERLAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Run as one program, after all other kernels of the step."""
    if OVERLAPS:
        gdc_wait()
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


def count_layers(
    step_mass: torch.Tensor,
    mass: torch.Tensor,
    layer_mass: torch.Tensor,
    position: torch.Tensor,
    reported: Reported,
) -> None:
    """See ``reference.count_layers``; rows of ``step_mass`` may be apart."""
    layers, groups = layer_mass.shape
    launch = pick(COUNT_LAUNCHES, capability(mass.device))
    count_layers_kernel[(cdiv(groups, launch.sizes["BLOCK"]),)](
        step_mass,
        mass,
        layer_mass,
        position,
        groups,
        step_mass.stride(0),
        FIRST=reported.first,
        CHUNK=reported.chunk,
        PER_CHUNK=reported.per_chunk,
        LEAST=reported.least,
        LAYERS=layers,
        PADDED=next_power_of_2(layers),
        **overlap(mass.device),
        **launch.options(),
    )


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
        **overlap(drawn.device),
        **launch.options(),
    )


BUILDS = (
    Build(
        "count_layers",
        count_layers_kernel,
        {
            **dict.fromkeys(("step_mass", "mass", "layer_mass"), "*fp32"),
            "position": "*i32",
            **dict.fromkeys(("groups", "stride"), "i32"),
        },
        COUNT_LAUNCHES,
        {
            "FIRST": 4,
            "CHUNK": 64,
            "PER_CHUNK": 4,
            "LEAST": 1,
            "LAYERS": 48,
            "PADDED": 64,
            "OVERLAPS": True,
        },
    ),
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
        {"OVERLAPS": True},
    ),
)
