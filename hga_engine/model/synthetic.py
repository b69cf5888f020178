"""Random weights for any geometry, to measure speed and memory without a checkpoint."""

import math
from dataclasses import dataclass

import torch

from hga_engine.config import ModelConfig
from hga_engine.model.layout import Joined
from hga_engine.model.placement import (
    allocate,
    lock_embedding,
    planned,
    planned_fp8,
    planned_weights,
)
from hga_engine.model.types import ModelWeights, Weight
from hga_kernels import BlockScaled

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
    fp8: bool,
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
        fp8: whether linear weights are FP8 with block scales, as in FP8 checkpoints; the rest is
            bf16.
        device: device of the weights.
        seed: seed of the random numbers.
        topics: topics that tokens share, for tokens of ``synthetic_tokens``.

    Raises:
        MemoryError: the embedding cannot be locked in host memory for the GPU.
    """

    def planned_weight(joined: Joined) -> Weight:
        if joined.is_linear and fp8:
            return planned_fp8(joined.shape)
        return planned(joined.shape, torch.float32 if joined.is_bias else torch.bfloat16)

    weights = allocate(planned_weights(config, planned_weight), device)
    draw = _Draw(seed, device)
    tables: list[tuple[Weight, float]] = [(weights.embedding, 1.0)]
    if weights.lm_head is not weights.embedding:
        tables.append((weights.lm_head, config.hidden_size**-0.5))
    directions = None if topics is None else draw.normal(topics.count, config.hidden_size)
    for table, size in tables:
        draw.fill(table, size)
        if topics is not None and directions is not None:
            assert isinstance(table, torch.Tensor)
            _add_topics(table, directions * size, topics)
    for layer in weights.layers:
        for name, weight in vars(layer).items():
            if name.endswith("norm") and weight is not None:
                weight.fill_(1)
            elif weight is not None:
                draw.fill(weight, weight.shape[-1] ** -0.5)
    weights.final_norm.fill_(1)
    return lock_embedding(weights)


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


def _add_topics(table: torch.Tensor, directions: torch.Tensor, topics: Topics) -> None:
    """Mix each row of [vocab, hidden] with the direction of its topic."""
    mine, own = math.sqrt(topics.share), math.sqrt(1 - topics.share)
    shared = (directions * mine).to(table)
    for rows in table.split(topics.count):
        rows.mul_(own).add_(shared[: rows.shape[0]])


class _Draw:
    """Draws normal numbers for weights, a bounded number at a time."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        """Return float32 numbers of unit variance."""
        device = self._generator.device
        return torch.empty(shape, device=device).normal_(generator=self._generator)

    def fill(self, weight: Weight, size: float) -> None:
        """Fill a weight with numbers of standard deviation ``size``; FP8 uses its whole range."""
        if isinstance(weight, BlockScaled):
            # The scales of a real checkpoint differ between blocks.
            weight.scales.uniform_(0.75, 1.25, generator=self._generator).mul_(size / _SPREAD)
            self._fill(weight.values, _SPREAD)
        else:
            assert isinstance(weight, torch.Tensor)
            self._fill(weight, size)

    def _fill(self, tensor: torch.Tensor, size: float) -> None:
        for part in tensor.view(-1).split(_AT_A_TIME):
            drawn = self.normal(part.numel()).mul_(size)
            part.copy_(drawn.clamp_(-_LARGEST, _LARGEST))
