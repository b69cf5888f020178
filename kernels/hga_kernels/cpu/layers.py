"""Parts of a layer on the CPU: compiled kernels where they fit, torch elsewhere."""

import torch
from torch.nn import functional

from hga_kernels import reference
from hga_kernels.cpu import packed, rows
from hga_kernels.dispatch import dispatch
from hga_kernels.weights import Packed, RowParts, Weight

_linear = dispatch(reference.linear, rows.linear)
_rms_norm = dispatch(reference.rms_norm, rows.rms_norm)
_gated_silu = dispatch(reference.gated_silu, rows.gated_silu)


def norm_linear(
    inputs: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: Weight,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """See the reference."""
    if isinstance(weight, Packed | RowParts):
        out = packed.linear(inputs, weight, out_dtype, norm=norm, eps=eps)
        if out is not None:
            return out
    return _linear(_rms_norm(inputs, norm, eps), weight, out_dtype)


def mlp(
    hidden: torch.Tensor, norm: torch.Tensor, eps: float, gate_up: Weight, down: Weight
) -> torch.Tensor:
    """See the reference."""
    if isinstance(gate_up, Packed | RowParts) and isinstance(down, Packed | RowParts):
        out = packed.mlp(hidden, norm, eps, gate_up, down)
        if out is not None:
            return out
    gate_and_up = norm_linear(hidden, norm, eps, gate_up)
    if isinstance(down, Packed | RowParts):
        out = packed.linear(gate_and_up, down, residual=hidden, is_gated=True)
        if out is not None:
            return out
    return _linear(_gated_silu(gate_and_up), down, residual=hidden)


def experts(
    hidden: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    expert_gate: torch.Tensor,
    gate_up: Weight,
    down: Weight,
    experts_per_token: int,
    normalize: bool,
) -> torch.Tensor:
    """Run a few rows' packed experts in one call, others one after another on their rows."""
    normed = _rms_norm(hidden, norm, eps)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    shares = _linear(normed, expert_gate, wide).softmax(-1)
    weights, chosen = shares.topk(experts_per_token, -1)
    if normalize:
        weights = weights / weights.sum(-1, keepdim=True)
    if isinstance(down, Packed | RowParts):
        out = packed.experts(hidden, norm, eps, chosen, weights, gate_up, down)
        if out is not None:
            return out
    mixed = torch.zeros_like(hidden, dtype=wide)
    # Assignments sorted by expert, so that each expert's weights are read once.
    order = chosen.flatten().argsort(stable=True)
    counts = chosen.flatten().bincount(minlength=expert_gate.shape[0]).tolist()
    for expert, assigned in enumerate(torch.split(order, counts)):
        if not assigned.numel():
            continue
        tokens = assigned // experts_per_token
        gate, up = _linear(normed[tokens], gate_up[expert]).chunk(2, -1)
        out = _linear(functional.silu(gate) * up, down[expert], wide)
        mixed.index_add_(0, tokens, out * weights.flatten()[assigned].unsqueeze(1))
    return hidden + mixed.to(hidden.dtype)
