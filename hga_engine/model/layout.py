"""The checkpoint tensors that make up each of the decoder's tensors."""

from collections.abc import Iterator
from dataclasses import dataclass

from hga_engine.config import ModelConfig


@dataclass(frozen=True)
class Part:
    """A tensor of a checkpoint, by its Hugging Face name."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Joined:
    """A tensor of the decoder: parts concatenated by rows, stacked over experts if it has any."""

    stacks: tuple[tuple[Part, ...], ...]
    """The parts to concatenate, once or once for each expert."""
    has_experts: bool = False
    is_linear: bool = False
    """Whether it is a linear weight, which FP8 checkpoints quantise."""
    is_table: bool = False
    """Whether it is the embedding or the output head, which GGUF files quantise too."""
    is_bias: bool = False
    """Whether it is a bias, which the decoder holds in float32."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor: [rows, in], [experts, rows, in] or, for norms, [size]."""
        parts = self.stacks[0]
        joined = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        return (len(self.stacks), *joined) if self.has_experts else joined


@dataclass(frozen=True)
class ModelLayout:
    """Layout of all weights, named as in ``ModelWeights`` and ``LayerWeights``."""

    embedding: Joined
    layers: tuple[dict[str, Joined], ...]
    final_norm: Joined
    lm_head: Joined | None
    """None if the embedding is the output head."""

    def all(self) -> Iterator[Joined]:
        """Yield every tensor once."""
        yield self.embedding
        for layer in self.layers:
            yield from layer.values()
        yield self.final_norm
        if self.lm_head is not None:
            yield self.lm_head


def model_layout(config: ModelConfig) -> ModelLayout:
    """Return the layout of a Hugging Face checkpoint with this geometry."""
    table = (config.vocab_size, config.hidden_size)
    return ModelLayout(
        embedding=_table("model.embed_tokens.weight", *table),
        layers=tuple(_layer(config, layer) for layer in range(config.num_layers)),
        final_norm=_single("model.norm.weight", config.hidden_size),
        lm_head=None if config.tie_embeddings else _table("lm_head.weight", *table),
    )


def _single(name: str, *shape: int) -> Joined:
    return Joined(((Part(name, shape),),))


def _table(name: str, *shape: int) -> Joined:
    return Joined(((Part(name, shape),),), is_table=True)


def _linear(*parts: Part) -> Joined:
    return Joined((parts,), is_linear=True)


def _layer(config: ModelConfig, layer: int) -> dict[str, Joined]:
    prefix = f"model.layers.{layer}."
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    hidden, dim = config.hidden_size, config.head_dim
    queries, keys = config.num_query_heads * dim, config.num_kv_heads * dim
    found = {
        "attention_norm": _single(prefix + "input_layernorm.weight", hidden),
        "qkv": _linear(
            Part(attention + "q_proj.weight", (queries, hidden)),
            Part(attention + "k_proj.weight", (keys, hidden)),
            Part(attention + "v_proj.weight", (keys, hidden)),
        ),
        "output": _linear(Part(attention + "o_proj.weight", (hidden, queries))),
        "mlp_norm": _single(prefix + "post_attention_layernorm.weight", hidden),
    }
    if config.traits.has_qkv_bias:
        rows = {"q": queries, "k": keys, "v": keys}
        parts = (Part(f"{attention}{part}_proj.bias", (size,)) for part, size in rows.items())
        found["qkv_bias"] = Joined((tuple(parts),), is_bias=True)
    if config.traits.has_qk_norm:
        found["q_norm"] = _single(attention + "q_norm.weight", dim)
        found["k_norm"] = _single(attention + "k_norm.weight", dim)
    if config.has_experts(layer):
        # The gate comes first: its shape confirms the number of experts before they take memory.
        found["expert_gate"] = _single(mlp + "gate.weight", config.num_experts, hidden)
        each = [
            _mlp(f"{mlp}experts.{expert}.", hidden, config.expert_intermediate_size)
            for expert in range(config.num_experts)
        ]
        found["gate_up"] = Joined(
            tuple(gate_up for gate_up, _ in each), has_experts=True, is_linear=True
        )
        found["down"] = Joined(tuple(down for _, down in each), has_experts=True, is_linear=True)
    else:
        gate_up, down = _mlp(mlp, hidden, config.intermediate_size)
        found |= {"gate_up": _linear(*gate_up), "down": _linear(*down)}
    return found


def _mlp(prefix: str, hidden: int, width: int) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    gate, up = (Part(f"{prefix}{part}_proj.weight", (width, hidden)) for part in ("gate", "up"))
    return (gate, up), (Part(prefix + "down_proj.weight", (hidden, width)),)
