"""``mlp`` and ``experts``: three kernels for a few rows, grouped matrix products for many."""

import torch
import triton
import triton.language as tl

from hga_kernels.gpu.build import Build, Launch, capability, pick
from hga_kernels.gpu.launch import Kernel, cdiv
from hga_kernels.gpu.linear.assign import assign
from hga_kernels.gpu.linear.expert_gemv import gate, gated_gemv, mixed_gemv
from hga_kernels.gpu.linear.gemm import gemm, options
from hga_kernels.gpu.linear.gemv import MAX_ROWS, takes
from hga_kernels.gpu.linear.linear import linear, normed_rows, prepare, unpacked
from hga_kernels.gpu.linear.norm import rms_norm
from hga_kernels.weights import BlockScaled, Packed, RowParts, Weight

SLICE_ROWS = 4096
"""More rows are processed in slices of so many."""
_PART_BYTES = 32 << 20
"""Size of the experts' outputs held at a time; their columns are processed in parts."""
_WIDTH_UNIT = 64
"""Gates that share a tile, and must therefore share a row of scales."""
_MAX_WIDTH = 8192
"""Wider experts do not fit a tile of the product with ``down``."""

LAUNCHES = {90: Launch({"BLOCK": 512}, 2), 120: Launch({"BLOCK": 512}, 2)}


@Kernel
@triton.jit
def mix_kernel(
    parts_ptr,  # [rows, CHOSEN, columns] bf16
    shares_ptr,  # [rows, CHOSEN] float32
    residual_ptr,  # [rows, SIZE] bf16 or float32
    out_ptr,  # [rows, SIZE], same
    first_column,
    columns,
    SIZE: tl.constexpr,
    CHOSEN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute ``residual`` plus the weighted sum of the experts' outputs, for some columns."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < columns
    target = row * SIZE + first_column + column
    total = tl.load(residual_ptr + target, mask=mask, other=0).to(tl.float32)
    for slot in tl.static_range(CHOSEN):
        assignment = row * CHOSEN + slot
        part = tl.load(parts_ptr + assignment * columns + column, mask=mask, other=0)
        total += part.to(tl.float32) * tl.load(shares_ptr + assignment)
    tl.store(out_ptr + target, total.to(out_ptr.dtype.element_ty), mask=mask)


def mlp(
    hidden: torch.Tensor, norm: torch.Tensor, eps: float, gate_up: Weight, down: Weight
) -> torch.Tensor | None:
    """See ``reference.mlp``: normed rows and rows after the gate are rounded to bf16."""
    if not (takes(hidden, gate_up) and takes(hidden, down) and _is_in_units(gate_up)):
        return None
    dtype = hidden.dtype
    if hidden.shape[0] <= MAX_ROWS and not isinstance(gate_up, RowParts):
        if isinstance(gate_up, Packed):
            gated = gated_gemv(normed_rows(hidden, norm, eps, in_limbs=True), gate_up)
        else:
            gated = gated_gemv(hidden, gate_up, norm, eps)
        return linear(gated[:, 0], down, dtype, hidden)
    inputs, scales = prepare(hidden, norm, eps, gate_up)
    gated = _empty(hidden, hidden.shape[0], gate_up.shape[-2] // 2)
    gemm(inputs, scales, unpacked(gate_up), gated, is_gated=True)
    return linear(gated, down, dtype, hidden)


def experts(
    hidden: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    expert_gate: torch.Tensor,
    gate_up: Weight,
    down: Weight,
    experts_per_token: int,
    normalize: bool,
) -> torch.Tensor | None:
    """See ``reference.experts``: normed and gated rows are rounded to bf16.

    The host never waits for the GPU.
    """
    is_gate_taken = expert_gate.dtype in (torch.bfloat16, torch.float32)
    if not (is_gate_taken and takes(hidden, gate_up) and takes(hidden, down)):
        return None
    if not _is_in_units(gate_up) or down.shape[-1] > _MAX_WIDTH:
        return None
    has_parts = isinstance(gate_up, RowParts) or isinstance(down, RowParts)
    if hidden.shape[0] > MAX_ROWS or has_parts:
        expert_gate = expert_gate.to(torch.bfloat16)
        gate_up, down = unpacked(gate_up), unpacked(down)
        out = torch.empty_like(hidden, memory_format=torch.contiguous_format)
        for first in range(0, hidden.shape[0], SLICE_ROWS):
            rows = slice(first, first + SLICE_ROWS)
            _many(
                hidden[rows],
                norm,
                eps,
                expert_gate,
                gate_up,
                down,
                experts_per_token,
                normalize,
                out[rows],
            )
        return out
    in_limbs = isinstance(gate_up, Packed)
    route = gate(hidden, norm, eps, expert_gate, experts_per_token, normalize, in_limbs)
    gated = gated_gemv(route.normed, gate_up, route=route)
    return mixed_gemv(gated, route, down, hidden)


def _many(
    hidden: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    expert_gate: torch.Tensor,
    gate_up: Weight,
    down: Weight,
    experts_per_token: int,
    normalize: bool,
    out: torch.Tensor,
) -> None:
    rows, size = hidden.shape
    hidden = hidden.contiguous()
    normed = rms_norm(hidden, norm, eps)
    logits = torch.empty(rows, len(expert_gate), dtype=torch.float32, device=hidden.device)
    gemm(normed, None, expert_gate, logits)
    inputs, scales = prepare(normed, None, 0.0, gate_up)
    each = rows * experts_per_token // len(expert_gate)
    block = options(gate_up, each, hidden.device, scales is not None)["BLOCK_R"]
    assigned, shares = assign(logits, experts_per_token, normalize, block)
    gated = _empty(hidden, rows * experts_per_token, gate_up.shape[-2] // 2)
    gemm(
        inputs,
        scales,
        gate_up,
        gated,
        assigned=assigned,
        shared=experts_per_token,
        is_gated=True,
    )
    inputs, scales = prepare(gated, None, 0.0, down)
    # As many whole blocks of columns as fit.
    part = max(_PART_BYTES // (2 * len(gated)) // 128, 1) * 128
    launch = pick(LAUNCHES, capability(hidden.device))
    for first in range(0, size, part):
        columns = min(part, size - first)
        outputs = _empty(hidden, len(gated), columns)
        gemm(
            inputs,
            scales,
            down,
            outputs,
            assigned=assigned,
            is_scattered=True,
            first_column=first,
        )
        mix_kernel[(rows, cdiv(columns, launch.sizes["BLOCK"]))](
            outputs,
            shares,
            hidden,
            out,
            first,
            columns,
            SIZE=size,
            CHOSEN=experts_per_token,
            **launch.options(),
        )


def _is_in_units(gate_up: Weight) -> bool:
    return not isinstance(gate_up, BlockScaled) or gate_up.shape[-2] // 2 % _WIDTH_UNIT == 0


def _empty(like: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return torch.empty(rows, columns, dtype=torch.bfloat16, device=like.device)


BUILDS = (
    Build(
        "mix",
        mix_kernel,
        {
            "parts_ptr": "*bf16",
            "shares_ptr": "*fp32",
            "residual_ptr": "*bf16",
            "out_ptr": "*bf16",
            "first_column": "i32",
            "columns": "i32",
        },
        LAUNCHES,
        {"SIZE": 2048, "CHOSEN": 8},
    ),
)
