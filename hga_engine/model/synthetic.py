"""Random weights for any geometry, to measure speed and memory without a checkpoint."""

import math
import re
from dataclasses import dataclass
from typing import Literal

import torch

from hga_engine.config import ModelConfig
from hga_engine.model.layout import Joined
from hga_engine.model.packing import pack
from hga_engine.model.placement import (
    allocate,
    arranged,
    lock_embedding,
    planned,
    planned_fp8,
    planned_packed,
    planned_weights,
)
from hga_engine.model.types import ModelWeights, Weight
from hga_kernels import BlockScaled, Packed, RowParts

WeightKind = Literal["bf16", "fp8", "q4_k_m"]
_AT_A_TIME = 1 << 24
"""Elements drawn at a time: 64 MiB in float32."""
_LARGEST = 448.0
"""Largest e4m3 value."""
_SPREAD = _LARGEST / 4
"""Standard deviation of e4m3 values: the largest of a block's 16,384 is about four of them."""


@dataclass(frozen=True)
class Topics:
    """Topics that tokens share, so that random weights select with locality.

    Token ``i`` has topic ``i % count``. Its embedding and its row of the output head are a mix of
    the topic's direction and one of its own. Neighbouring tokens of a stream that stays on a topic
    then select the same pages and experts, and generated tokens stay on the topic too. Of the
    groups that a decoded token selected, 63% had been selected by the token before, against 75% for
    smollm2-64k on text and 14% for random weights without topics (8K tokens, 64 of about 470
    groups); of the experts 62%, against 13% without topics. Which pages they are, and how
    concentrated attention is in them, stays random.
    """

    count: int = 64
    share: float = 0.9
    """Share of an embedding's squared length that comes from the topic."""
    run_tokens: int = 256
    """Mean number of tokens that a stream stays on a topic."""


def synthetic_weights(
    config: ModelConfig,
    kind: WeightKind,
    device: torch.device,
    seed: int = 0,
    topics: Topics | None = None,
) -> ModelWeights:
    """Draw weights on their device, the same for the same seed and kind of device.

    Norms are one, embeddings have unit variance and linear weights variance 1 / in, so that hidden
    states keep their size through all layers. Unlike trained weights they spread experts and pages
    nearly evenly, and independently from token to token.

    Args:
        config: geometry of the model.
        kind: how weights are held. "fp8": linear weights with block scales, as in FP8 checkpoints,
            and the rest in bf16. "q4_k_m": packed, in Q4_K, and in Q6_K the values of attention,
            the output head and every second layer's last projection.
        device: device of the weights.
        seed: seed of the random numbers.
        topics: topics that tokens share, for tokens of ``synthetic_tokens``.

    Raises:
        MemoryError: the embedding cannot be locked in host memory for the GPU.
    """
    weights = allocate(plan_synthetic(config, kind), device)
    draw = _Draw(seed, device)
    tables: list[tuple[Weight, float]] = [(weights.embedding, 1.0)]
    if weights.lm_head is not weights.embedding:
        tables.append((weights.lm_head, config.hidden_size**-0.5))
    mixed = None
    if topics is not None:
        mixed = _Mixed(topics, draw.normal(topics.count, config.hidden_size))
    for table, size in tables:
        draw.fill(table, size, mixed)
    for layer in weights.layers:
        for name, weight in vars(layer).items():
            if name.endswith("norm") and weight is not None:
                weight.fill_(1)
            elif weight is not None:
                draw.fill(weight, weight.shape[-1] ** -0.5)
    weights.final_norm.fill_(1)
    return lock_embedding(arranged(weights))


def plan_synthetic(config: ModelConfig, kind: WeightKind) -> ModelWeights:
    """Return weights of a kind without memory; see ``synthetic_weights``."""
    return planned_weights(config, lambda joined: _planned(joined, kind))


