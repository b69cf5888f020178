"""Mixtures of experts for one to four rows: one kernel each for the gate, ``gate_up`` and ``down``.

The gate's kernel also chooses the experts and normalises the rows, once for all programs of the
next two kernels, so these can load their weights at once.
"""

import functools
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.gpu.build import Build, Launch, overlap
from hga_kernels.gpu.launch import Kernel, cdiv, next_power_of_2
from hga_kernels.gpu.linear.gemv import (
    MAX_ROWS,
    format_of,
    norm_weight,
    normalised,
    normed_row,
    options,
    parts,
    spread_scales,
    stack,
    unit_kind,
    unit_tile,
    weight_tile,
)
from hga_kernels.gpu.linear.limbs import (
    empty_rows,
    limbs,
    part_of,
    product_of,
    row_of,
    runs_of,
    store_normed,
    unpack_run,
)
from hga_kernels.gpu.linear.packed import (
    bytes_of,
    load_units,
    nothing,
    size_of,
    unit_of,
)
from hga_kernels.weights import FP8_BLOCK, Packed, Weight


def _launch(outputs: int, warps: int = 4, inner: int = 2048) -> Launch:
    return Launch({"BLOCK_N": outputs, "BLOCK_K": inner}, warps)


LAUNCHES = {
    "gate": {90: _launch(2), 120: _launch(2)},
    "gated": {90: _launch(1, 2), 120: _launch(1, 2)},
    "mixed": {90: _launch(8, 8, 1024), 120: _launch(8, 8, 1024)},
    "gated_packed32": {90: _launch(1, 2), 120: _launch(1, 2)},
    "gated_packed64": {90: _launch(4, 1), 120: _launch(4, 1)},
    "mixed_packed32": {90: _launch(4, 4, 1024), 120: _launch(4, 4, 1024)},
    "mixed_packed64": {90: _launch(4, 2, 1024), 120: _launch(4, 2, 1024)},
}
"""By kind of product, then by compute capability."""

CANDIDATES = {
    "gate": (*(_launch(1, warps) for warps in (2, 4, 8)), _launch(2, 4)),
    "gated": (
        *(_launch(n, 2) for n in (1, 2)),
        *(_launch(n, 4) for n in (2, 4, 8)),
        *(_launch(n, 8) for n in (4, 8, 16)),
        *(_launch(n, 2, 1024) for n in (2, 4, 8)),
        *(_launch(n, 4, 1024) for n in (8, 16)),
    ),
    "mixed": (
        *(_launch(1, warps, 1024) for warps in (4, 8)),
        *(_launch(2, warps, 1024) for warps in (4, 8, 16)),
        *(_launch(4, warps, 1024) for warps in (8, 16)),
        _launch(8, 8, 1024),
    ),
    "gated_packed64": (*(_launch(n, 1) for n in (1, 2, 4)), *(_launch(n, 2) for n in (2, 4))),
    "mixed_packed64": (
        *(_launch(n, 2) for n in (2, 4)),
        *(_launch(n, 4) for n in (2, 4, 8)),
        *(_launch(n, 8) for n in (4, 8)),
    ),
}


@dataclass(frozen=True)
class Route:
    """The experts that a few rows go through."""

    normed: torch.Tensor  # [rows, size] bf16, or in limbs
    experts: torch.Tensor  # [rows, experts_per_row] int32, best first
    shares: torch.Tensor  # [rows, experts_per_row] float32


@triton.jit
def _choosable(logits_ptr, expert, EXPERTS: tl.constexpr):
    # Bypasses the L1 cache, which does not see what other programs have just written.
    logits = tl.load(
        logits_ptr + expert, mask=expert < EXPERTS, other=float("-inf"), cache_modifier=".cg"
    )
    # NaN must not choose an expert that does not exist.
    return tl.where(logits == logits, logits, float("-inf"))


