"""Weights of a decoder as the engine holds them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from hga_engine.config import ModelConfig
from hga_kernels import BlockScaled, Packed, RowParts, Weight

__all__ = ["LayerWeights", "ModelWeights", "Weight", "map_tensors", "tensors_of"]

AnyWeight = TypeVar("AnyWeight", torch.Tensor, torch.Tensor | Packed, Weight)


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer. Linear weights are [out, in]."""

    attention_norm: torch.Tensor  # [hidden]
    qkv: Weight  # [(query_heads + 2 * kv_heads) * head_dim, hidden]: rows of q, k, v
    output: Weight  # [hidden, query_heads * head_dim]
    mlp_norm: torch.Tensor  # [hidden]
    gate_up: Weight  # [2 * intermediate, hidden], or [experts, 2 * width, hidden]
    down: Weight  # [hidden, intermediate], or [experts, hidden, width]
    q_norm: torch.Tensor | None = None  # [head_dim]
    k_norm: torch.Tensor | None = None  # [head_dim]
    expert_gate: torch.Tensor | None = None  # [experts, hidden]
    qkv_bias: torch.Tensor | None = None  # [rows of qkv] float32


@dataclass(frozen=True)
class ModelWeights:
    """All weights of a decoder.

    They are on one device, except that on a GPU an embedding that is not also the output head is in
    pinned host memory.
    """

    config: ModelConfig
    embedding: torch.Tensor | Packed  # [vocab, hidden]
    layers: tuple[LayerWeights, ...]
    final_norm: torch.Tensor  # [hidden]
    lm_head: Weight  # [vocab, hidden]; the embedding itself if they are tied
    notes: tuple[str, ...] = ()
    """What a person should know of how the weights are held, in sentences."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of hidden states."""
        return self.final_norm.dtype

    @property
    def device(self) -> torch.device:
        """The device that computes."""
        return self.final_norm.device

    def bytes(self) -> int:
        """Bytes of all weights, counting tied tensors once."""
        return self.device_bytes() + self.host_bytes()

    def device_bytes(self) -> int:
        """Bytes of the weights in GPU memory."""
        return sum(t.numel() * t.element_size() for t in self.tensors() if not t.is_cpu)

    def host_bytes(self) -> int:
        """Bytes of the weights in host memory."""
        return sum(t.numel() * t.element_size() for t in self.tensors() if t.is_cpu)

    def kinds(self) -> set[str]:
        """Types and block formats of the weights."""
        return {kind for weight in self._weights() for kind in _kinds(weight)}

    def tensors(self) -> Iterator[torch.Tensor]:
        """Yield all tensors, tied ones once."""
        for weight in self._weights():
            yield from tensors_of(weight)

    def _weights(self) -> Iterator[Weight]:
        yield self.embedding
        if self.lm_head is not self.embedding:
            yield self.lm_head
        yield self.final_norm
        for layer in self.layers:
            for weight in vars(layer).values():
                if weight is not None:
                    yield weight


def _kinds(weight: Weight) -> Iterator[str]:
    if isinstance(weight, RowParts):
        for part in weight.parts:
            yield from _kinds(part)
    elif isinstance(weight, Packed):
        yield weight.format
    else:
        yield from (str(tensor.dtype) for tensor in tensors_of(weight))


def map_tensors(weight: AnyWeight, change: Callable[[torch.Tensor], torch.Tensor]) -> AnyWeight:
    """Return a weight of the same kind whose tensors are changed."""
    if isinstance(weight, BlockScaled):
        return BlockScaled(change(weight.values), change(weight.scales))
    if isinstance(weight, Packed):
        return replace(weight, data=change(weight.data))
    if isinstance(weight, RowParts):
        return RowParts(tuple(map_tensors(part, change) for part in weight.parts))
    return change(weight)


def tensors_of(weight: Weight) -> Iterator[torch.Tensor]:
    """Yield the tensors that hold a weight."""
    if isinstance(weight, torch.Tensor):
        yield weight
    else:
        yield from weight.tensors
