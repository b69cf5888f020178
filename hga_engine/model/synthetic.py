"""Random weights of an exact geometry, to measure speed and memory without a checkpoint."""

import math
from dataclasses import dataclass

import torch

from hga_engine.config import ModelConfig
from hga_engine.model.placement import empty_weights, lock_embedding
from hga_engine.model.types import ModelWeights, Weight
from hga_kernels.weights import BlockScaled

_AT_A_TIME = 1 << 24
"""Elements drawn together: 64 MiB in float32."""
_LARGEST = 448.0
"""Of e4m3."""
_SPREAD = _LARGEST / 4
"""Standard deviation of e4m3 values: in a block of 16,384 the largest is at about four of them."""


@dataclass(frozen=True)
class Topics:
    """What tokens have in common, so that random weights select with locality.

    Token ``i`` is of topic ``i % count``; its embedding and its row of the output head are part the
    topic's own direction, part its own. So neighbouring tokens of a stream that keeps to a topic
    for a while ask for the same pages and experts, and the tokens generated keep to it as well.
    What one decoded token selects was then selected by the one before to 63%, where smollm2-64k on
    text has 75% and random weights without topics 14% (8K tokens, 64 of about 470 groups); of the
    experts it was 62% against 13%. Which pages they are, and how sharply attention is concentrated
    in them, stays random.
    """

    count: int = 64
    share: float = 0.9
    """Of an embedding's squared length that is the topic's."""
    run_tokens: int = 256
    """Tokens that a stream keeps to a topic, in the mean."""


def synthetic_weights(
    config: ModelConfig,
    fp8: bool,
    device: torch.device,
    seed: int = 0,
    topics: Topics | None = None,
) -> ModelWeights:
    """Weights drawn where they are used, the same for the same seed and kind of device.

    Norms are one, embeddings of unit variance, linear weights of variance 1 / in, so that hidden
    states stay of ordinary size through all layers. They route experts and pages unlike trained
    ones: nearly evenly, and independently from token to token.

    Args:
        config: geometry.
        fp8: whether linear weights are FP8 with block scales, as in the checkpoints; the rest is
            bf16.
        device: where the weights are to be.
        seed: of the draw.
        topics: gives successive tokens something in common; for tokens of ``synthetic_tokens``.

    Raises:
        MemoryError: the embedding cannot be locked in host memory for the GPU.
    """
    weights = empty_weights(config, torch.bfloat16, device, is_fp8=lambda _: fp8)
    draw = _Draw(seed, device)
    tables = [(weights.embedding, 1.0)]
    if weights.lm_head is not weights.embedding:
        tables.append((weights.lm_head, config.hidden_size**-0.5))
    directions = None if topics is None else draw.normal(topics.count, config.hidden_size)
    for table, size in tables:
        draw.fill(table, size)
        if topics is not None and directions is not None:
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
    """A stream of token ids: uniform, or keeping to one topic after another."""
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
    """Mix the direction of its topic into each row of [vocab, hidden]."""
    mine, own = math.sqrt(topics.share), math.sqrt(1 - topics.share)
    shared = (directions * mine).to(table)
    for rows in table.split(topics.count):
        rows.mul_(own).add_(shared[: rows.shape[0]])


class _Draw:
    """Normal numbers for weights, a bounded number at a time."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        """Float32 of unit variance."""
        device = self._generator.device
        return torch.empty(shape, device=device).normal_(generator=self._generator)

    def fill(self, weight: Weight, size: float) -> None:
        """Numbers of standard deviation ``size``; FP8 values use their whole range."""
        if isinstance(weight, BlockScaled):
            # Between blocks of a checkpoint scales differ.
            weight.scales.uniform_(0.75, 1.25, generator=self._generator).mul_(size / _SPREAD)
            self._fill(weight.values, _SPREAD)
        else:
            self._fill(weight, size)

    def _fill(self, tensor: torch.Tensor, size: float) -> None:
        for part in tensor.view(-1).split(_AT_A_TIME):
            drawn = self.normal(part.numel()).mul_(size)
            part.copy_(drawn.clamp_(-_LARGEST, _LARGEST))
