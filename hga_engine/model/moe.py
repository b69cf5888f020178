"""Mixture of experts as in Qwen3-MoE, in plain torch."""

import torch
from hga_kernels import linear
from torch.nn import functional


def mix_experts(
    inputs: torch.Tensor,
    expert_gate: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    experts_per_token: int,
    normalize: bool,
) -> torch.Tensor:
    """Each token through its best experts, weighted by the softmax of the gate.

    Args:
        inputs: [tokens, hidden].
        expert_gate: [experts, hidden].
        gate_up: [experts, 2 * width, hidden].
        down: [experts, hidden, width].
        experts_per_token: experts a token goes through.
        normalize: whether the weights of the chosen experts are scaled to sum to one
            (``norm_topk_prob``).

    Returns:
        [tokens, hidden].
    """
    wide = torch.promote_types(inputs.dtype, torch.float32)
    shares = linear(inputs, expert_gate, wide).softmax(-1)
    weights, experts = shares.topk(experts_per_token, -1)
    if normalize:
        weights = weights / weights.sum(-1, keepdim=True)
    mixed = torch.zeros_like(inputs, dtype=wide)
    # Assignments sorted by expert, so that each expert's weights are read once.
    order = experts.flatten().argsort(stable=True)
    counts = experts.flatten().bincount(minlength=expert_gate.shape[0]).tolist()
    for expert, assigned in enumerate(torch.split(order, counts)):
        if not assigned.numel():
            continue
        tokens = assigned // experts_per_token
        gate, up = linear(inputs[tokens], gate_up[expert]).chunk(2, -1)
        out = linear(functional.silu(gate) * up, down[expert], wide)
        mixed.index_add_(0, tokens, out * weights.flatten()[assigned].unsqueeze(1))
    return mixed.to(inputs.dtype)
