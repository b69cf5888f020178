"""Row-wise steps of a layer in C: linear, RMS norm, split heads, gated SiLU.

Each function has the signature of its namesake in ``reference``, which describes it, and returns
None for tensors it does not take.
"""

import torch

from hga_kernels.arguments import Angles, HeadWeights
from hga_kernels.cpu import packed
from hga_kernels.cpu.library import call, takes
from hga_kernels.weights import Packed, RowParts, Weight

_MAX_LINEAR_ROWS = 16
"""With more rows, torch's matrix product reads the weight less often than ours."""
_MAX_HEAD_DIM = 512
_DTYPES = (torch.bfloat16, torch.float32)
"""Of rows."""


def linear(
    inputs: torch.Tensor,
    weight: Weight,
    out_dtype: torch.dtype | None = None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Read the weight once for all rows, which must be few."""
    if isinstance(weight, Packed | RowParts):
        return packed.linear(inputs, weight, out_dtype, residual)
    rows, size_in = inputs.shape
    out_dtype = out_dtype or inputs.dtype
    if rows > _MAX_LINEAR_ROWS or not isinstance(weight, torch.Tensor):
        return None
    if not takes(torch.bfloat16, inputs, weight):
        return None
    if not weight.is_contiguous() or out_dtype not in (torch.bfloat16, torch.float32):
        return None
    out = torch.empty(rows, weight.shape[0], dtype=out_dtype)
    is_float = int(out_dtype == torch.float32)
    inputs = inputs.contiguous()
    call("hga_linear", inputs, weight, out, rows, size_in, weight.shape[0], is_float)
    return out if residual is None else (residual + out).to(out_dtype)


def rms_norm(inputs: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor | None:
    """Take one pass over the rows."""
    if inputs.dtype not in _DTYPES or not takes(inputs.dtype, inputs, weight):
        return None
    inputs, size = inputs.contiguous(), inputs.shape[-1]
    out = torch.empty_like(inputs)
    is_float = int(inputs.dtype == torch.float32)
    call("hga_rms_norm", inputs, weight, out, inputs.numel() // size, size, is_float, float(eps))
    return out


def split_heads(
    heads: torch.Tensor,
    weights: HeadWeights,
    angles: Angles,
    num_query_heads: int,
    num_kv_heads: int,
    out_dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Take one pass over the rows."""
    rows, dim = heads.shape[0], heads.shape[1] // (num_query_heads + 2 * num_kv_heads)
    wide = [t for t in (weights.bias, weights.key_shift, angles.cos, angles.sin) if t is not None]
    norms = [t for t in (weights.q_norm, weights.k_norm) if t is not None]
    norm_dtype = norms[0].dtype if norms else torch.float32
    if heads.dtype not in _DTYPES or norm_dtype not in _DTYPES or dim > _MAX_HEAD_DIM or dim % 2:
        return None
    if not (
        takes(heads.dtype, heads) and takes(torch.float32, *wide) and takes(norm_dtype, *norms)
    ):
        return None
    if not all(t.is_contiguous() for t in (*wide, *norms)):
        return None
    outs = tuple(
        torch.empty(rows, count, dim, dtype=heads.dtype)
        for count in (num_query_heads, num_kv_heads, num_kv_heads)
    )
    call(
        "hga_split_heads",
        heads.contiguous(),
        weights.bias,
        weights.q_norm,
        weights.k_norm,
        angles.cos,
        angles.sin,
        weights.key_shift,
        *outs,
        rows,
        num_query_heads,
        num_kv_heads,
        dim,
        int(heads.dtype == torch.float32),
        int(norm_dtype == torch.float32),
        float(weights.eps),
    )
    queries, keys, values = (out.to(out_dtype or heads.dtype) for out in outs)
    return queries, keys, values


def gated_silu(inputs: torch.Tensor) -> torch.Tensor | None:
    """Take one pass over the rows."""
    if inputs.dtype not in _DTYPES or not takes(inputs.dtype, inputs):
        return None
    rows, size = inputs.shape[0], inputs.shape[1] // 2
    out = torch.empty(rows, size, dtype=inputs.dtype)
    is_float = int(inputs.dtype == torch.float32)
    call("hga_gated_silu", inputs.contiguous(), out, rows, size, is_float)
    return out