def _planned(joined: Joined, kind: WeightKind) -> Weight:
    if kind == "fp8" and joined.is_linear:
        return planned_fp8(joined.shape)
    if kind == "q4_k_m" and (joined.is_linear or joined.is_table):
        experts = joined.shape[:1] if joined.has_experts else ()
        parts: list[tuple[str, int]] = []
        for part in joined.stacks[0]:
            name, rows = _block_format(part.name), part.shape[0]
            if parts and parts[-1][0] == name:
                rows += parts.pop()[1]
            parts.append((name, rows))
        columns = joined.shape[-1]
        packed = [planned_packed((*experts, rows, columns), name) for name, rows in parts]
        return packed[0] if len(packed) == 1 else RowParts(tuple(packed))
    is_wide = joined.is_bias or (kind == "q4_k_m" and len(joined.shape) == 1)
    return planned(joined.shape, torch.float32 if is_wide else torch.bfloat16)


def _block_format(name: str) -> str:
    """Return the format of a tensor, by its Hugging Face name."""
    layer = re.search(r"\.layers\.(\d+)\.", name)
    is_odd = layer is not None and int(layer[1]) % 2 == 1
    is_large = "lm_head" in name or "v_proj" in name or ("down_proj" in name and is_odd)
    return "Q6_K" if is_large else "Q4_K"


def synthetic_tokens(
    vocab_size: int, count: int, seed: int = 0, topics: Topics | None = None
) -> list[int]:
    """Return random token ids: uniform, or staying on one topic after another."""
    generator = torch.Generator().manual_seed(seed)
    if topics is None:
        tokens = torch.randint(vocab_size, (count,), generator=generator)
    else:
        starts = torch.rand(count, generator=generator) < 1 / topics.run_tokens
        drawn = torch.randint(topics.count, (count + 1,), generator=generator)
        own = torch.randint(vocab_size // topics.count, (count,), generator=generator)
        tokens = own * topics.count + drawn[starts.cumsum(0)]
    return [int(token) for token in tokens]


@dataclass(frozen=True)
class _Mixed:
    """Topics, and the directions [topics, hidden] that their tokens share."""

    topics: Topics
    directions: torch.Tensor

    def add(self, rows: torch.Tensor, first: int, size: float) -> None:
        """Mix rows [n, hidden] of the tokens from ``first`` on with the directions of topics."""
        tokens = torch.arange(first, first + len(rows), device=rows.device) % self.topics.count
        shared = self.directions[tokens] * (math.sqrt(self.topics.share) * size)
        rows.mul_(math.sqrt(1 - self.topics.share)).add_(shared)


class _Draw:
    """Draws normal numbers for weights, a bounded number at a time."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        """Return float32 numbers of unit variance."""
        device = self._generator.device
        return torch.empty(shape, device=device).normal_(generator=self._generator)

    def fill(self, weight: Weight, size: float, mixed: _Mixed | None = None) -> None:
        """Fill a weight with numbers of standard deviation ``size``; FP8 uses its whole range."""
        if isinstance(weight, RowParts):
            for part in weight.parts:
                self.fill(part, size, mixed)
            return
        if isinstance(weight, BlockScaled):
            # The scales of a real checkpoint differ between blocks.
            weight.scales.uniform_(0.75, 1.25, generator=self._generator).mul_(size / _SPREAD)
            values, size = weight.values, _SPREAD
        else:
            values = weight.data if isinstance(weight, Packed) else weight
        columns, first = weight.shape[-1], 0
        for rows in values.view(-1, values.shape[-1]).split(max(1, _AT_A_TIME // columns)):
            drawn = self.normal(len(rows), columns).mul_(size)
            if mixed is not None:
                mixed.add(drawn, first, size)
            first += len(rows)
            if isinstance(weight, Packed):
                rows.copy_(pack(drawn, weight.format))
            else:
                rows.copy_(drawn.clamp_(-_LARGEST, _LARGEST))
