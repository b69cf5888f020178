"""Products of one to four rows: what decoding does, at the speed of reading the weight.

A program reads whole rows of the weight, 16 bytes a thread, all asked for before the first is
used. The scale of a block is multiplied into the input, once for all rows of the program: they
share a row of blocks.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from hga_kernels.gpu.build import Build, Launch, capability, pick
from hga_kernels.weights import FP8_BLOCK, BlockScaled, Weight

MOST_ROWS = 4
NARROW = 1024
"""Outputs up to which a bf16 weight is read a row a program."""


def _launch(outputs: int, warps: int = 4, inner: int = 2048) -> Launch:
    return Launch({"BLOCK_N": outputs, "BLOCK_K": inner}, warps)


LAUNCHES = {
    "fp8": {90: _launch(8), 120: _launch(8)},
    "bf16": {90: _launch(8), 120: _launch(8)},
    # Few outputs: a row of the weight a program, so that more programs share the work.
    "narrow": {90: _launch(1), 120: _launch(1)},
    "gated": {90: _launch(4), 120: _launch(4)},
    "mixed": {90: _launch(2, inner=1024), 120: _launch(2, inner=1024)},
}
"""By kind of product, then by compute capability."""

CANDIDATES = {
    "fp8": (*(_launch(n) for n in (2, 4, 8, 16)), *(_launch(n, 8) for n in (4, 8, 16))),
    "bf16": (*(_launch(n) for n in (2, 4, 8)), *(_launch(n, 8) for n in (4, 8, 16))),
    "narrow": tuple(_launch(1, warps) for warps in (2, 4, 8)),
    "gated": (*(_launch(n) for n in (2, 4, 8)), *(_launch(n, 8) for n in (4, 8, 16))),
    "mixed": (
        *(_launch(n, 2, 1024) for n in (1, 2)),
        *(_launch(n, 4, 1024) for n in (1, 2, 4)),
        *(_launch(n, 8, 1024) for n in (4, 8)),
    ),
}


@triton.jit
def normed_row(
    x_ptr, norm_ptr, eps, first, SIZE: tl.constexpr, HAS_NORM: tl.constexpr, BLOCK: tl.constexpr
):
    """[BLOCK] float32 of a row from ``first``, normalised and rounded as ``rms_norm`` does."""
    places = first + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + places, mask=places < SIZE, other=0).to(tl.float32)
    if HAS_NORM:
        if BLOCK >= SIZE:
            squares = tl.sum(x * x, 0)
        else:
            squares = 0.0
            for part in tl.static_range(0, SIZE, BLOCK):
                others = part + tl.arange(0, BLOCK)
                y = tl.load(x_ptr + others, mask=others < SIZE, other=0).to(tl.float32)
                squares += tl.sum(y * y, 0)
        normed = (x * tl.rsqrt(squares / SIZE + eps)).to(tl.bfloat16).to(tl.float32)
        weight = tl.load(norm_ptr + places, mask=places < SIZE, other=0).to(tl.float32)
        x = (normed * weight).to(tl.bfloat16).to(tl.float32)
    return x


@triton.jit
def spread_scales(scales_ptr, first, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """[BLOCK] scales of the columns from ``first``, of a row of ``COUNT`` scales."""
    blocks = first // 128 + tl.arange(0, BLOCK // 128)
    scales = tl.load(scales_ptr + blocks, mask=blocks < COUNT, other=0)
    return tl.reshape(tl.broadcast_to(scales[:, None], [BLOCK // 128, 128]), [BLOCK])


@triton.jit
def weight_tile(w_ptr, n, first, OUT: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """[rows of ``n``, BLOCK] of a weight [OUT, SIZE]; zero beyond SIZE, anything beyond OUT."""
    k = first + tl.arange(0, BLOCK)
    places = tl.minimum(n, OUT - 1).to(tl.int64)[:, None] * SIZE + k[None, :]
    if SIZE % BLOCK == 0:
        return tl.load(w_ptr + places)
    return tl.load(w_ptr + places, mask=(k < SIZE)[None, :], other=0.0)


@triton.jit
def gemv_kernel(
    x_ptr,  # [ROWS, SIZE] bf16
    norm_ptr,  # [SIZE] bf16
    w_ptr,  # [OUT, SIZE]
    scales_ptr,  # [ceil(OUT / 128), ceil(SIZE / 128)] float32
    residual_ptr,  # [ROWS, OUT]
    out_ptr,  # [ROWS, OUT]
    eps,
    OUT: tl.constexpr,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``out = norm(x) @ w.T + residual``; a program computes BLOCK_N columns of all rows."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    SCALES: tl.constexpr = (SIZE + 127) // 128
    # Column r is of row r; the rest is padding, as sizes are powers of two.
    PADDED: tl.constexpr = 4 if ROWS > 2 else ROWS
    rows = tl.arange(0, PADDED)
    sums = tl.zeros([BLOCK_N, PADDED], tl.float32)
    for first in tl.static_range(0, SIZE, BLOCK_K):
        weight = weight_tile(w_ptr, n, first, OUT, SIZE, BLOCK_K).to(tl.float32)
        for row in tl.static_range(ROWS):
            x = normed_row(x_ptr + row * SIZE, norm_ptr, eps, first, SIZE, HAS_NORM, BLOCK_K)
            if HAS_SCALES:
                block_row = tl.program_id(0) * BLOCK_N // 128
                x *= spread_scales(scales_ptr + block_row * SCALES, first, SCALES, BLOCK_K)
            part = tl.sum(weight * x[None, :], 1)
            sums += tl.where(rows[None, :] == row, part[:, None], 0.0)
    places = rows[None, :] * OUT + n[:, None]
    mask = (n < OUT)[:, None] & (rows < ROWS)[None, :]
    if HAS_RESIDUAL:
        sums += tl.load(residual_ptr + places, mask=mask, other=0).to(tl.float32)
    tl.store(out_ptr + places, sums.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _choosable(logits_ptr, expert, EXPERTS: tl.constexpr):
    logits = tl.load(logits_ptr + expert, mask=expert < EXPERTS, other=float("-inf"))
    # What is not a number must not choose an expert that there is not.
    return tl.where(logits == logits, logits, float("-inf"))


@triton.jit
def ranks(logits_ptr, EXPERTS: tl.constexpr, BLOCK: tl.constexpr):
    """Numbers, logits and ranks [BLOCK] of the experts: 0 for the largest, the first of equals."""
    TILE: tl.constexpr = 16 if BLOCK > 16 else BLOCK
    expert = tl.arange(0, BLOCK)
    logits = _choosable(logits_ptr, expert, EXPERTS)
    before = tl.zeros([BLOCK, TILE], tl.int32)
    # All against all at once would take too many registers.
    for first in tl.static_range(0, BLOCK, TILE):
        other = first + tl.arange(0, TILE)
        others = _choosable(logits_ptr, other, EXPERTS)[None, :]
        is_equal_first = (others == logits[:, None]) & (other[None, :] < expert[:, None])
        before += ((others > logits[:, None]) | is_equal_first).to(tl.int32)
    return expert, logits, tl.sum(before, 1)


@triton.jit
def gated_gemv_kernel(
    x_ptr,  # [rows, SIZE] bf16
    norm_ptr,  # [SIZE] bf16
    logits_ptr,  # [rows, EXPERTS] float32
    w_ptr,  # [experts, 2 * WIDTH, SIZE]
    scales_ptr,  # [experts, ceil(2 * WIDTH / 128), ceil(SIZE / 128)] float32
    out_ptr,  # [rows, CHOSEN, WIDTH] bf16
    experts_ptr,  # [rows, CHOSEN] int32
    shares_ptr,  # [rows, CHOSEN] float32
    eps,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    EXPERTS: tl.constexpr,
    CHOSEN: tl.constexpr,
    NORMALIZE: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """``silu(gate) * up`` of the norm of a row, for each of its experts.

    Every program ranks the experts itself. EXPERTS 0: one weight for all rows.
    """
    slot, row = tl.program_id(1), tl.program_id(2)
    SCALES: tl.constexpr = (SIZE + 127) // 128
    if EXPERTS > 0:
        expert, logits, rank = ranks(logits_ptr + row * EXPERTS, EXPERTS, BLOCK_E)
        own = tl.sum(tl.where(rank == slot, expert, 0), 0)
        w_ptr += own.to(tl.int64) * (2 * WIDTH * SIZE)
        if HAS_SCALES:
            scales_ptr += own * ((2 * WIDTH + 127) // 128 * SCALES)
        if tl.program_id(0) == 0:
            weights = tl.exp(logits - tl.max(logits, 0))
            counted = rank < CHOSEN if NORMALIZE else expert < EXPERTS
            share = tl.sum(tl.where(rank == slot, weights, 0.0), 0)
            share /= tl.sum(tl.where(counted, weights, 0.0), 0)
            tl.store(experts_ptr + row * CHOSEN + slot, own)
            tl.store(shares_ptr + row * CHOSEN + slot, share)
    start = tl.program_id(0) * BLOCK_N
    n = start + tl.arange(0, BLOCK_N)
    gates = tl.zeros([BLOCK_N], tl.float32)
    ups = tl.zeros([BLOCK_N], tl.float32)
    for first in tl.static_range(0, SIZE, BLOCK_K):
        gate = weight_tile(w_ptr, n, first, WIDTH, SIZE, BLOCK_K).to(tl.float32)
        up_ptr = w_ptr + WIDTH * SIZE
        up = weight_tile(up_ptr, n, first, WIDTH, SIZE, BLOCK_K).to(tl.float32)
        x = normed_row(x_ptr + row * SIZE, norm_ptr, eps, first, SIZE, True, BLOCK_K)
        if HAS_SCALES:
            of_gate = scales_ptr + start // 128 * SCALES
            of_up = scales_ptr + (WIDTH + start) // 128 * SCALES
            x_gate = x * spread_scales(of_gate, first, SCALES, BLOCK_K)
            x_up = x * spread_scales(of_up, first, SCALES, BLOCK_K)
        else:
            x_gate = x
            x_up = x
        gates += tl.sum(gate * x_gate[None, :], 1)
        ups += tl.sum(up * x_up[None, :], 1)
    out = gates / (1 + tl.exp(-gates)) * ups
    places = (row * CHOSEN + slot) * WIDTH + n
    tl.store(out_ptr + places, out.to(tl.bfloat16), mask=n < WIDTH)


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
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``residual`` plus the products with a row's experts, weighted by their shares."""
    start = tl.program_id(0) * BLOCK_N
    row = tl.program_id(1)
    n = start + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    SCALES: tl.constexpr = (SIZE + 127) // 128
    sums = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    for slot in tl.static_range(CHOSEN):
        expert = tl.load(experts_ptr + row * CHOSEN + slot).to(tl.int64)
        weight = weight_tile(w_ptr + expert * (OUT * SIZE), n, 0, OUT, SIZE, BLOCK_K)
        share = tl.load(shares_ptr + row * CHOSEN + slot)
        x = tl.load(x_ptr + (row * CHOSEN + slot) * SIZE + k, mask=k < SIZE, other=0)
        x = x.to(tl.float32) * share
        if HAS_SCALES:
            block_row = expert * ((OUT + 127) // 128) + start // 128
            x *= spread_scales(scales_ptr + block_row * SCALES, 0, SCALES, BLOCK_K)
        sums += weight.to(tl.float32) * x[None, :]
    mask = n < OUT
    out = tl.sum(sums, 1) + tl.load(residual_ptr + row * OUT + n, mask=mask, other=0).to(tl.float32)
    tl.store(out_ptr + row * OUT + n, out.to(tl.bfloat16), mask=mask)


def takes(inputs: torch.Tensor, weight: Weight) -> bool:
    """Whether the GPU's kernels multiply these: bf16 rows, and bf16 or e4m3 weights."""
    values = weight.values if isinstance(weight, BlockScaled) else weight
    stored = torch.float8_e4m3fn if isinstance(weight, BlockScaled) else torch.bfloat16
    return inputs.dtype == torch.bfloat16 and values.dtype == stored and values.is_contiguous()


def parts(weight: Weight) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Values and scales of a weight."""
    if isinstance(weight, BlockScaled):
        return weight.values, weight.scales
    return weight, None


def options(kind: str, size: int, device: torch.device) -> dict[str, Any]:
    """Keyword arguments of a launch for rows of ``size``."""
    chosen = pick(LAUNCHES[kind], capability(device)).options()
    # Whole blocks of scales.
    return chosen | {
        "BLOCK_K": min(chosen["BLOCK_K"], max(triton.next_power_of_2(size), FP8_BLOCK))
    }


def gemv(
    inputs: torch.Tensor,
    norm: torch.Tensor | None,
    eps: float,
    weight: Weight,
    out_dtype: torch.dtype,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    """``norm_linear`` or ``linear`` of at most MOST_ROWS rows."""
    values, scales = parts(weight)
    rows, size = inputs.shape
    outputs = values.shape[0]
    out = torch.empty(rows, outputs, dtype=out_dtype, device=inputs.device)
    kind = "fp8" if scales is not None else "bf16" if outputs > NARROW else "narrow"
    chosen = options(kind, size, inputs.device)
    gemv_kernel[(triton.cdiv(outputs, chosen["BLOCK_N"]),)](
        *(inputs.contiguous(), norm, values, scales, residual, out, eps),
        OUT=outputs,
        SIZE=size,
        ROWS=rows,
        HAS_NORM=norm is not None,
        HAS_SCALES=scales is not None,
        HAS_RESIDUAL=residual is not None,
        **chosen,
    )
    return out


def gated_gemv(
    inputs: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    logits: torch.Tensor | None,
    weight: Weight,
    chosen_experts: int,
    normalize: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``silu(gate) * up`` of the norm of a few rows, for each of a row's experts.

    Args:
        inputs: [rows, size].
        norm: [size].
        eps: of the norm.
        logits: [rows, experts] float32 of the gate; None: there is one weight, not one an expert.
        weight: [experts, 2 * width, size], or [2 * width, size].
        chosen_experts: experts a row goes through; 1 without a gate.
        normalize: whether a row's shares are scaled to sum to one.

    Returns:
        gated: [rows, chosen experts, width] bf16.
        experts: [rows, chosen experts] int32; not written without a gate.
        shares: [rows, chosen experts] float32; not written without a gate.
    """
    values, scales = parts(weight)
    rows, size = inputs.shape
    width = values.shape[-2] // 2
    experts = logits.shape[1] if logits is not None else 0
    shape = (rows, chosen_experts)
    out = torch.empty(*shape, width, dtype=inputs.dtype, device=inputs.device)
    ids = torch.empty(shape, dtype=torch.int32, device=inputs.device)
    shares = torch.empty(shape, dtype=torch.float32, device=inputs.device)
    chosen = options("gated", size, inputs.device)
    gated_gemv_kernel[(triton.cdiv(width, chosen["BLOCK_N"]), chosen_experts, rows)](
        *(inputs.contiguous(), norm, logits, values, scales, out, ids, shares, eps),
        WIDTH=width,
        SIZE=size,
        EXPERTS=experts,
        CHOSEN=chosen_experts,
        NORMALIZE=normalize,
        HAS_SCALES=scales is not None,
        BLOCK_E=triton.next_power_of_2(max(experts, 1)),
        **chosen,
    )
    return out, ids, shares


def mixed_gemv(
    gated: torch.Tensor,
    experts: torch.Tensor,
    shares: torch.Tensor,
    weight: Weight,
    residual: torch.Tensor,
) -> torch.Tensor:
    """``residual`` plus the products with a row's experts, weighted by their shares.

    Args:
        gated: [rows, chosen experts, width].
        experts: [rows, chosen experts] int32.
        shares: [rows, chosen experts] float32.
        weight: [experts, out, width].
        residual: [rows, out].

    Returns:
        [rows, out].
    """
    values, scales = parts(weight)
    rows, chosen_experts, width = gated.shape
    outputs = values.shape[1]
    out = torch.empty_like(residual, memory_format=torch.contiguous_format)
    chosen = options("mixed", width, gated.device)
    mixed_gemv_kernel[(triton.cdiv(outputs, chosen["BLOCK_N"]), rows)](
        *(gated, experts, shares, values, scales, residual.contiguous(), out),
        OUT=outputs,
        SIZE=width,
        CHOSEN=chosen_experts,
        HAS_SCALES=scales is not None,
        **chosen | {"BLOCK_K": max(triton.next_power_of_2(width), FP8_BLOCK)},
    )
    return out


_BF16_ROW = {"x_ptr": "*bf16", "norm_ptr": "*bf16", "eps": "fp32"}
_FP8 = {"w_ptr": "*fp8e4nv", "scales_ptr": "*fp32"}
_BF16 = {"w_ptr": "*bf16", "scales_ptr": "*fp32"}
_OUT = {"residual_ptr": "*bf16", "out_ptr": "*bf16"}
_CHOICE = {"experts_ptr": "*i32", "shares_ptr": "*fp32"}
_FLAGS = {"HAS_NORM": False, "HAS_SCALES": True, "HAS_RESIDUAL": False, "ROWS": 1}

BUILDS = (
    Build(
        "gemv_qkv",
        gemv_kernel,
        _BF16_ROW | _FP8 | _OUT,
        LAUNCHES["fp8"],
        _FLAGS | {"OUT": 5120, "SIZE": 2048, "HAS_NORM": True},
    ),
    Build(
        "gemv_output",
        gemv_kernel,
        _BF16_ROW | _FP8 | _OUT,
        LAUNCHES["fp8"],
        _FLAGS | {"OUT": 2048, "SIZE": 4096, "HAS_RESIDUAL": True},
    ),
    Build(
        "gemv_qkv_4_rows",
        gemv_kernel,
        _BF16_ROW | _FP8 | _OUT,
        LAUNCHES["fp8"],
        _FLAGS | {"OUT": 5120, "SIZE": 2048, "HAS_NORM": True, "ROWS": 4},
    ),
    Build(
        "gemv_lm_head",
        gemv_kernel,
        _BF16_ROW | _BF16 | _OUT | {"out_ptr": "*fp32"},
        LAUNCHES["bf16"],
        _FLAGS | {"OUT": 151_936, "SIZE": 2048, "HAS_NORM": True, "HAS_SCALES": False},
    ),
    Build(
        "gemv_expert_gate",
        gemv_kernel,
        _BF16_ROW | _BF16 | _OUT | {"out_ptr": "*fp32"},
        LAUNCHES["narrow"],
        _FLAGS | {"OUT": 128, "SIZE": 2048, "HAS_NORM": True, "HAS_SCALES": False},
    ),
    Build(
        "gemv_gate_up",
        gated_gemv_kernel,
        _BF16_ROW | _FP8 | _CHOICE | {"logits_ptr": "*fp32", "out_ptr": "*bf16"},
        LAUNCHES["gated"],
        {
            "WIDTH": 768,
            "SIZE": 2048,
            "EXPERTS": 128,
            "CHOSEN": 8,
            "NORMALIZE": True,
            "HAS_SCALES": True,
            "BLOCK_E": 128,
        },
    ),
    Build(
        "gemv_down",
        mixed_gemv_kernel,
        {"x_ptr": "*bf16"} | _FP8 | _OUT | _CHOICE,
        LAUNCHES["mixed"],
        {"OUT": 2048, "SIZE": 768, "CHOSEN": 8, "HAS_SCALES": True},
    ),
)
