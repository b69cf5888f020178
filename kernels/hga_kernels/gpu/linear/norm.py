"""Row-wise kernels: RMSNorm, quantisation to e4m3, and splitting a QKV product into heads."""

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.arguments import Angles, HeadWeights
from hga_kernels.gpu.build import Build, Launch, capability, overlap, pick
from hga_kernels.gpu.launch import Kernel, cdiv, next_power_of_2
from hga_kernels.gpu.linear.gemv import norm_weight, normalised, normed_row
from hga_kernels.gpu.linear.limbs import empty_rows, part_of, store_normed
from hga_kernels.reference.model import LARGEST_FP8
from hga_kernels.weights import FP8_BLOCK

ROW_LAUNCHES = {90: Launch({}, 4), 120: Launch({}, 4)}
HEADS_LAUNCHES = {
    "few": {90: Launch({"BLOCK_R": 1}, 1), 120: Launch({"BLOCK_R": 1}, 1)},
    "many": {90: Launch({"BLOCK_R": 16}, 4), 120: Launch({"BLOCK_R": 16}, 4)},
}
CANDIDATES = {
    "split_heads_few": tuple(Launch({"BLOCK_R": 1}, warps) for warps in (1, 2)),
    "split_heads_many": tuple(
        Launch({"BLOCK_R": block}, warps) for block, warps in ((8, 4), (16, 4), (32, 4), (32, 8))
    ),
}
_PROGRAMS = 16
"""That share a row in limbs."""
_FEW_ROWS = 16
_LARGEST_FP8 = tl.constexpr(LARGEST_FP8)


@Kernel
@triton.jit
def rms_norm_kernel(
    x_ptr,
    norm_ptr,
    out_ptr,
    eps,
    stride,
    SIZE: tl.constexpr,
    OVERLAPS: tl.constexpr,
    BLOCK: tl.constexpr,
    PART: tl.constexpr,
):
    """One program per PART columns of a row."""
    row = tl.program_id(0).to(tl.int64)
    own = tl.program_id(1) * PART
    of_norm = norm_weight(norm_ptr, own, SIZE, True, PART)
    if OVERLAPS:
        gdc_launch_dependents()
        gdc_wait()
    x_ptr += row * stride
    if PART < BLOCK:
        part, _ = normed_row(x_ptr, 1.0, eps, own, SIZE, False, PART)
        _, root = normed_row(x_ptr, 1.0, eps, 0, SIZE, True, BLOCK)
        normed = normalised(part, root, of_norm, x_ptr.dtype.element_ty)
    else:
        normed, _ = normed_row(x_ptr, of_norm, eps, 0, SIZE, True, BLOCK)
    store_normed(out_ptr, row, normed, own, SIZE, PART)


