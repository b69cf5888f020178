"""Products of one to four rows, as in decoding: as fast as the weight can be read.

A program reads whole rows of the weight, 16 bytes per thread. All loads are issued before the first
is used and, where kernels overlap, before the previous kernel has ended. The scale of an FP8 block
is multiplied into the input, once for all weight rows of the program, which share a row of blocks;
those of packed weights are multiplied into sums of products.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.gpu.build import Build, Launch, Launches, capability, overlap, pick
from hga_kernels.gpu.launch import Kernel, cdiv, next_power_of_2
from hga_kernels.gpu.linear.limbs import limbs, product_of, row_of, runs_of, unpack_run
from hga_kernels.gpu.linear.packed import KINDS, WIDE, load_units, nothing, size_of, unit_of
from hga_kernels.weights import FP8_BLOCK, BlockScaled, Packed, RowParts, Weight

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
    "packed32": {90: _launch(4, 2), 120: _launch(4, 2)},
    "packed32_deep": {90: _launch(2, 2, 4096), 120: _launch(2, 2, 4096)},
    "packed64": {90: _launch(4, 1), 120: _launch(4, 1)},
    "packed64_deep": {90: _launch(4, 2, 4096), 120: _launch(4, 2, 4096)},
}
"""By kind of product, then by compute capability; "deep" rows have more than 2,048 columns. The
numbers of packed weights are those of a unit, see ``packed``."""

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
    "packed64": (
        *(_launch(n, 1) for n in (1, 2, 4, 8)),
        *(_launch(n, 1, 1024) for n in (4, 8)),
        *(_launch(n, 2) for n in (4, 8)),
    ),
    "packed64_deep": (
        *(_launch(n, 1, 4096) for n in (1, 2, 4)),
        *(_launch(n, 2, 4096) for n in (2, 4, 8)),
        *(_launch(n, 1, 2048) for n in (4, 8)),
    ),
}
_DEEP = 2048


@triton.jit
def norm_weight(norm_ptr, first, SIZE: tl.constexpr, HAS_NORM: tl.constexpr, BLOCK: tl.constexpr):
    """Return [BLOCK] float32 of a norm from ``first``, which may be loaded before any waiting."""
    weight = 1.0
    if HAS_NORM:
        columns = first + tl.arange(0, BLOCK)
        weight = tl.load(norm_ptr + columns, mask=columns < SIZE, other=0).to(tl.float32)
    return weight


@triton.jit
def normalised(x, root, weight, KIND: tl.constexpr):
    """Return ``x * root * weight``, rounded like ``rms_norm`` of rows of type KIND."""
    return ((x * root).to(KIND).to(tl.float32) * weight).to(KIND).to(tl.float32)


@triton.jit
def normed_row(
    x_ptr, weight, eps, first, SIZE: tl.constexpr, HAS_NORM: tl.constexpr, BLOCK: tl.constexpr
):
    """Return [BLOCK] float32 of a row from ``first``, normalised and rounded like ``rms_norm``.

    Args: ``weight``: from ``norm_weight``. Returns also what the row has been multiplied by.
    """
    columns = first + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + columns, mask=columns < SIZE, other=0).to(tl.float32)
    root = 1.0
    if HAS_NORM:
        if BLOCK >= SIZE:
            squares = tl.sum(x * x, 0)
        else:
            squares = 0.0
            for part in tl.static_range(0, SIZE, BLOCK):
                others = part + tl.arange(0, BLOCK)
                y = tl.load(x_ptr + others, mask=others < SIZE, other=0).to(tl.float32)
                squares += tl.sum(y * y, 0)
        root = tl.rsqrt(squares / SIZE + eps)
        x = normalised(x, root, weight, x_ptr.dtype.element_ty)
    return x, root


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
def unit_tile(first, SIZE: tl.constexpr, BLOCK: tl.constexpr, FORMAT: tl.constexpr):
    """Return the units of a packed row from column ``first``, in BLOCK columns.

    Returns:
        Block within the row, unit within the block, and whether the unit is inside: all [units].
    """
    UNIT: tl.constexpr = unit_of(FORMAT)
    EACH: tl.constexpr = size_of(FORMAT) // UNIT
    unit = first // UNIT + tl.arange(0, BLOCK // UNIT)
    return unit // EACH, unit % EACH, unit < SIZE // UNIT


@triton.constexpr_function
def _halvings(count: int) -> int:
    return count.bit_length() - 1


@triton.jit
def stack(tensors, COUNT: tl.constexpr):
    """Return [n, COUNT] of a tuple of tensors [n]; COUNT is a power of two."""
    joined = tensors
    for step in tl.static_range(_halvings(COUNT)):
        parts = joined
        joined = nothing()
        for nth in tl.static_range(COUNT // (2 << step)):
            pair = tl.join(parts[nth], parts[nth + COUNT // (2 << step)])
            joined += (tl.reshape(pair, [pair.shape[0], 2 << step]),)
    return tl.reshape(joined[0], [joined[0].shape[0], COUNT])


@triton.jit
def _packed_rows(
    x_ptr,
    w_ptr,
    residual_ptr,
    out_ptr,
    program,
    FIRST: tl.constexpr,
    OUT: tl.constexpr,
    COLUMNS: tl.constexpr,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    OVERLAPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """Compute outputs of a packed weight, which are columns of ``out`` from FIRST on."""
    EACH: tl.constexpr = SIZE // size_of(FORMAT)
    MASKED: tl.constexpr = SIZE % BLOCK_K != 0
    # One column per row, padded to a power of two.
    PADDED: tl.constexpr = 4 if ROWS > 2 else ROWS
    start = program * BLOCK_N
    which = tl.arange(0, BLOCK_N * PADDED)
    n, row = start + which // PADDED, which % PADDED
    mask = (n < OUT) & (row < ROWS)
    targets = row * COLUMNS + FIRST + n
    products = nothing()
    for _ in tl.static_range(BLOCK_N * PADDED):
        products += (tl.zeros([BLOCK_K // unit_of(FORMAT)], tl.float32),)
    for first in tl.static_range(0, SIZE, BLOCK_K):
        block, within, inside = unit_tile(first, SIZE, BLOCK_K, FORMAT)
        stored = nothing()
        for nth in tl.static_range(BLOCK_N):
            blocks = tl.minimum(start + nth, OUT - 1) * EACH + block
            units = load_units(w_ptr, blocks, within, inside, FORMAT, OUT * EACH, MASKED)
            stored += (units,)
        if OVERLAPS and first == 0:
            gdc_wait()
        if HAS_RESIDUAL and first == 0:
            residual = tl.load(residual_ptr + targets, mask=mask, other=0).to(tl.float32)
        for run in tl.static_range(runs_of(FORMAT)):
            xs = nothing()
            for nth in tl.static_range(ROWS):
                x_row = row_of(x_ptr, nth, SIZE)
                column = block * size_of(FORMAT)
                xs += (limbs(x_row, column, within, inside, run, SIZE, MASKED, FORMAT),)
            before = products
            products = nothing()
            for nth in tl.static_range(BLOCK_N):
                unpacked = unpack_run(stored[nth], within, run, FORMAT)
                for other in tl.static_range(PADDED):
                    product = before[nth * PADDED + other]
                    if other < ROWS:
                        product += product_of(unpacked, xs[other], run, FORMAT)
                    products += (product,)
    sums = tl.sum(stack(products, BLOCK_N * PADDED), 0)
    if HAS_RESIDUAL:
        sums += residual
    tl.store(out_ptr + targets, sums.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _plain_rows(
    x_ptr,
    norm_ptr,
    w_ptr,
    scales_ptr,
    residual_ptr,
    out_ptr,
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
    """Compute outputs of a bf16 or FP8 weight."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    SCALES: tl.constexpr = (SIZE + 127) // 128
    # One column per row, padded to a power of two.
    PADDED: tl.constexpr = 4 if ROWS > 2 else ROWS
    rows = tl.arange(0, PADDED)
    targets = rows[None, :] * OUT + n[:, None]
    mask = (n < OUT)[:, None] & (rows < ROWS)[None, :]
    sums = tl.zeros([BLOCK_N, PADDED], tl.float32)
    for first in tl.static_range(0, SIZE, BLOCK_K):
        stored = weight_tile(w_ptr, n, first, OUT, SIZE, BLOCK_K)
        of_norm = norm_weight(norm_ptr, first, SIZE, HAS_NORM, BLOCK_K)
        if OVERLAPS and first == 0:
            gdc_wait()
        if HAS_RESIDUAL and first == 0:
            sums += tl.load(residual_ptr + targets, mask=mask, other=0).to(tl.float32)
        weight = stored.to(tl.float32)
        for row in tl.static_range(ROWS):
            x, _ = normed_row(x_ptr + row * SIZE, of_norm, eps, first, SIZE, HAS_NORM, BLOCK_K)
            if HAS_SCALES:
                block_row = tl.program_id(0) * BLOCK_N // 128
                x *= spread_scales(scales_ptr + block_row * SCALES, first, SCALES, BLOCK_K)
            part = tl.sum(weight * x[None, :], 1)
            sums += tl.where(rows[None, :] == row, part[:, None], 0.0)
    tl.store(out_ptr + targets, sums.to(out_ptr.dtype.element_ty), mask=mask)


