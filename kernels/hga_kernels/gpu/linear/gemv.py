"""Products of one to four rows, as in decoding: as fast as the weight can be read.

A program reads whole rows of the weight, 16 bytes per thread. All loads are issued before the first
is used and, where kernels overlap, before the previous kernel has ended. The scale of a block is
multiplied into the input, once for all weight rows of the program, which share a row of blocks.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.gpu.build import Build, Launch, Launches, capability, overlap, pick
from hga_kernels.weights import FP8_BLOCK, BlockScaled, Weight

MAX_ROWS = 4
"""Input rows that these kernels take."""
NARROW = 1024
"""Up to so many outputs, each program reads a single row of a bf16 weight."""


def _launch(outputs: int, warps: int = 4, inner: int = 2048) -> Launch:
    return Launch({"BLOCK_N": outputs, "BLOCK_K": inner}, warps)


LAUNCHES = {
    "fp8": {90: _launch(4, 2), 120: _launch(4, 2)},
    "fp8_deep": {90: _launch(2, 1, 4096), 120: _launch(2, 1, 4096)},
    "bf16": {90: _launch(8), 120: _launch(8)},
    # Few outputs: one row of the weight per program, so that more programs share the work.
    "narrow": {90: _launch(1), 120: _launch(1)},
}
"""By kind of product, then by compute capability; "deep" rows have more than 2,048 columns."""

CANDIDATES = {
    "fp8": (
        *(_launch(n, 1) for n in (1, 2)),
        *(_launch(n, 2) for n in (2, 4)),
        *(_launch(n, 4) for n in (4, 8, 16)),
        *(_launch(n, 8) for n in (8, 16)),
    ),
    "fp8_deep": (
        *(_launch(n, 1, 4096) for n in (1, 2)),
        *(_launch(n, 2, 4096) for n in (1, 2)),
        *(_launch(n, 4, 4096) for n in (2, 4)),
        *(_launch(n, 8, 4096) for n in (4, 8)),
        _launch(4, 4, 2048),
        _launch(8, 4, 2048),
    ),
    "bf16": (*(_launch(n) for n in (4, 8)), *(_launch(n, 8) for n in (8, 16))),
}
_DEEP = 2048


@triton.jit
def normed_row(
    x_ptr, norm_ptr, eps, first, SIZE: tl.constexpr, HAS_NORM: tl.constexpr, BLOCK: tl.constexpr
):
    """Return [BLOCK] float32 of a row from ``first``, normalised and rounded like ``rms_norm``."""
    columns = first + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + columns, mask=columns < SIZE, other=0).to(tl.float32)
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
        weight = tl.load(norm_ptr + columns, mask=columns < SIZE, other=0).to(tl.float32)
        x = (normed * weight).to(tl.bfloat16).to(tl.float32)
    return x


@triton.jit
def spread_scales(scales_ptr, first, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Return the scales [BLOCK] of the columns from ``first``, from a row of COUNT scales."""
    blocks = first // 128 + tl.arange(0, BLOCK // 128)
    scales = tl.load(scales_ptr + blocks, mask=blocks < COUNT, other=0)
    return tl.reshape(tl.broadcast_to(scales[:, None], [BLOCK // 128, 128]), [BLOCK])


@triton.jit
def weight_tile(w_ptr, n, first, OUT: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Load rows ``n`` of a weight [OUT, SIZE], BLOCK columns; zero beyond SIZE."""
    k = first + tl.arange(0, BLOCK)
    offsets = tl.minimum(n, OUT - 1).to(tl.int64)[:, None] * SIZE + k[None, :]
    if SIZE % BLOCK == 0:
        return tl.load(w_ptr + offsets)
    return tl.load(w_ptr + offsets, mask=(k < SIZE)[None, :], other=0.0)


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
    OVERLAPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute ``norm(x) @ w.T + residual``, BLOCK_N columns of all rows per program."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    SCALES: tl.constexpr = (SIZE + 127) // 128
    # One column per row, padded to a power of two.
    PADDED: tl.constexpr = 4 if ROWS > 2 else ROWS
    rows = tl.arange(0, PADDED)
    targets = rows[None, :] * OUT + n[:, None]
    mask = (n < OUT)[:, None] & (rows < ROWS)[None, :]
    sums = tl.zeros([BLOCK_N, PADDED], tl.float32)
    if OVERLAPS:
        gdc_launch_dependents()
    for first in tl.static_range(0, SIZE, BLOCK_K):
        stored = weight_tile(w_ptr, n, first, OUT, SIZE, BLOCK_K)
        if OVERLAPS and first == 0:
            gdc_wait()
        if HAS_RESIDUAL and first == 0:
            sums += tl.load(residual_ptr + targets, mask=mask, other=0).to(tl.float32)
        weight = stored.to(tl.float32)
        for row in tl.static_range(ROWS):
            x = normed_row(x_ptr + row * SIZE, norm_ptr, eps, first, SIZE, HAS_NORM, BLOCK_K)
            if HAS_SCALES:
                block_row = tl.program_id(0) * BLOCK_N // 128
                x *= spread_scales(scales_ptr + block_row * SCALES, first, SCALES, BLOCK_K)
            part = tl.sum(weight * x[None, :], 1)
            sums += tl.where(rows[None, :] == row, part[:, None], 0.0)
    tl.store(out_ptr + targets, sums.to(out_ptr.dtype.element_ty), mask=mask)


def takes(inputs: torch.Tensor, weight: Weight) -> bool:
    """Tell whether the kernels multiply these: bf16 rows with bf16 or e4m3 weights."""
    if not isinstance(weight, torch.Tensor | BlockScaled):
        return False
    values = weight.values if isinstance(weight, BlockScaled) else weight
    stored = torch.float8_e4m3fn if isinstance(weight, BlockScaled) else torch.bfloat16
    return inputs.dtype == torch.bfloat16 and values.dtype == stored and values.is_contiguous()


def parts(weight: Weight) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the values and scales of a weight that ``takes`` allows."""
    if isinstance(weight, BlockScaled):
        return weight.values, weight.scales
    assert isinstance(weight, torch.Tensor)
    return weight, None


def options(launches: Launches, size: int, device: torch.device) -> dict[str, Any]:
    """Return the keyword arguments of a launch for rows of ``size`` columns."""
    chosen = pick(launches, capability(device)).options()
    # A block of columns holds whole blocks of scales.
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
    """Run ``norm_linear`` or ``linear`` for at most MAX_ROWS rows."""
    values, scales = parts(weight)
    rows, size = inputs.shape
    outputs = values.shape[0]
    out = torch.empty(rows, outputs, dtype=out_dtype, device=inputs.device)
    if scales is not None:
        kind = "fp8_deep" if size > _DEEP else "fp8"
    else:
        kind = "bf16" if outputs > NARROW else "narrow"
    chosen = options(LAUNCHES[kind], size, inputs.device)
    gemv_kernel[(triton.cdiv(outputs, chosen["BLOCK_N"]),)](
        inputs.contiguous(),
        norm,
        values,
        scales,
        residual,
        out,
        eps,
        OUT=outputs,
        SIZE=size,
        ROWS=rows,
        HAS_NORM=norm is not None,
        HAS_SCALES=scales is not None,
        HAS_RESIDUAL=residual is not None,
        **overlap(inputs.device),
        **chosen,
    )
    return out


_BF16_ROW = {"x_ptr": "*bf16", "norm_ptr": "*bf16", "eps": "fp32"}
_FP8 = {"w_ptr": "*fp8e4nv", "scales_ptr": "*fp32"}
_BF16 = {"w_ptr": "*bf16", "scales_ptr": "*fp32"}
_OUT = {"residual_ptr": "*bf16", "out_ptr": "*bf16"}
_FLAGS = {"HAS_NORM": False, "HAS_SCALES": True, "HAS_RESIDUAL": False, "ROWS": 1, "OVERLAPS": True}

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
        LAUNCHES["fp8_deep"],
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
)
