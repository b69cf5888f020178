"""``linear`` and ``norm_linear``: a few rows at the speed of memory, many on tensor cores."""

import torch

from hga_kernels.gpu.linear.gemm import gemm, is_quantizing
from hga_kernels.gpu.linear.gemv import MAX_ROWS, gemv, takes
from hga_kernels.gpu.linear.norm import quantize, rms_norm
from hga_kernels.gpu.linear.unpack import unpack
from hga_kernels.weights import BlockScaled, Packed, RowParts, Weight


def linear(
    inputs: torch.Tensor,
    weight: Weight,
    out_dtype: torch.dtype | None = None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """See ``reference.linear``: rows are rounded to bf16; the residual is added before rounding."""
    return _linear(inputs, None, 0.0, weight, out_dtype, residual)


def norm_linear(
    inputs: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: Weight,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor | None:
    """See ``reference.norm_linear``: normed rows are rounded to bf16.

    For packed weights, few rows are rounded to 16 bits instead, with a scale per 32 columns. With
    bf16 or FP8 weights, few rows are normalised by every program.
    """
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
    if isinstance(weight, Packed | RowParts):
        # Normalised once for all programs, which would take longer over it than over the product.
        in_limbs = norm is not None and inputs.shape[0] <= MAX_ROWS
        inputs, norm = normed_rows(inputs, norm, eps, in_limbs), None
    if inputs.shape[0] <= MAX_ROWS:
        return gemv(inputs, norm, eps, weight, out_dtype, residual)
    weight = unpacked(weight)
    inputs, scales = prepare(inputs, norm, eps, weight)
    shape = (inputs.shape[0], weight.shape[0])
    out = torch.empty(shape, dtype=out_dtype, device=inputs.device)
    return gemm(inputs, scales, weight, out, None if residual is None else residual.contiguous())


def unpacked(weight: Weight) -> torch.Tensor | BlockScaled:
    """Return a weight as ``gemm`` takes it: a packed one in bf16."""
    return unpack(weight) if isinstance(weight, Packed | RowParts) else weight


def normed_rows(
    inputs: torch.Tensor, norm: torch.Tensor | None, eps: float, in_limbs: bool = False
) -> torch.Tensor:
    """Return contiguous rows rounded to bf16, normalised first if a norm is given.

    Normed rows may be had in limbs instead, see ``rms_norm``.
    """
    if norm is None:
        return inputs.to(torch.bfloat16).contiguous()
    return rms_norm(inputs, norm, eps, in_limbs)


def prepare(
    inputs: torch.Tensor, norm: torch.Tensor | None, eps: float, weight: Weight
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Prepare rows for ``gemm``: normalise them if asked, and round them to e4m3 if it needs that.

    Returns:
        [rows, in], and their scales, None for bf16 rows.
    """
    if is_quantizing(weight, inputs.device):
        return quantize(inputs, norm, eps)
    return normed_rows(inputs, norm, eps), None