@Kernel
@triton.jit
def gemv_kernel(
    x_ptr,  # [ROWS, SIZE] bf16 or float32, or int32 in limbs
    norm_ptr,  # [SIZE] bf16 or float32
    w_ptr,  # [OUT, SIZE], or packed
    scales_ptr,  # [ceil(OUT / 128), ceil(SIZE / 128)] float32
    below_ptr,  # [BELOW, SIZE] packed
    residual_ptr,  # [ROWS, OUT + BELOW]
    out_ptr,  # [ROWS, OUT + BELOW]
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
    FORMAT: tl.constexpr,
    BELOW: tl.constexpr,
    BELOW_FORMAT: tl.constexpr,
):
    """Compute ``norm(x) @ w.T + residual``, BLOCK_N columns of all rows per program.

    FORMAT: block format of a packed weight. BELOW > 0: the weight goes on with so many rows in
    another format. Packed weights take rows of bf16 or in limbs, without a norm.
    """
    if OVERLAPS:
        gdc_launch_dependents()
    program = tl.program_id(0)
    PROGRAMS: tl.constexpr = (OUT + BLOCK_N - 1) // BLOCK_N
    if FORMAT == "":
        _plain_rows(
            x_ptr,
            norm_ptr,
            w_ptr,
            scales_ptr,
            residual_ptr,
            out_ptr,
            eps,
            OUT,
            SIZE,
            ROWS,
            HAS_NORM,
            HAS_SCALES,
            HAS_RESIDUAL,
            OVERLAPS,
            BLOCK_N,
            BLOCK_K,
        )
    elif BELOW == 0 or program < PROGRAMS:
        _packed_rows(
            x_ptr,
            w_ptr,
            residual_ptr,
            out_ptr,
            program,
            0,
            OUT,
            OUT + BELOW,
            SIZE,
            ROWS,
            HAS_RESIDUAL,
            OVERLAPS,
            BLOCK_N,
            BLOCK_K,
            FORMAT,
        )
    else:
        _packed_rows(
            x_ptr,
            below_ptr,
            residual_ptr,
            out_ptr,
            program - PROGRAMS,
            OUT,
            BELOW,
            OUT + BELOW,
            SIZE,
            ROWS,
            HAS_RESIDUAL,
            OVERLAPS,
            BLOCK_N,
            BLOCK_K,
            BELOW_FORMAT,
        )


