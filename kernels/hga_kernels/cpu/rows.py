"""Row-wise steps of a layer in C: linear, RMS norm, RoPE, gated SiLU.

Each function has the signature of its namesake in ``reference``, which describes it, and returns
None for tensors it does not take.
"""

import torch

from hga_kernels.cpu import packed
from hga_kernels.cpu.library import call, takes
from hga_kernels.weights import Packed, RowParts, Weight

_MAX_LINEAR_ROWS = 16
"""With more rows, torch's matrix product reads the weight less often than ours."""


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
    if not takes(torch.bfloat16, inputs, weight):
        return None
    inputs, size = inputs.contiguous(), inputs.shape[-1]
    out = torch.empty_like(inputs)
    call("hga_rms_norm", inputs, weight, out, inputs.numel() // size, size, float(eps))
    return out


def rotate(
    inputs: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int
) -> torch.Tensor | None:
    """Take one pass over the rows."""
    if not takes(torch.bfloat16, inputs) or not takes(torch.float32, cos, sin):
        return None
    rows, _, dim = inputs.shape
    if inputs.stride()[1:] != (dim, 1):
        return None
    out = torch.empty(rows, heads, dim, dtype=torch.bfloat16)
    cos, sin = cos.contiguous(), sin.contiguous()
    call("hga_rotate", inputs, cos, sin, out, rows, heads, dim, inputs.stride(0))
    return out


def gated_silu(inputs: torch.Tensor) -> torch.Tensor | None:
    """Take one pass over the rows."""
    if not takes(torch.bfloat16, inputs):
        return None
    rows, size = inputs.shape[0], inputs.shape[1] // 2
    out = torch.empty(rows, size, dtype=torch.bfloat16)
    call("hga_gated_silu", inputs.contiguous(), out, rows, size)
    return out