@Kernel
@triton.jit
def quantize_kernel(
    x_ptr,
    norm_ptr,
    out_ptr,
    scales_ptr,
    eps,
    stride,
    SIZE: tl.constexpr,
    HAS_NORM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per row, which is normalised first if HAS_NORM."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    of_norm = norm_weight(norm_ptr, 0, SIZE, HAS_NORM, BLOCK)
    x, _ = normed_row(x_ptr + row * stride, of_norm, eps, 0, SIZE, HAS_NORM, BLOCK)
    SCALES: tl.constexpr = (SIZE + 127) // 128
    tile = tl.reshape(x, [BLOCK // 128, 128])
    scales = tl.max(tl.abs(tile), 1) / _LARGEST_FP8
    scales = tl.where(scales == 0, 1.0, scales)
    values = tl.reshape(tl.clamp(tile / scales[:, None], -_LARGEST_FP8, _LARGEST_FP8), [BLOCK])
    tl.store(out_ptr + row * SIZE + columns, values.to(tl.float8e4nv), mask=columns < SIZE)
    blocks = tl.arange(0, BLOCK // 128)
    tl.store(scales_ptr + row * SCALES + blocks, scales, mask=blocks < SCALES)


@Kernel
@triton.jit
def split_heads_kernel(
    x_ptr,  # [rows, (QUERIES + 2 * KEYS) * 2 * HALF] bf16 or float32
    q_norm_ptr,  # [2 * HALF] bf16 or float32
    k_norm_ptr,
    bias_ptr,  # [QUERIES + 2 * KEYS, 2 * HALF] float32
    shift_ptr,  # [KEYS, 2 * HALF] float32
    cos_ptr,  # [rows, HALF] float32
    sin_ptr,
    queries_ptr,  # [rows, QUERIES, 2 * HALF] bf16 or float32
    keys_ptr,  # [rows, KEYS, 2 * HALF], same
    values_ptr,  # [rows, KEYS, 2 * HALF], same
    rows,
    eps,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    HALF: tl.constexpr,
    HAS_Q_NORM: tl.constexpr,
    HAS_K_NORM: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program per BLOCK_R rows of one head."""
    kind: tl.constexpr = queries_ptr.dtype.element_ty
    head = tl.program_id(0)
    row = (tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)).to(tl.int64)[:, None]
    pair = tl.arange(0, BLOCK_D)[None, :]
    mask = (row < rows) & (pair < HALF)
    source = x_ptr + (row * (QUERIES + 2 * KEYS) + head) * (2 * HALF) + pair
    first = tl.load(source, mask=mask, other=0).to(tl.float32)
    second = tl.load(source + HALF, mask=mask, other=0).to(tl.float32)
    if HAS_BIAS:
        bias = bias_ptr + head * (2 * HALF) + pair
        first += tl.load(bias, mask=pair < HALF, other=0)
        second += tl.load(bias + HALF, mask=pair < HALF, other=0)
    if head >= QUERIES + KEYS:
        target = values_ptr + (row * KEYS + head - QUERIES - KEYS) * (2 * HALF) + pair
        tl.store(target, first.to(kind), mask=mask)
        tl.store(target + HALF, second.to(kind), mask=mask)
    else:
        is_query = head < QUERIES
        if HAS_Q_NORM or HAS_K_NORM:
            squares = tl.sum(first * first + second * second, 1)[:, None]
            root = tl.rsqrt(squares / (2 * HALF) + eps)
            norm_ptr = q_norm_ptr if HAS_Q_NORM else k_norm_ptr
            if HAS_Q_NORM and HAS_K_NORM:
                norm_ptr = tl.where(is_query, q_norm_ptr, k_norm_ptr)
            if (HAS_Q_NORM and is_query) or (HAS_K_NORM and not is_query):
                # With a bias, everything is computed in float32.
                inner: tl.constexpr = tl.float32 if HAS_BIAS else x_ptr.dtype.element_ty
                weight = tl.load(norm_ptr + pair, mask=pair < HALF, other=0).to(tl.float32)
                first = (first * root).to(inner).to(tl.float32) * weight
                weight = tl.load(norm_ptr + HALF + pair, mask=pair < HALF, other=0).to(tl.float32)
                second = (second * root).to(inner).to(tl.float32) * weight
                first = first.to(inner).to(tl.float32)
                second = second.to(inner).to(tl.float32)
        cos = tl.load(cos_ptr + row * HALF + pair, mask=mask, other=0)
        sin = tl.load(sin_ptr + row * HALF + pair, mask=mask, other=0)
        rotated_first = first * cos - second * sin
        rotated_second = second * cos + first * sin
        target = queries_ptr + (row * QUERIES + head) * (2 * HALF) + pair
        if head >= QUERIES:
            target = keys_ptr + (row * KEYS + head - QUERIES) * (2 * HALF) + pair
            if HAS_SHIFT:
                shift = shift_ptr + (head - QUERIES) * (2 * HALF) + pair
                rotated_first -= tl.load(shift, mask=pair < HALF, other=0)
                rotated_second -= tl.load(shift + HALF, mask=pair < HALF, other=0)
        tl.store(target, rotated_first.to(kind), mask=mask)
        tl.store(target + HALF, rotated_second.to(kind), mask=mask)


def rms_norm(
    inputs: torch.Tensor, weight: torch.Tensor, eps: float, in_limbs: bool = False
) -> torch.Tensor:
    """See ``reference.rms_norm``: bf16 or float32 rows [rows, size], rounded to bf16.

    Args:
        inputs: the rows.
        weight: [size].
        eps: of the norm.
        in_limbs: return rows for ``limbs.store_row``'s readers instead; size is a multiple of 32.
    """
    rows, size = inputs.shape
    out = empty_rows(rows, size, inputs.device, in_limbs)
    launch = pick(ROW_LAUNCHES, capability(inputs.device))
    block = max(next_power_of_2(size), 32)
    part = part_of(size, _PROGRAMS) if in_limbs else block
    rms_norm_kernel[(rows, cdiv(size, part))](
        inputs,
        weight,
        out,
        eps,
        inputs.stride(0),
        SIZE=size,
        BLOCK=block,
        PART=part,
        **overlap(inputs.device),
        **launch.options(),
    )
    return out


def quantize(
    inputs: torch.Tensor, norm: torch.Tensor | None = None, eps: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``reference.quantize``; bf16 rows are normalised first if a norm is given."""
    rows, size = inputs.shape
    values = torch.empty(rows, size, dtype=torch.float8_e4m3fn, device=inputs.device)
    scales = torch.empty(rows, cdiv(size, FP8_BLOCK), device=inputs.device)
    launch = pick(ROW_LAUNCHES, capability(inputs.device))
    quantize_kernel[(rows,)](
        inputs,
        norm,
        values,
        scales,
        eps,
        inputs.stride(0),
        SIZE=size,
        HAS_NORM=norm is not None,
        BLOCK=max(next_power_of_2(size), FP8_BLOCK),
        **launch.options(),
    )
    return values, scales


def split_heads(
    heads: torch.Tensor,
    weights: HeadWeights,
    angles: Angles,
    num_query_heads: int,
    num_kv_heads: int,
    out_dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """See ``reference.split_heads``: one pass over bf16 or float32 rows, with float32 angles."""
    cos, sin = angles.cos, angles.sin
    if heads.dtype not in (torch.bfloat16, torch.float32) or cos.dtype != torch.float32:
        return None
    dtype = out_dtype or heads.dtype
    rows, half = cos.shape
    shape = (num_query_heads, num_kv_heads, num_kv_heads)
    queries, keys, values = (
        torch.empty(rows, count, 2 * half, dtype=dtype, device=heads.device) for count in shape
    )
    kind = "few" if rows < _FEW_ROWS else "many"
    launch = pick(HEADS_LAUNCHES[kind], capability(heads.device))
    split_heads_kernel[(sum(shape), cdiv(rows, launch.sizes["BLOCK_R"]))](
        heads.contiguous(),
        weights.q_norm,
        weights.k_norm,
        weights.bias,
        weights.key_shift,
        cos.contiguous(),
        sin.contiguous(),
        queries,
        keys,
        values,
        rows,
        weights.eps,
        QUERIES=num_query_heads,
        KEYS=num_kv_heads,
        HALF=half,
        HAS_Q_NORM=weights.q_norm is not None,
        HAS_K_NORM=weights.k_norm is not None,
        HAS_BIAS=weights.bias is not None,
        HAS_SHIFT=weights.key_shift is not None,
        BLOCK_D=next_power_of_2(half),
        **launch.options(),
    )
    return queries, keys, values


_ROW = {"x_ptr": "*bf16", "norm_ptr": "*bf16", "eps": "fp32", "stride": "i32"}
_HEADS = {
    "x_ptr": "*bf16",
    "q_norm_ptr": "*bf16",
    "k_norm_ptr": "*bf16",
    "bias_ptr": "*fp32",
    "shift_ptr": "*fp32",
    "cos_ptr": "*fp32",
    "sin_ptr": "*fp32",
    "queries_ptr": "*bf16",
    "keys_ptr": "*bf16",
    "values_ptr": "*bf16",
    "rows": "i32",
    "eps": "fp32",
}
_QWEN3 = {
    "QUERIES": 32,
    "KEYS": 4,
    "HALF": 64,
    "HAS_Q_NORM": True,
    "HAS_K_NORM": True,
    "HAS_BIAS": False,
    "HAS_SHIFT": False,
}
_QWEN2 = {
    "QUERIES": 12,
    "KEYS": 2,
    "HALF": 64,
    "HAS_Q_NORM": False,
    "HAS_K_NORM": False,
    "HAS_BIAS": True,
    "HAS_SHIFT": True,
}
_SMOLLM = {
    "QUERIES": 9,
    "KEYS": 3,
    "HALF": 32,
    "HAS_Q_NORM": False,
    "HAS_K_NORM": False,
    "HAS_BIAS": False,
    "HAS_SHIFT": False,
}

BUILDS = (
    Build(
        "rms_norm",
        rms_norm_kernel,
        _ROW | {"out_ptr": "*bf16"},
        ROW_LAUNCHES,
        {"SIZE": 2048, "BLOCK": 2048, "PART": 2048, "OVERLAPS": True},
    ),
    Build(
        "rms_norm_in_limbs",
        rms_norm_kernel,
        _ROW | {"x_ptr": "*fp32", "norm_ptr": "*fp32", "out_ptr": "*i32"},
        ROW_LAUNCHES,
        {"SIZE": 2048, "BLOCK": 2048, "PART": 128, "OVERLAPS": True},
    ),
    Build(
        "quantize",
        quantize_kernel,
        _ROW | {"out_ptr": "*fp8e4nv", "scales_ptr": "*fp32"},
        ROW_LAUNCHES,
        {"SIZE": 2048, "BLOCK": 2048, "HAS_NORM": True},
    ),
    Build(
        "split_heads", split_heads_kernel, _HEADS, HEADS_LAUNCHES["few"], _QWEN3 | {"BLOCK_D": 64}
    ),
    Build(
        "split_heads_many",
        split_heads_kernel,
        _HEADS,
        HEADS_LAUNCHES["many"],
        _QWEN3 | {"BLOCK_D": 64},
    ),
    Build(
        "split_heads_packed",
        split_heads_kernel,
        _HEADS | dict.fromkeys(("x_ptr", "q_norm_ptr", "k_norm_ptr"), "*fp32"),
        HEADS_LAUNCHES["many"],
        _QWEN3 | {"BLOCK_D": 64},
    ),
    Build(
        "split_heads_qwen2",
        split_heads_kernel,
        _HEADS,
        HEADS_LAUNCHES["few"],
        _QWEN2 | {"BLOCK_D": 64},
    ),
    Build(
        "split_heads_smollm",
        split_heads_kernel,
        _HEADS,
        HEADS_LAUNCHES["few"],
        _SMOLLM | {"BLOCK_D": 32},
    ),
)