def takes(inputs: torch.Tensor, weight: Weight) -> bool:
    """Tell whether the kernels multiply these: bf16 or float32 rows; bf16, e4m3, packed weights."""
    if inputs.dtype not in (torch.bfloat16, torch.float32):
        return False
    if isinstance(weight, Packed):
        # Matrices begin at multiples of 16 bytes.
        is_aligned = weight.data[..., :1, :1].numel() == 1 or weight.data[0].numel() % 16 == 0
        return weight.is_planar and weight.format in KINDS and is_aligned
    if isinstance(weight, RowParts):
        return all(isinstance(part, Packed) and takes(inputs, part) for part in weight.parts)
    values = weight.values if isinstance(weight, BlockScaled) else weight
    stored = torch.float8_e4m3fn if isinstance(weight, BlockScaled) else torch.bfloat16
    return values.dtype == stored and values.is_contiguous()


def parts(weight: Weight) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the tensors of a weight that ``takes`` allows: values or blocks, and scales."""
    if isinstance(weight, BlockScaled):
        return weight.values, weight.scales
    if isinstance(weight, Packed):
        return weight.data, None
    assert isinstance(weight, torch.Tensor)
    return weight, None


def format_of(weight: Weight) -> str:
    """Return the block format of a packed weight, else nothing."""
    return weight.format if isinstance(weight, Packed) else ""


def options(launches: Launches, size: int, device: torch.device) -> dict[str, Any]:
    """Return the keyword arguments of a launch for rows of ``size`` columns."""
    chosen = pick(launches, capability(device)).options()
    # A block of columns holds whole blocks of scales.
    return chosen | {"BLOCK_K": min(chosen["BLOCK_K"], max(next_power_of_2(size), FP8_BLOCK))}


def unit_kind(weight: Packed) -> str:
    """Return the part of a key of launches that names the unit of a packed weight."""
    return "packed64" if weight.format in WIDE else "packed32"


def kind_of(weight: Weight) -> str:
    """Return the key of the launches for a weight."""
    outputs, size = weight.shape[-2:]
    if isinstance(weight, Packed):
        return f"{unit_kind(weight)}_deep" if size > _DEEP else unit_kind(weight)
    if isinstance(weight, BlockScaled):
        return "fp8_deep" if size > _DEEP else "fp8"
    return "bf16" if outputs > NARROW else "narrow"


def gemv(
    inputs: torch.Tensor,
    norm: torch.Tensor | None,
    eps: float,
    weight: Weight,
    out_dtype: torch.dtype,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    """Run ``norm_linear`` or ``linear`` for at most MAX_ROWS rows."""
    rows, size = len(inputs), weight.shape[1]
    out = torch.empty(rows, weight.shape[0], dtype=out_dtype, device=inputs.device)
    first, below = weight, None
    if isinstance(weight, RowParts):
        first, below, *more = weight.parts
        if more:
            found = [gemv(inputs, norm, eps, part, torch.float32, None) for part in weight.parts]
            wide = torch.cat(found, 1)
            return (wide if residual is None else wide + residual).to(out_dtype)
    values, scales = parts(first)
    outputs, others = first.shape[0], 0 if below is None else below.shape[0]
    chosen = options(LAUNCHES[kind_of(first)], size, inputs.device)
    programs = cdiv(outputs, chosen["BLOCK_N"]) + cdiv(others, chosen["BLOCK_N"])
    gemv_kernel[(programs,)](
        inputs.contiguous(),
        norm,
        values,
        scales,
        None if below is None else parts(below)[0],
        residual,
        out,
        eps,
        OUT=outputs,
        SIZE=size,
        ROWS=rows,
        HAS_NORM=norm is not None,
        HAS_SCALES=scales is not None,
        HAS_RESIDUAL=residual is not None,
        FORMAT=format_of(first),
        BELOW=others,
        BELOW_FORMAT="" if below is None else format_of(below),
        **overlap(inputs.device),
        **chosen,
    )
    return out


_BF16_ROW = {"x_ptr": "*bf16", "norm_ptr": "*bf16", "eps": "fp32"}
_LIMBS = _BF16_ROW | {"x_ptr": "*i32"}
_FP8 = {"w_ptr": "*fp8e4nv", "below_ptr": "*u8", "scales_ptr": "*fp32"}
_BF16 = {"w_ptr": "*bf16", "below_ptr": "*u8", "scales_ptr": "*fp32"}
_OUT = {"residual_ptr": "*bf16", "out_ptr": "*bf16"}
_FLAGS = {
    "HAS_NORM": False,
    "HAS_SCALES": True,
    "HAS_RESIDUAL": False,
    "ROWS": 1,
    "OVERLAPS": True,
    "FORMAT": "",
    "BELOW": 0,
    "BELOW_FORMAT": "",
}

_PACKED = {"w_ptr": "*u8", "below_ptr": "*u8", "scales_ptr": "*fp32"}
_PACKED_FLAGS = _FLAGS | {"HAS_SCALES": False}
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
    Build(
        "gemv_qkv_packed",
        gemv_kernel,
        _LIMBS | _PACKED | {"residual_ptr": "*fp32", "out_ptr": "*fp32"},
        LAUNCHES["packed64"],
        _PACKED_FLAGS
        | {"OUT": 4608, "SIZE": 2048, "FORMAT": "Q4_K"}
        | {"BELOW": 512, "BELOW_FORMAT": "Q6_K"},
    ),
    Build(
        "gemv_output_packed",
        gemv_kernel,
        _BF16_ROW | _PACKED | {"residual_ptr": "*fp32", "out_ptr": "*fp32"},
        LAUNCHES["packed64_deep"],
        _PACKED_FLAGS | {"OUT": 2048, "SIZE": 4096, "HAS_RESIDUAL": True, "FORMAT": "Q4_K"},
    ),
    *(
        Build(
            f"gemv_{name}",
            gemv_kernel,
            _LIMBS | _PACKED | {"residual_ptr": "*fp32", "out_ptr": "*fp32"},
            LAUNCHES["packed64" if name in WIDE else "packed32"],
            _PACKED_FLAGS | {"OUT": 151_936, "SIZE": 2048, "FORMAT": name},
        )
        for name in KINDS
    ),
)