@triton.jit
def ranks(logits_ptr, EXPERTS: tl.constexpr, BLOCK: tl.constexpr):
    """Return numbers, logits and ranks [BLOCK] of experts; rank 0 is the first of the largest."""
    TILE: tl.constexpr = 16 if BLOCK > 16 else BLOCK
    expert = tl.arange(0, BLOCK)
    logits = _choosable(logits_ptr, expert, EXPERTS)
    before = tl.zeros([BLOCK, TILE], tl.int32)
    # Comparing all with all at once would take too many registers.
    for first in tl.static_range(0, BLOCK, TILE):
        other = first + tl.arange(0, TILE)
        others = _choosable(logits_ptr, other, EXPERTS)[None, :]
        is_equal_first = (others == logits[:, None]) & (other[None, :] < expert[:, None])
        before += ((others > logits[:, None]) | is_equal_first).to(tl.int32)
    return expert, logits, tl.sum(before, 1)


@triton.jit
def shares_of(
    logits,
    rank,
    EXPERTS: tl.constexpr,
    CHOSEN: tl.constexpr,
    NORMALIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return the softmax of the logits [BLOCK], over the chosen experts alone if NORMALIZE."""
    weights = tl.exp(logits - tl.max(logits, 0))
    counted = rank < CHOSEN if NORMALIZE else tl.arange(0, BLOCK) < EXPERTS
    return weights / tl.sum(tl.where(counted, weights, 0.0), 0)


@Kernel
@triton.jit
def gate_kernel(
    x_ptr,  # [rows, SIZE] bf16
    norm_ptr,  # [SIZE] bf16
    w_ptr,  # [EXPERTS, SIZE] bf16
    normed_ptr,  # [rows, SIZE] bf16, or int32 in limbs
    logits_ptr,  # [rows, EXPERTS] float32
    experts_ptr,  # [rows, CHOSEN] int32
    shares_ptr,  # [rows, CHOSEN] float32
    counts_ptr,  # [rows] int32: programs that are done; zero before and after
    eps,
    SIZE: tl.constexpr,
    EXPERTS: tl.constexpr,
    CHOSEN: tl.constexpr,
    NORMALIZE: tl.constexpr,
    OVERLAPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PART: tl.constexpr,
):
    """Compute the logits of BLOCK_N experts; the last program of a row chooses among all.

    Each program also stores PART columns of the normed row.
    """
    row = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    if OVERLAPS:
        gdc_launch_dependents()
    own = tl.program_id(0) * PART
    of_own = norm_weight(norm_ptr, own, SIZE, True, PART)
    sums = tl.zeros([BLOCK_N], tl.float32)
    for first in tl.static_range(0, SIZE, BLOCK_K):
        weight = weight_tile(w_ptr, n, first, EXPERTS, SIZE, BLOCK_K)
        of_norm = norm_weight(norm_ptr, first, SIZE, True, BLOCK_K)
        if OVERLAPS and first == 0:
            gdc_wait()
        if first == 0:
            part, _ = normed_row(x_ptr + row * SIZE, 1.0, eps, own, SIZE, False, PART)
        x, root = normed_row(x_ptr + row * SIZE, of_norm, eps, first, SIZE, True, BLOCK_K)
        sums += tl.sum(weight.to(tl.float32) * x[None, :], 1)
    if own < SIZE:
        part = normalised(part, root, of_own, x_ptr.dtype.element_ty)
        store_normed(normed_ptr, row, part, own, SIZE, PART)
    tl.store(logits_ptr + row * EXPERTS + n, sums, mask=n < EXPERTS)
    # All threads of the program must have written before it counts as done.
    tl.debug_barrier()
    if tl.atomic_add(counts_ptr + row, 1, sem="acq_rel") == tl.num_programs(0) - 1:
        expert, logits, rank = ranks(logits_ptr + row * EXPERTS, EXPERTS, BLOCK_E)
        shares = shares_of(logits, rank, EXPERTS, CHOSEN, NORMALIZE, BLOCK_E)
        tl.store(experts_ptr + row * CHOSEN + rank, expert, mask=rank < CHOSEN)
        tl.store(shares_ptr + row * CHOSEN + rank, shares, mask=rank < CHOSEN)
        tl.store(counts_ptr + row, 0)


@triton.jit
def _packed_pairs(
    x_row,
    w_ptr,
    start,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """Return [2 * BLOCK_N]: gates and ups in turn, of a row and a packed weight."""
    EACH: tl.constexpr = SIZE // size_of(FORMAT)
    MASKED: tl.constexpr = SIZE % BLOCK_K != 0
    products = nothing()
    for _ in tl.static_range(2 * BLOCK_N):
        products += (tl.zeros([BLOCK_K // unit_of(FORMAT)], tl.float32),)
    for first in tl.static_range(0, SIZE, BLOCK_K):
        block, within, inside = unit_tile(first, SIZE, BLOCK_K, FORMAT)
        stored = nothing()
        for nth in tl.static_range(2 * BLOCK_N):
            output = tl.minimum(start + nth // 2, WIDTH - 1) + nth % 2 * WIDTH
            blocks = output * EACH + block
            units = load_units(w_ptr, blocks, within, inside, FORMAT, 2 * WIDTH * EACH, MASKED)
            stored += (units,)
        for run in tl.static_range(runs_of(FORMAT)):
            column = block * size_of(FORMAT)
            x = limbs(x_row, column, within, inside, run, SIZE, MASKED, FORMAT)
            before = products
            products = nothing()
            for nth in tl.static_range(2 * BLOCK_N):
                unpacked = unpack_run(stored[nth], within, run, FORMAT)
                products += (before[nth] + product_of(unpacked, x, run, FORMAT),)
    return tl.sum(stack(products, 2 * BLOCK_N), 0)


@Kernel
@triton.jit
def gated_gemv_kernel(
    x_ptr,  # [rows, SIZE] bf16, or int32 in limbs
    norm_ptr,  # [SIZE] bf16
    experts_ptr,  # [rows, CHOSEN] int32
    w_ptr,  # [experts, 2 * WIDTH, SIZE]
    scales_ptr,  # [experts, ceil(2 * WIDTH / 128), ceil(SIZE / 128)] float32
    out_ptr,  # [rows, CHOSEN, WIDTH] bf16
    eps,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    CHOSEN: tl.constexpr,
    HAS_EXPERTS: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    OVERLAPS: tl.constexpr,
    FORMAT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute ``silu(gate) * up`` of a row for each of its experts, or of one shared weight.

    FORMAT: block format of packed weights, which take rows of bf16 or in limbs, without a norm.
    """
    slot, row = tl.program_id(1), tl.program_id(2)
    SCALES: tl.constexpr = (SIZE + 127) // 128
    if OVERLAPS:
        gdc_wait()
        # Not earlier: the next kernel reads what the kernel before this one writes.
        gdc_launch_dependents()
    start = tl.program_id(0) * BLOCK_N
    n = start + tl.arange(0, BLOCK_N)
    expert = 0
    if HAS_EXPERTS:
        expert = tl.load(experts_ptr + row * CHOSEN + slot).to(tl.int64)
    if FORMAT != "":
        matrix = w_ptr + expert * (2 * WIDTH * SIZE // size_of(FORMAT) * bytes_of(FORMAT))
        pairs = _packed_pairs(
            row_of(x_ptr, row, SIZE), matrix, start, WIDTH, SIZE, BLOCK_N, BLOCK_K, FORMAT
        )
        gates, ups = tl.split(tl.reshape(pairs, [BLOCK_N, 2]))
    else:
        w_ptr += expert * (2 * WIDTH * SIZE)
        if HAS_SCALES:
            scales_ptr += expert * ((2 * WIDTH + 127) // 128 * SCALES)
        gates = tl.zeros([BLOCK_N], tl.float32)
        ups = tl.zeros([BLOCK_N], tl.float32)
        for first in tl.static_range(0, SIZE, BLOCK_K):
            gate = weight_tile(w_ptr, n, first, WIDTH, SIZE, BLOCK_K)
            up = weight_tile(w_ptr + WIDTH * SIZE, n, first, WIDTH, SIZE, BLOCK_K)
            of_norm = norm_weight(norm_ptr, first, SIZE, HAS_NORM, BLOCK_K)
            x, _ = normed_row(x_ptr + row * SIZE, of_norm, eps, first, SIZE, HAS_NORM, BLOCK_K)
            if HAS_SCALES:
                of_gate = scales_ptr + start // 128 * SCALES
                of_up = scales_ptr + (WIDTH + start) // 128 * SCALES
                x_gate = x * spread_scales(of_gate, first, SCALES, BLOCK_K)
                x_up = x * spread_scales(of_up, first, SCALES, BLOCK_K)
            else:
                x_gate = x
                x_up = x
            gates += tl.sum(gate.to(tl.float32) * x_gate[None, :], 1)
            ups += tl.sum(up.to(tl.float32) * x_up[None, :], 1)
    out = gates / (1 + tl.exp(-gates)) * ups
    target = (row * CHOSEN + slot) * WIDTH + n
    tl.store(out_ptr + target, out.to(tl.bfloat16), mask=n < WIDTH)


@triton.jit
def _packed_mixture(
    x_ptr,
    experts_ptr,
    shares_ptr,
    w_ptr,
    residual_ptr,
    out_ptr,
    start,
    row,
    OUT: tl.constexpr,
    SIZE: tl.constexpr,
    CHOSEN: tl.constexpr,
    OVERLAPS: tl.constexpr,
    FORMAT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Compute ``mixed_gemv_kernel`` with packed weights, whose units are in one dimension."""
    EACH: tl.constexpr = SIZE // size_of(FORMAT)
    UNITS: tl.constexpr = BLOCK_K // unit_of(FORMAT)
    MASKED: tl.constexpr = SIZE != BLOCK_K or CHOSEN != BLOCK_C
    index = tl.arange(0, BLOCK_C * UNITS)
    slot, unit = index // UNITS, index % UNITS
    IN_BLOCK: tl.constexpr = size_of(FORMAT) // unit_of(FORMAT)
    block, within = unit // IN_BLOCK, unit % IN_BLOCK
    inside = (unit < SIZE // unit_of(FORMAT)) & (slot < CHOSEN)
    choice = row * CHOSEN + slot
    expert = tl.load(experts_ptr + choice, mask=slot < CHOSEN, other=0, cache_modifier=".cg")
    share = tl.load(shares_ptr + choice, mask=slot < CHOSEN, other=0, cache_modifier=".cg")
    matrix = w_ptr + expert.to(tl.int64) * (OUT * EACH * bytes_of(FORMAT))
    stored = nothing()
    for nth in tl.static_range(BLOCK_N):
        blocks = tl.minimum(start + nth, OUT - 1) * EACH + block
        stored += (load_units(matrix, blocks, within, inside, FORMAT, OUT * EACH, MASKED),)
    if OVERLAPS:
        gdc_wait()
    n = start + tl.arange(0, BLOCK_N)
    residual = tl.load(residual_ptr + row * OUT + n, mask=n < OUT, other=0).to(tl.float32)
    products = nothing()
    for _ in tl.static_range(BLOCK_N):
        products += (tl.zeros([BLOCK_C * UNITS], tl.float32),)
    for run in tl.static_range(runs_of(FORMAT)):
        column = choice * SIZE + block * size_of(FORMAT)
        x = limbs(x_ptr, column, within, inside, run, SIZE, MASKED, FORMAT)
        before = products
        products = nothing()
        for nth in tl.static_range(BLOCK_N):
            unpacked = unpack_run(stored[nth], within, run, FORMAT)
            products += (before[nth] + product_of(unpacked, x, run, FORMAT),)
    sums = tl.sum(stack(products, BLOCK_N) * share[:, None], 0)
    tl.store(out_ptr + row * OUT + n, (sums + residual).to(out_ptr.dtype.element_ty), mask=n < OUT)


@triton.jit
def _plain_mixture(
    x_ptr,
    experts_ptr,
    shares_ptr,
    w_ptr,
    scales_ptr,
    residual_ptr,
    out_ptr,
    start,
    row,
    OUT: tl.constexpr,
    SIZE: tl.constexpr,
    CHOSEN: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    OVERLAPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    n = start + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    slot = tl.arange(0, BLOCK_C)
    is_slot, inside = slot < CHOSEN, k < SIZE
    SCALES: tl.constexpr = (SIZE + 127) // 128
    choice = row * CHOSEN + slot
    expert = tl.load(experts_ptr + choice, mask=is_slot, other=0, cache_modifier=".cg")
    expert = expert.to(tl.int64)
    output = expert[None, :] * OUT + tl.minimum(n, OUT - 1)[:, None]
    weight = tl.load(
        w_ptr + output[:, :, None] * SIZE + k[None, None, :],
        mask=(is_slot[:, None] & inside[None, :])[None, :, :],
        other=0.0,
    )
    share = tl.load(shares_ptr + choice, mask=is_slot, other=0, cache_modifier=".cg")
    factors = share[:, None]
    if HAS_SCALES:
        block = tl.arange(0, BLOCK_K // 128)
        offset = (expert * ((OUT + 127) // 128) + start // 128)[:, None] * SCALES + block[None, :]
        scales = tl.load(scales_ptr + offset, mask=(block < SCALES)[None, :], other=0)
        factors = (factors * scales)[:, :, None]
        factors = tl.broadcast_to(factors, [BLOCK_C, BLOCK_K // 128, 128])
        factors = tl.reshape(factors, [BLOCK_C, BLOCK_K])
    if OVERLAPS:
        gdc_wait()
    x_offset = choice[:, None] * SIZE + k[None, :]
    x = tl.load(x_ptr + x_offset, mask=is_slot[:, None] & inside[None, :], other=0)
    # Loaded before the sums need it.
    residual = tl.load(residual_ptr + row * OUT + n, mask=n < OUT, other=0).to(tl.float32)
    products = weight.to(tl.float32) * (x.to(tl.float32) * factors)[None, :, :]
    sums = tl.sum(tl.reshape(products, [BLOCK_N, BLOCK_C * BLOCK_K]), 1)
    tl.store(out_ptr + row * OUT + n, (sums + residual).to(out_ptr.dtype.element_ty), mask=n < OUT)


@Kernel
@triton.jit
def mixed_gemv_kernel(
    x_ptr,  # [rows, CHOSEN, SIZE] bf16
    experts_ptr,  # [rows, CHOSEN] int32
    shares_ptr,  # [rows, CHOSEN] float32
    w_ptr,  # [experts, OUT, SIZE]
    scales_ptr,  # [experts, ceil(OUT / 128), ceil(SIZE / 128)] float32
    residual_ptr,  # [rows, OUT] bf16
    out_ptr,  # [rows, OUT] bf16
    OUT: tl.constexpr,
    SIZE: tl.constexpr,
    CHOSEN: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    OVERLAPS: tl.constexpr,
    FORMAT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Compute ``residual`` plus the products with a row's experts, weighted by their shares.

    All loads are issued at once; the warps of a program share the experts.
    """
    start = tl.program_id(0) * BLOCK_N
    row = tl.program_id(1)
    if OVERLAPS:
        gdc_launch_dependents()
    # The previous kernel waited for the choice before it let this one start.
    if FORMAT != "":
        _packed_mixture(
            x_ptr,
            experts_ptr,
            shares_ptr,
            w_ptr,
            residual_ptr,
            out_ptr,
            start,
            row,
            OUT,
            SIZE,
            CHOSEN,
            OVERLAPS,
            FORMAT,
            BLOCK_N,
            BLOCK_K,
            BLOCK_C,
        )
    else:
        _plain_mixture(
            x_ptr,
            experts_ptr,
            shares_ptr,
            w_ptr,
            scales_ptr,
            residual_ptr,
            out_ptr,
            start,
            row,
            OUT,
            SIZE,
            CHOSEN,
            HAS_SCALES,
            OVERLAPS,
            BLOCK_N,
            BLOCK_K,
            BLOCK_C,
        )


def gate(
    inputs: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: torch.Tensor,
    experts_per_row: int,
    normalize: bool,
    in_limbs: bool = False,
) -> Route:
    """Normalise a few rows and choose the experts of each; not on several streams at once.

    Args:
        inputs: [rows, size].
        norm: [size].
        eps: of the norm.
        weight: [experts, size] bf16.
        experts_per_row: experts of each row.
        normalize: whether the shares of a row are scaled to sum to one.
        in_limbs: whether normed rows are stored in limbs, as packed weights take them.
    """
    rows, size = inputs.shape
    experts = len(weight)
    device = inputs.device
    shape = (rows, experts_per_row)
    logits = torch.empty(rows, experts, dtype=torch.float32, device=device)
    route = Route(
        empty_rows(rows, size, device, in_limbs),
        torch.empty(shape, dtype=torch.int32, device=device),
        torch.empty(shape, dtype=torch.float32, device=device),
    )
    chosen = options(LAUNCHES["gate"], size, device)
    programs = cdiv(experts, chosen["BLOCK_N"])
    gate_kernel[(programs, rows)](
        inputs.contiguous(),
        norm,
        weight,
        route.normed,
        logits,
        route.experts,
        route.shares,
        _counts(device),
        eps,
        SIZE=size,
        EXPERTS=experts,
        CHOSEN=experts_per_row,
        NORMALIZE=normalize,
        BLOCK_E=next_power_of_2(experts),
        PART=part_of(size, programs),
        **overlap(device),
        **chosen,
    )
    return route


@functools.cache
def _counts(device: torch.device) -> torch.Tensor:
    return torch.zeros(MAX_ROWS, dtype=torch.int32, device=device)


def gated_gemv(
    inputs: torch.Tensor,
    weight: Weight,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    route: Route | None = None,
) -> torch.Tensor:
    """Compute ``silu(gate) * up`` of a few rows for each of their experts.

    Args:
        inputs: [rows, size]; bf16 or in limbs for a packed weight, which has no norm.
        weight: [experts, 2 * width, size]; without a route [2 * width, size].
        norm: [size]; None: the rows are normalised already.
        eps: of the norm.
        route: the rows' experts.

    Returns:
        [rows, experts of a row or 1, width] bf16.
    """
    values, scales = parts(weight)
    rows, size = len(inputs), weight.shape[-1]
    width = weight.shape[-2] // 2
    experts_per_row = route.experts.shape[1] if route is not None else 1
    out = torch.empty(rows, experts_per_row, width, dtype=torch.bfloat16, device=inputs.device)
    kind = f"gated_{unit_kind(weight)}" if isinstance(weight, Packed) else "gated"
    chosen = options(LAUNCHES[kind], size, inputs.device)
    gated_gemv_kernel[(cdiv(width, chosen["BLOCK_N"]), experts_per_row, rows)](
        inputs.contiguous(),
        norm,
        None if route is None else route.experts,
        values,
        scales,
        out,
        eps,
        WIDTH=width,
        SIZE=size,
        CHOSEN=experts_per_row,
        HAS_EXPERTS=route is not None,
        HAS_NORM=norm is not None,
        HAS_SCALES=scales is not None,
        FORMAT=format_of(weight),
        **overlap(inputs.device),
        **chosen,
    )
    return out


def mixed_gemv(
    gated: torch.Tensor, route: Route, weight: Weight, residual: torch.Tensor
) -> torch.Tensor:
    """Compute ``residual`` plus the products with a row's experts, weighted by their shares.

    Call it right after ``gated_gemv``: it may start while that still runs.

    Args:
        gated: [rows, experts of a row, width].
        route: the rows' experts.
        weight: [experts, out, width].
        residual: [rows, out].

    Returns:
        [rows, out].
    """
    values, scales = parts(weight)
    rows, experts_per_row, width = gated.shape
    outputs = weight.shape[-2]
    out = torch.empty_like(residual, memory_format=torch.contiguous_format)
    kind = f"mixed_{unit_kind(weight)}" if isinstance(weight, Packed) else "mixed"
    chosen = options(LAUNCHES[kind], width, gated.device)
    mixed_gemv_kernel[(cdiv(outputs, chosen["BLOCK_N"]), rows)](
        gated,
        route.experts,
        route.shares,
        values,
        scales,
        residual.contiguous(),
        out,
        OUT=outputs,
        SIZE=width,
        CHOSEN=experts_per_row,
        HAS_SCALES=scales is not None,
        FORMAT=format_of(weight),
        BLOCK_C=next_power_of_2(experts_per_row),
        **overlap(gated.device),
        **chosen | {"BLOCK_K": max(next_power_of_2(width), FP8_BLOCK)},
    )
    return out


_WEIGHT = {"w_ptr": "*fp8e4nv", "scales_ptr": "*fp32"}
_CHOICE = {"experts_ptr": "*i32", "shares_ptr": "*fp32"}

BUILDS = (
    Build(
        "gemv_expert_gate",
        gate_kernel,
        _CHOICE
        | {
            "x_ptr": "*bf16",
            "norm_ptr": "*bf16",
            "w_ptr": "*bf16",
            "normed_ptr": "*bf16",
            "logits_ptr": "*fp32",
            "counts_ptr": "*i32",
            "eps": "fp32",
        },
        LAUNCHES["gate"],
        {
            "SIZE": 2048,
            "EXPERTS": 128,
            "CHOSEN": 8,
            "NORMALIZE": True,
            "OVERLAPS": True,
            "BLOCK_E": 128,
            "PART": 32,
        },
    ),
    Build(
        "gemv_gate_up",
        gated_gemv_kernel,
        _CHOICE
        | _WEIGHT
        | {"x_ptr": "*bf16", "norm_ptr": "*bf16", "out_ptr": "*bf16", "eps": "fp32"},
        LAUNCHES["gated"],
        {
            "WIDTH": 768,
            "SIZE": 2048,
            "CHOSEN": 8,
            "HAS_EXPERTS": True,
            "HAS_NORM": False,
            "HAS_SCALES": True,
            "FORMAT": "",
            "OVERLAPS": True,
        },
    ),
    Build(
        "gemv_down",
        mixed_gemv_kernel,
        _CHOICE | _WEIGHT | {"x_ptr": "*bf16", "residual_ptr": "*bf16", "out_ptr": "*bf16"},
        LAUNCHES["mixed"],
        {
            "OUT": 2048,
            "SIZE": 768,
            "CHOSEN": 8,
            "HAS_SCALES": True,
            "FORMAT": "",
            "OVERLAPS": True,
            "BLOCK_C": 8,
        },
    ),
    *(
        Build(
            f"gemv_gate_up_{name}",
            gated_gemv_kernel,
            _CHOICE
            | {"w_ptr": "*u8", "scales_ptr": "*fp32", "norm_ptr": "*bf16"}
            | {"x_ptr": "*i32", "out_ptr": "*bf16", "eps": "fp32"},
            LAUNCHES[kind],
            {
                "WIDTH": 768,
                "SIZE": 2048,
                "CHOSEN": 8,
                "HAS_EXPERTS": True,
                "HAS_NORM": False,
                "HAS_SCALES": False,
                "FORMAT": name,
                "OVERLAPS": True,
            },
        )
        for name, kind in (("Q4_K", "gated_packed64"), ("Q6_K", "gated_packed64"))
    ),
    *(
        Build(
            f"gemv_down_{name}",
            mixed_gemv_kernel,
            _CHOICE
            | {"w_ptr": "*u8", "scales_ptr": "*fp32"}
            | {"x_ptr": "*bf16", "residual_ptr": "*fp32", "out_ptr": "*fp32"},
            LAUNCHES[kind],
            {
                "OUT": 2048,
                "SIZE": 768,
                "CHOSEN": 8,
                "HAS_SCALES": False,
                "FORMAT": name,
                "OVERLAPS": True,
                "BLOCK_C": 8,
            },
        )
        for name, kind in (("Q4_K", "mixed_packed64"), ("Q6_K", "mixed_packed64"))
    ),
)
