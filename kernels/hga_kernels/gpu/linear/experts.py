"""``mlp`` and ``experts``: three kernels for a few rows, grouped matrix products for many."""

import torch
import triton
import triton.language as tl

from hga_kernels.gpu.build import Build, Launch, capability, pick
from hga_kernels.gpu.linear.assign import assign
from hga_kernels.gpu.linear.expert_gemv import gate, gated_gemv, mixed_gemv
from hga_kernels.gpu.linear.gemm import gemm, options
from hga_kernels.gpu.linear.gemv import MAX_ROWS, takes
from hga_kernels.gpu.linear.linear import linear, prepare
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


@triton.jit
def mix_kernel(
    parts_ptr,  # [rows, CHOSEN, columns] bf16
    shares_ptr,  # [rows, CHOSEN] float32
    residual_ptr,  # [rows, SIZE] bf16
    out_ptr,  # [rows, SIZE] bf16
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
    tl.store(out_ptr + target, total.to(tl.bfloat16), mask=mask)


def mlp(
    hidden: torch.Tensor, norm: torch.Tensor, eps: float, gate_up: Weight, down: Weight
) -> torch.Tensor | None:
    """See ``reference.mlp``: bf16 rows; the gate is applied before the product is rounded."""
    if isinstance(gate_up, Packed | RowParts) or isinstance(down, Packed | RowParts):
        return None
    if not (takes(hidden, gate_up) and takes(hidden, down) and _is_in_units(gate_up)):
        return None
    if hidden.shape[0] <= MAX_ROWS:
        return linear(gated_gemv(hidden, gate_up, norm, eps)[:, 0], down, residual=hidden)
    inputs, scales = prepare(hidden, norm, eps, gate_up)
    gated = _empty(hidden, hidden.shape[0], gate_up.shape[-2] // 2)
    gemm(inputs, scales, gate_up, gated, is_gated=True)
    return linear(gated, down, residual=hidden)


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
    """See ``reference.experts``: bf16 rows; the host never waits for the GPU."""
    if isinstance(gate_up, Packed | RowParts) or isinstance(down, Packed | RowParts):
        return None
    if not all(takes(hidden, weight) for weight in (expert_gate, gate_up, down)):
        return None
    if not _is_in_units(gate_up) or down.shape[-1] > _MAX_WIDTH:
        return None
    if hidden.shape[0] > MAX_ROWS:
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
    route = gate(hidden, norm, eps, expert_gate, experts_per_token, normalize)
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
        mix_kernel[(rows, triton.cdiv(columns, launch.sizes["BLOCK"]))](
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
    return torch.empty(rows, columns, dtype=like.dtype, device=like.device)


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
