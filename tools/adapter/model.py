"""The base model and its adapter in plain torch, for training and measuring.

SmolLM2-135M has the llama architecture; the product's GGUF reader loads its weights.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from hga_engine.config import ModelConfig
from hga_engine.model.gguf import GgufSource
from hga_engine.model.gguf_file import open_gguf
from hga_engine.model.layout import model_layout
from hga_engine.model.source import TensorSource

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANKS = dict.fromkeys(MODULES[:4], 48) | dict.fromkeys(MODULES[4:], 24)
"""Attention has to reach far, so it may change more than the rest. 10.1 MB in int8."""
ROPE_BASE = 100_000 * 16 ** (64 / 62)
"""NTK-aware: the slowest frequency becomes 16 times slower, the fastest stays."""

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")
Tensors = Mapping[str, torch.Tensor]
Cache = list[tuple[torch.Tensor, torch.Tensor]]
Watch = Callable[[torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class BaseModel:
    """Weights under short names: ``{layer}.{module}``, ``{layer}.norm``, ``{layer}.mlp_norm``."""

    config: ModelConfig
    weights: Tensors
    """float32, as they are stored."""
    rounded: Tensors
    """In the type that is computed with."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.weights["embedding"].device


_SHORT = {"input_layernorm": "norm", "post_attention_layernorm": "mlp_norm"}


def load_base(gguf: Path, device: torch.device, dtype: torch.dtype) -> BaseModel:
    """Load the base model from its GGUF file, with weights rounded to ``dtype``."""
    return to_base(GgufSource(open_gguf(gguf)), device, dtype)


def to_base(source: TensorSource, device: torch.device, dtype: torch.dtype) -> BaseModel:
    """Load a model of the llama architecture with tied embeddings."""
    layout = model_layout(source.config)
    parts = {
        "embedding": layout.embedding.stacks[0][0],
        "final_norm": layout.final_norm.stacks[0][0],
    }
    for number, layer in enumerate(layout.layers):
        for part in (part for joined in layer.values() for part in joined.stacks[0]):
            name = part.name.split(".")[-2]
            parts[f"{number}.{_SHORT.get(name, name)}"] = part
    weights = {
        name: source.read(part.name, part.shape).float().to(device) for name, part in parts.items()
    }
    rounded = {name: tensor.to(dtype) for name, tensor in weights.items()}
    return BaseModel(source.config, weights, rounded)


