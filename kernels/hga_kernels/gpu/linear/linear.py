"""``linear`` and ``norm_linear``: a few rows at the speed of memory, many on tensor cores."""

import torch

from hga_kernels.gpu.linear.gemm import gemm, is_quantizing
from hga_kernels.gpu.linear.gemv import MOST_ROWS, gemv, takes
from hga_kernels.gpu.linear.norm import quantize, rms_norm
from hga_kernels.weights import Weight


def linear(
    inputs: torch.Tensor,
    weight: Weight,
    out_dtype: torch.dtype | None = None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """bf16 rows; the residual is added before rounding."""
    return _linear(inputs, None, 0.0, weight, out_dtype, residual)


def norm_linear(
    inputs: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: Weight,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor | None:
    """bf16 rows; of a few, every program normalises them itself."""
    return _linear(inputs, norm, eps, weight, out_dtype, None)


def _linear(
    inputs: torch.Tensor,
    norm: torch.Tensor | None,
    eps: float,
    weight: Weight,
    out_dtype: torch.dtype | None,
    residual: torch.Tensor | None,
) -> torch.Tensor | None:
    out_dtype = out_dtype or inputs.dtype
    if not takes(inputs, weight):
        return None
    if inputs.shape[0] <= MOST_ROWS:
        return gemv(inputs, norm, eps, weight, out_dtype, residual)
    inputs, scales = prepare(inputs, norm, eps, weight)
    shape = (inputs.shape[0], weight.shape[0])
    out = torch.empty(shape, dtype=out_dtype, device=inputs.device)
    return gemm(inputs, scales, weight, out, None if residual is None else residual.contiguous())


def prepare(
    inputs: torch.Tensor, norm: torch.Tensor | None, eps: float, weight: Weight
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows as ``gemm`` takes them: normalised if asked, and rounded to e4m3 where that is done.

    Returns:
        [rows, in] and the scales, or None.
    """
    if is_quantizing(weight, inputs.device):
        return quantize(inputs, norm, eps)
    return inputs.contiguous() if norm is None else rms_norm(inputs, norm, eps), None
