"""Where weights come from, and how they become the tensors a decoder computes with."""

from collections.abc import Callable
from typing import Protocol

import torch

from hga_engine.config import ModelConfig
from hga_engine.model.types import LayerWeights, ModelWeights


class TensorSource(Protocol):
    """Tensors of a model under the names of Hugging Face checkpoints, read one at a time."""

    @property
    def config(self) -> ModelConfig:
        """Geometry of the model."""

    def read(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A tensor of any floating dtype; it may share memory with the file.

        Raises:
            ModelFileError: it is missing, damaged, of another shape or of an unknown kind.
        """


def assemble(
    source: TensorSource,
    dtype: torch.dtype,
    progress: Callable[[str, float], None] | None = None,
) -> ModelWeights:
    """Read all weights, converting each tensor as it comes.

    Args:
        source: of the tensors.
        dtype: of the result.
        progress: told what is being done and how far, 0 to 1.

    Raises:
        ModelFileError: a tensor is missing or damaged.
    """
    config = source.config
    reader = _Reader(source, dtype)
    head_shape = (config.vocab_size, config.hidden_size)
    embedding = reader.stack(["model.embed_tokens.weight"], head_shape)
    layers = []
    for layer in range(config.num_layers):
        layers.append(_layer(reader, config, layer))
        if progress is not None:
            progress("Loading weights", (layer + 1) / config.num_layers)
    final_norm = reader.stack(["model.norm.weight"], (config.hidden_size,))
    lm_head = embedding if config.tie_embeddings else reader.stack(["lm_head.weight"], head_shape)
    return ModelWeights(config, embedding, tuple(layers), final_norm, lm_head)


class _Reader:
    def __init__(self, source: TensorSource, dtype: torch.dtype) -> None:
        self._source = source
        self._dtype = dtype

    def stack(self, names: list[str], *shapes: tuple[int, ...]) -> torch.Tensor:
        """The named tensors one below the other, in memory of their own."""
        read = self._source.read
        parts = [
            read(name, shape).to(self._dtype, copy=True)
            for name, shape in zip(names, shapes, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _layer(reader: _Reader, config: ModelConfig, layer: int) -> LayerWeights:
    prefix = f"model.layers.{layer}."
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    hidden, dim = config.hidden_size, config.head_dim
    queries, keys = config.num_query_heads * dim, config.num_kv_heads * dim

    def norm(name: str, size: int) -> torch.Tensor:
        return reader.stack([name], (size,))

    expert_gate = None
    if config.has_experts(layer):
        # Read first: it shows that the number of experts is right before memory is taken for them.
        expert_gate = reader.stack([mlp + "gate.weight"], (config.num_experts, hidden))
        gate_up, down = _experts(reader, config, mlp)
    else:
        width = config.intermediate_size
        gate_up = reader.stack(
            [mlp + "gate_proj.weight", mlp + "up_proj.weight"], (width, hidden), (width, hidden)
        )
        down = reader.stack([mlp + "down_proj.weight"], (hidden, width))
    return LayerWeights(
        attention_norm=norm(prefix + "input_layernorm.weight", hidden),
        qkv=reader.stack(
            [f"{attention}{part}_proj.weight" for part in "qkv"],
            (queries, hidden),
            (keys, hidden),
            (keys, hidden),
        ),
        output=reader.stack([attention + "o_proj.weight"], (hidden, queries)),
        mlp_norm=norm(prefix + "post_attention_layernorm.weight", hidden),
        gate_up=gate_up,
        down=down,
        q_norm=norm(attention + "q_norm.weight", dim) if config.has_qk_norm else None,
        k_norm=norm(attention + "k_norm.weight", dim) if config.has_qk_norm else None,
        expert_gate=expert_gate,
    )


def _experts(
    reader: _Reader, config: ModelConfig, prefix: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """gate_up [experts, 2 * width, hidden] and down [experts, hidden, width]."""
    hidden, width = config.hidden_size, config.expert_intermediate_size
    gate_up = down = torch.empty(0)
    for expert in range(config.num_experts):
        base = f"{prefix}experts.{expert}."
        names = [base + "gate_proj.weight", base + "up_proj.weight"]
        first = reader.stack(names, (width, hidden), (width, hidden))
        second = reader.stack([base + "down_proj.weight"], (hidden, width))
        if expert == 0:
            gate_up = first.new_empty(config.num_experts, *first.shape)
            down = second.new_empty(config.num_experts, *second.shape)
        gate_up[expert], down[expert] = first, second
    return gate_up, down
