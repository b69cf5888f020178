"""Weights of a decoder as the engine holds them."""

from dataclasses import dataclass

import torch

from hga_engine.config import ModelConfig


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer. Linear weights are [out, in]."""

    attention_norm: torch.Tensor  # [hidden]
    qkv: torch.Tensor  # [(query_heads + 2 * kv_heads) * head_dim, hidden]: rows of q, k, v
    output: torch.Tensor  # [hidden, query_heads * head_dim]
    mlp_norm: torch.Tensor  # [hidden]
    gate_up: torch.Tensor  # [2 * intermediate, hidden], or [experts, 2 * width, hidden]
    down: torch.Tensor  # [hidden, intermediate], or [experts, hidden, width]
    q_norm: torch.Tensor | None = None  # [head_dim]
    k_norm: torch.Tensor | None = None  # [head_dim]
    expert_gate: torch.Tensor | None = None  # [experts, hidden]


@dataclass(frozen=True)
class ModelWeights:
    """All weights of a decoder."""

    config: ModelConfig
    embedding: torch.Tensor  # [vocab, hidden]
    layers: tuple[LayerWeights, ...]
    final_norm: torch.Tensor  # [hidden]
    lm_head: torch.Tensor  # [vocab, hidden]; the embedding itself where they are tied

    def bytes(self) -> int:
        """Memory the weights take, counting tied tensors once."""
        tensors = {self.embedding.data_ptr(): self.embedding, self.lm_head.data_ptr(): self.lm_head}
        tensors[self.final_norm.data_ptr()] = self.final_norm
        for layer in self.layers:
            for tensor in vars(layer).values():
                if tensor is not None:
                    tensors[tensor.data_ptr()] = tensor
        return sum(t.numel() * t.element_size() for t in tensors.values())