def new_adapter(base: BaseModel, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return factors ``{layer}.{module}.{a,b}`` that change nothing yet: b is zero."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for layer in range(base.config.num_layers):
        for module in MODULES:
            rows, columns = base.weights[f"{layer}.{module}"].shape
            rank = min(RANKS[module], rows, columns)
            a = (torch.rand(rank, columns, generator=generator) * 2 - 1) / columns**0.5
            factors[f"{layer}.{module}.a"] = a.to(base.device)
            factors[f"{layer}.{module}.b"] = torch.zeros(rows, rank, device=base.device)
    return factors


def merge(base: BaseModel, factors: Tensors) -> Tensors:
    """Return weights with ``b @ a`` added in float32 and then rounded, as the product does."""
    merged = dict(base.rounded)
    for name in {name.rpartition(".")[0] for name in factors}:
        whole = torch.addmm(base.weights[name], factors[f"{name}.b"], factors[f"{name}.a"])
        merged[name] = whole.to(base.rounded[name].dtype)
    return merged


def angles(
    config: ModelConfig, positions: torch.Tensor, rope_base: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 cosines and sines [tokens, head_dim / 2] of RoPE."""
    powers = torch.arange(0, config.head_dim, 2, dtype=torch.float64, device=positions.device)
    angles = torch.outer(positions.double(), rope_base ** -(powers / config.head_dim))
    return angles.cos().float(), angles.sin().float()


class Network:
    """The decoder, at one RoPE base."""

    def __init__(
        self,
        config: ModelConfig,
        rope_base: float,
        backends: list[SDPBackend] | None = None,
        *,
        saves_memory: bool = False,
    ) -> None:
        """Create the decoder.

        Args:
            config: geometry.
            rope_base: of the rotation.
            backends: of attention over whole sequences, the best first; None: torch's choice.
            saves_memory: recompute all but attention in the backward pass.
        """
        self._config = config
        self._rope_base = rope_base
        self._backends = backends
        self._saves_memory = saves_memory
        self._angles: tuple[torch.Tensor, torch.Tensor] | None = None

    def hidden(
        self,
        weights: Tensors,
        token_ids: torch.Tensor,
        cache: Cache | None = None,
        watch: Watch | None = None,
    ) -> torch.Tensor:
        """Return normalized hidden states after the last layer.

        Args:
            weights: as ``BaseModel.rounded``.
            token_ids: [batch, tokens].
            cache: keys and values of the tokens before, a layer each; extended.
            watch: called with queries and keys of every layer.

        Returns:
            [batch, tokens, hidden].
        """
        past = cache[0][0].shape[2] if cache else 0
        cos, sin = self._rotation(past + token_ids.shape[1], token_ids.device)
        rotation = cos[past:], sin[past:]
        hidden = functional.embedding(token_ids, weights["embedding"])
        for layer in range(self._config.num_layers):
            named = {name: weights[f"{layer}.{name}"] for name in (*MODULES, "norm", "mlp_norm")}
            queries, keys, values = self._segment(self._project, hidden, named, *rotation)
            if cache is not None:
                if len(cache) > layer:
                    keys = torch.cat([cache[layer][0], keys], 2)
                    values = torch.cat([cache[layer][1], values], 2)
                    cache[layer] = keys, values
                else:
                    cache.append((keys, values))
            if watch is not None:
                watch(queries, keys)
            attended = self._attend(queries, keys, values)
            hidden = self._segment(self._finish, hidden, named, attended)
        return self._normed(hidden, weights["final_norm"])

    def _rotation(self, end: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        if self._angles is None or self._angles[0].shape[0] < end:
            self._angles = angles(self._config, torch.arange(end, device=device), self._rope_base)
        return self._angles[0][:end], self._angles[1][:end]

    def _segment(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        if self._saves_memory and torch.is_grad_enabled():
            result: Result = checkpoint(function, *arguments, use_reentrant=False)
            return result
        return function(*arguments)

    def _normed(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(hidden, (hidden.shape[-1],), weight, self._config.rms_norm_eps)

    def _project(
        self, hidden: torch.Tensor, named: Tensors, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return queries, keys and values [batch, heads, tokens, head_dim]."""
        normed = self._normed(hidden, named["norm"])
        heads = [
            functional.linear(normed, named[name]).unflatten(-1, (-1, self._config.head_dim))
            for name in MODULES[:3]
        ]
        queries, keys = (_rotate(part, cos, sin).transpose(1, 2) for part in heads[:2])
        return queries, keys, heads[2].transpose(1, 2)

    def _attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        new, known = queries.shape[2], keys.shape[2]
        if new == known:
            chosen: AbstractContextManager[object] = nullcontext()
            if self._backends is not None:
                chosen = sdpa_kernel(self._backends, set_priority=True)
            with chosen:
                return functional.scaled_dot_product_attention(
                    queries, keys, values, is_causal=True, enable_gqa=True
                )
        mask = torch.ones(new, known, dtype=torch.bool, device=keys.device).tril(known - new)
        return functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, enable_gqa=True
        )

    def _finish(self, hidden: torch.Tensor, named: Tensors, attended: torch.Tensor) -> torch.Tensor:
        hidden = hidden + functional.linear(attended.transpose(1, 2).flatten(2), named["o_proj"])
        normed = self._normed(hidden, named["mlp_norm"])
        gated = functional.silu(functional.linear(normed, named["gate_proj"])) * functional.linear(
            normed, named["up_proj"]
        )
        return hidden + functional.linear(gated, named["down_proj"])


def _rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply RoPE to the two halves of each head, [batch, tokens, heads, head_dim]."""
    first, second = heads.float().chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
    return turned.to(heads.dtype)
