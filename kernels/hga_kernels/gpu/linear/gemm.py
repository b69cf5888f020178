"""Products of many rows with bf16 or FP8 weights: with one weight, or one weight per expert.

The product is computed transposed, ``w @ x.T``: e4m3 weights are widened in registers, from which
tensor cores can take their first operand. The scale of a block is multiplied into the product of
that block, so that the weights stay exact.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from hga_kernels.gpu.build import Build, Launch, capability, pick
from hga_kernels.gpu.launch import Kernel, cdiv, next_power_of_2
from hga_kernels.gpu.linear.assign import Assignments
from hga_kernels.gpu.linear.gemv import parts
from hga_kernels.weights import BlockScaled, Weight


def _launch(
    outputs: int, rows: int, inner: int, warps: int, stages: int, unit_scales: bool = False
) -> Launch:
    sizes = {"BLOCK_O": outputs, "BLOCK_R": rows, "BLOCK_K": inner, "UNIT_SCALES": unit_scales}
    return Launch(sizes, warps, stages)


LAUNCHES = {
    "fp8": {90: _launch(64, 256, 64, 4, 3), 120: _launch(128, 64, 128, 4, 2)},
    "fp8_few": {90: _launch(64, 32, 128, 4, 4), 120: _launch(64, 32, 128, 4, 3)},
    "grouped": {90: _launch(128, 64, 128, 4, 3), 120: _launch(128, 64, 128, 4, 2)},
    "grouped_few": {90: _launch(64, 32, 128, 4, 4), 120: _launch(64, 32, 128, 4, 3)},
    "bf16": {
        80: _launch(128, 128, 64, 8, 3),
        90: _launch(128, 256, 64, 8, 3),
        120: _launch(128, 64, 64, 4, 2),
    },
    "bf16_few": {90: _launch(64, 32, 64, 4, 4), 120: _launch(64, 32, 64, 4, 3)},
    "grouped_bf16": {
        80: _launch(128, 128, 64, 8, 3),
        90: _launch(256, 128, 64, 8, 4),
        120: _launch(128, 64, 64, 4, 2),
    },
    "grouped_bf16_few": {90: _launch(64, 32, 64, 4, 4), 120: _launch(64, 32, 64, 4, 3)},
    # A gate has few outputs, so tiles have few rows: otherwise there would be few programs.
    "narrow": {90: _launch(64, 64, 128, 4, 4), 120: _launch(64, 64, 64, 4, 3)},
    "narrow_few": {90: _launch(32, 16, 256, 2, 3), 120: _launch(32, 16, 256, 2, 3)},
    "quantized": {90: _launch(64, 128, 128, 4, 4), 120: _launch(128, 64, 128, 4, 2, True)},
    "quantized_few": {90: _launch(64, 32, 128, 4, 4), 120: _launch(64, 32, 128, 4, 3, True)},
}
"""By kind of operands and number of rows, then by compute capability."""

_WIDE = (
    _launch(64, 128, 128, 4, 3),
    _launch(64, 128, 64, 4, 3),
    _launch(64, 128, 64, 4, 4),
    _launch(64, 256, 64, 4, 3),
    _launch(128, 128, 128, 8, 3),
    _launch(128, 256, 64, 8, 3),
    _launch(64, 64, 128, 4, 3),
)
CANDIDATES = {
    "fp8": _WIDE,
    "grouped": (*_WIDE, _launch(128, 64, 128, 4, 3), _launch(128, 128, 64, 8, 4)),
    "grouped_few": (
        *(_launch(64, 32, 128, 4, stages) for stages in (3, 4, 6)),
        *(_launch(64, 32, 256, 4, stages) for stages in (2, 3)),
        _launch(128, 32, 128, 4, 4),
        _launch(128, 32, 128, 8, 4),
    ),
    "narrow": (
        _launch(64, 64, 128, 4, 4),
        _launch(128, 32, 128, 4, 4),
        _launch(64, 32, 128, 4, 4),
        _launch(128, 128, 64, 8, 3),
    ),
    "narrow_few": (
        _launch(32, 16, 256, 2, 3),
        _launch(16, 16, 512, 4, 2),
        _launch(64, 16, 128, 4, 4),
    ),
    "bf16": (
        _launch(128, 128, 64, 8, 3),
        _launch(128, 128, 64, 8, 4),
        _launch(128, 128, 64, 4, 3),
        _launch(128, 256, 64, 8, 3),
        _launch(256, 128, 64, 8, 3),
        _launch(64, 256, 64, 4, 3),
        _launch(128, 128, 128, 8, 3),
    ),
    "grouped_bf16": (
        *(_launch(256, 128, 64, 8, stages) for stages in (3, 4)),
        _launch(256, 64, 64, 8, 4),
        *(_launch(128, 128, 64, warps, 3) for warps in (4, 8)),
        _launch(128, 64, 64, 4, 4),
    ),
    "quantized": (
        _launch(64, 128, 128, 4, 4),
        _launch(64, 128, 128, 4, 3),
        _launch(64, 256, 128, 4, 3),
        _launch(128, 128, 128, 8, 4),
        _launch(128, 64, 128, 4, 4),
    ),
}

QUANTIZE = {90: False, 120: False}
"""Whether rows are rounded to e4m3 for FP8 weights, by compute capability."""

NARROW = 256
"""A bf16 weight with at most so many outputs counts as a gate."""
_FEW_ROWS = 64
"""Tiles with fewer rows use the launches for few rows."""


@Kernel
@triton.jit
def gemm_kernel(
    x_ptr,  # [.., SIZE]
    x_scales_ptr,  # [.., ceil(SIZE / 128)] float32
    w_ptr,  # [experts, OUT, SIZE]
    w_scales_ptr,  # [experts, ceil(OUT / 128), ceil(SIZE / 128)] float32
    residual_ptr,  # [.., columns]
    out_ptr,  # [.., columns]
    order_ptr,  # [rows] int32
    tiles_ptr,  # [tiles, 3] int32
    rows,
    first_column,
    columns,
    OUT: tl.constexpr,
    SIZE: tl.constexpr,
    EXPERTS: tl.constexpr,
    SHARED: tl.constexpr,
    GATED: tl.constexpr,
    SCATTER: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    HAS_X_SCALES: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    WHOLE: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    UNIT_SCALES: tl.constexpr,
):
    """Compute ``columns`` columns of ``x @ w.T + residual``, from ``first_column``.

    EXPERTS > 0: the rows of a tile belong to one expert, and ``order`` gives the assignment of each
    row; SHARED consecutive assignments belong to one row of x, and SCATTER writes rows in the order
    of the assignments. GATED: the outputs are ``silu(gate) * up``; gates and ups alternate every 8
    rows of a tile, which puts both of a pair into one thread. WHOLE: no tile goes beyond the
    columns. WIDE: offsets into the result take 64 bits, and twice the registers.
    """
    if EXPERTS > 0:
        tile_ptr = tiles_ptr + tl.program_id(1) * 3
        expert = tl.load(tile_ptr)
        if expert < 0:
            return
        row = tl.load(tile_ptr + 1) + tl.arange(0, BLOCK_R)
        inside = row < tl.load(tile_ptr + 2)
        source = row
        if not SCATTER:
            source = tl.load(order_ptr + row, mask=inside, other=0) // SHARED
        w_ptr += expert.to(tl.int64) * (OUT * SIZE)
        if HAS_SCALES:
            w_scales_ptr += expert * (((OUT + 127) // 128) * ((SIZE + 127) // 128))
    else:
        row = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
        inside = row < rows
        source = row
    source = tl.where(inside, source, 0)

    # Columns of the result and rows of the weight.
    UNITS: tl.constexpr = BLOCK_O // 2 if GATED else BLOCK_O
    first_unit = first_column + tl.program_id(0) * UNITS
    within = tl.arange(0, BLOCK_O)
    if GATED:
        is_up = (within // 8) % 2 == 1
        unit = first_unit + within // 16 * 8 + within % 8
        output = tl.minimum(unit, OUT // 2 - 1) + tl.where(is_up, OUT // 2, 0)
    else:
        output = tl.minimum(first_unit + within, OUT - 1)

    k = tl.arange(0, BLOCK_K)
    w_start = w_ptr + output[:, None] * SIZE + k[None, :]
    x_start = x_ptr + source[None, :] * SIZE + k[:, None]
    SCALES: tl.constexpr = (SIZE + 127) // 128
    if HAS_SCALES:
        scale_start = w_scales_ptr + first_unit // 128 * SCALES
        up_scale_start = w_scales_ptr + (OUT // 2 + first_unit) // 128 * SCALES
    last_scale = 1.0
    if HAS_SCALES and GATED:
        last_scale = tl.full([BLOCK_O, 1], 1.0, tl.float32)
    sums = tl.zeros([BLOCK_O, BLOCK_R], tl.float32)
    for first in range(0, SIZE, BLOCK_K):
        if SIZE % BLOCK_K == 0:
            w = tl.load(w_start + first)
            x = tl.load(x_start + first)
        else:
            w = tl.load(w_start + first, mask=(k < SIZE - first)[None, :], other=0.0)
            x = tl.load(x_start + first, mask=(k < SIZE - first)[:, None], other=0.0)
        if HAS_SCALES:
            scale = tl.load(scale_start + first // 128)
            if GATED:
                scale = tl.where(is_up, tl.load(up_scale_start + first // 128), scale)[:, None]
        if HAS_X_SCALES:
            if UNIT_SCALES:
                # Runs at the full rate on sm_120, where plain products of e4m3 run at half of it.
                w_unit = tl.full([BLOCK_O, BLOCK_K // 32], 127, tl.uint8)
                x_unit = tl.full([BLOCK_R, BLOCK_K // 32], 127, tl.uint8)
                product = tl.dot_scaled(w, w_unit, "e4m3", x, x_unit, "e4m3")
            else:
                product = tl.dot(w, x)
            x_scale = tl.load(x_scales_ptr + source * SCALES + first // 128)
            sums += product * (scale * x_scale[None, :])
        elif HAS_SCALES:
            # Sums are in units of the current scale: a second tile would take too many registers.
            scale = tl.where(scale == 0, 1e-30, scale)
            sums *= last_scale / scale
            last_scale = scale
            # Converting by way of float32 is twice as fast as directly from e4m3.
            sums = tl.dot(w.to(tl.float32).to(tl.bfloat16), x, sums)
        else:
            sums = tl.dot(w, x, sums)
    if HAS_SCALES and not HAS_X_SCALES:
        sums *= last_scale

    if GATED:
        pairs = tl.reshape(sums, [BLOCK_O // 16, 2, 8, BLOCK_R])
        gate, up = tl.split(tl.permute(pairs, (0, 2, 3, 1)))
        sums = tl.reshape(gate / (1 + tl.exp(-gate)) * up, [BLOCK_O // 2, BLOCK_R])
    column = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    target = row
    if SCATTER:
        target = tl.load(order_ptr + row, mask=inside, other=0)
    if WIDE:
        target = target.to(tl.int64)
    offsets = target[None, :] * columns + column[:, None]
    mask = tl.broadcast_to(inside[None, :], offsets.shape)
    if not WHOLE:
        mask &= (column < columns)[:, None]
    if HAS_RESIDUAL:
        sums += tl.load(residual_ptr + offsets, mask=mask, other=0).to(tl.float32)
    tl.store(out_ptr + offsets, sums.to(out_ptr.dtype.element_ty), mask=mask)


def options(
    weight: Weight, rows: int, device: torch.device, is_quantized: bool = False
) -> dict[str, Any]:
    """Return the keyword arguments of a launch for tiles of about ``rows`` rows.

    Args:
        weight: [outputs, in], or [experts, outputs, in].
        rows: in all, or per expert.
        device: the GPU.
        is_quantized: whether the rows are e4m3.
    """
    values, scales = parts(weight)
    kind = "bf16" if scales is None else "quantized" if is_quantized else "fp8"
    if scales is None and values.ndim == 2 and len(values) <= NARROW:
        kind = "narrow"
    elif values.ndim == 3 and kind != "quantized":
        kind = "grouped" if kind == "fp8" else "grouped_bf16"
    tile = max(16, next_power_of_2(rows))
    name = kind if tile >= _FEW_ROWS else f"{kind}_few"
    chosen = pick(LAUNCHES[name], capability(device)).options()
    return chosen | {"BLOCK_R": min(tile, chosen["BLOCK_R"])}


def is_quantizing(weight: Weight, device: torch.device) -> bool:
    """Tell whether rows are rounded to e4m3 before they are multiplied by this weight."""
    below = [known for known in QUANTIZE if known <= capability(device)]
    return isinstance(weight, BlockScaled) and QUANTIZE[max(below or QUANTIZE)]


def gemm(
    inputs: torch.Tensor,
    input_scales: torch.Tensor | None,
    weight: Weight,
    out: torch.Tensor,
    residual: torch.Tensor | None = None,
    assigned: Assignments | None = None,
    shared: int = 1,
    is_scattered: bool = False,
    is_gated: bool = False,
    first_column: int = 0,
) -> torch.Tensor:
    """Compute columns of ``inputs @ weight.T + residual``.

    Args:
        inputs: [rows, in] bf16, or e4m3 with scales.
        input_scales: [rows, ceil(in / 128)].
        weight: [outputs, in], or [experts, outputs, in] where rows are assigned.
        out: [rows, columns], written: columns of the product from ``first_column``.
        residual: like ``out``.
        assigned: which rows of inputs go to which expert.
        shared: consecutive assignments that belong to one row of inputs.
        is_scattered: inputs are sorted by expert, and the result is in the order of the
            assignments; otherwise the other way round.
        is_gated: the result is ``silu(gate) * up``; the first half of the outputs are gates.
        first_column: column of the product that is the first of ``out``.

    Returns:
        ``out``.
    """
    values, scales = parts(weight)
    outputs, size = values.shape[-2:]
    columns = out.shape[1]
    rows = out.shape[0]
    experts = len(values) if assigned is not None else 0
    chosen = options(weight, rows // max(experts, 1), inputs.device, input_scales is not None)
    tiles = cdiv(rows, chosen["BLOCK_R"])
    order = table = None
    if assigned is not None:
        order, table, tiles = assigned.order, assigned.tiles, len(assigned.tiles)
        chosen["BLOCK_R"] = assigned.block
    units = chosen["BLOCK_O"] // 2 if is_gated else chosen["BLOCK_O"]
    gemm_kernel[(cdiv(columns, units), tiles)](
        inputs,
        input_scales,
        values,
        scales,
        residual,
        out,
        order,
        table,
        rows,
        first_column,
        columns,
        OUT=outputs,
        SIZE=size,
        EXPERTS=experts,
        SHARED=shared,
        GATED=is_gated,
        SCATTER=is_scattered,
        HAS_SCALES=scales is not None,
        HAS_X_SCALES=input_scales is not None,
        HAS_RESIDUAL=residual is not None,
        WHOLE=columns % units == 0,
        WIDE=out.numel() >= 2**31,
        **chosen,
    )
    return out


_TYPES = {
    "x_scales_ptr": "*fp32",
    "w_scales_ptr": "*fp32",
    "order_ptr": "*i32",
    "tiles_ptr": "*i32",
    "residual_ptr": "*bf16",
    "out_ptr": "*bf16",
    "rows": "i32",
    "first_column": "i32",
    "columns": "i32",
}
_OPERANDS = {
    "fp8": {"x_ptr": "*bf16", "w_ptr": "*fp8e4nv"},
    "grouped": {"x_ptr": "*bf16", "w_ptr": "*fp8e4nv"},
    "narrow": {"x_ptr": "*bf16", "w_ptr": "*bf16"},
    "bf16": {"x_ptr": "*bf16", "w_ptr": "*bf16"},
    "grouped_bf16": {"x_ptr": "*bf16", "w_ptr": "*bf16"},
    "quantized": {"x_ptr": "*fp8e4nv", "w_ptr": "*fp8e4nv"},
}
_FLAGS = {
    "EXPERTS": 0,
    "SHARED": 1,
    "GATED": False,
    "SCATTER": False,
    "HAS_SCALES": True,
    "HAS_X_SCALES": False,
    "HAS_RESIDUAL": False,
    "WHOLE": True,
    "WIDE": False,
}
_EXPERTS = {"EXPERTS": 128}


def _build(name: str, kind: str, outputs: int, size: int, **flags: Any) -> Build:
    types = _TYPES | _OPERANDS[kind.removesuffix("_few")]
    constants = _FLAGS | {"OUT": outputs, "SIZE": size} | flags
    return Build(f"gemm_{name}", gemm_kernel, types, LAUNCHES[kind], constants)


BUILDS = (
    _build("qkv", "fp8", 5120, 2048),
    _build("output", "fp8", 2048, 4096, HAS_RESIDUAL=True),
    _build("gate_up", "grouped", 1536, 2048, **_EXPERTS, SHARED=8, GATED=True),
    _build("down", "grouped", 2048, 768, **_EXPERTS, SCATTER=True),
    _build("gate_up_few", "grouped_few", 1536, 2048, **_EXPERTS, SHARED=8, GATED=True),
    _build("down_few", "grouped_few", 2048, 768, **_EXPERTS, SCATTER=True),
    _build("expert_gate", "narrow", 128, 2048, HAS_SCALES=False),
    _build("expert_gate_few", "narrow_few", 128, 2048, HAS_SCALES=False),
    _build("qkv_quantized", "quantized", 5120, 2048, HAS_X_SCALES=True),
    _build(
        "packed_gate_up",
        "grouped_bf16",
        1536,
        2048,
        **_EXPERTS,
        SHARED=8,
        GATED=True,
        HAS_SCALES=False,
    ),
    _build("packed_down", "grouped_bf16", 2048, 768, **_EXPERTS, SCATTER=True, HAS_SCALES=False),
    _build("packed_qkv", "bf16", 5120, 2048, HAS_SCALES=False),
    _build("smollm_gate_up", "bf16", 3072, 576, HAS_SCALES=False, GATED=True),
    _build("smollm_qkv_few", "bf16_few", 960, 576, HAS_SCALES=False),
)
