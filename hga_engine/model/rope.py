"""RoPE's frequencies, and how they are scaled for more positions."""

import math
from dataclasses import replace

import torch

from hga_engine.config import ModelConfig, RopeScaling, yarn_attention_factor
from hga_engine.errors import LongContextError


def for_context(model: ModelConfig, context: int) -> ModelConfig:
    """Return a model's geometry with RoPE for a context: YaRN beyond the native one.

    Args:
        model: geometry of the model, as its files state it.
        context: tokens that a session can hold.

    Raises:
        LongContextError: the context is beyond a sliding window, or beyond the native context of a
            model that has another RoPE scaling.
    """
    native, scaling = model.max_positions, model.rope_scaling
    if context <= native:
        return model
    if model.sliding_window is not None:
        raise LongContextError(context, native, "its attention slides over a window of that size")
    if scaling is None:
        factor = context / native
        return replace(
            model,
            rope_scaling=RopeScaling("yarn", factor, native, yarn_attention_factor(factor)),
        )
    if scaling.kind != "yarn":
        raise LongContextError(context, native, f"its RoPE is scaled already ({scaling})")
    factor = context / scaling.original_positions
    change = yarn_attention_factor(factor) / yarn_attention_factor(scaling.factor)
    stretched = replace(scaling, factor=factor, attention_factor=scaling.attention_factor * change)
    return replace(model, rope_scaling=stretched)


def frequencies(model: ModelConfig) -> torch.Tensor:
    """Return the angle [head_dim / 2] float64, in radians, by which a position turns each pair.

    Sources: RoPE, arXiv 2104.09864; linear scaling, arXiv 2306.15595; YaRN, arXiv 2309.00071
    ("NTK-by-parts"); Llama 3.1's scaling, as in its reference code.
    """
    head_dim, base, scaling = model.head_dim, model.rope_base, model.rope_scaling
    pairs = torch.arange(head_dim // 2, dtype=torch.float64)
    plain = base ** (-2 * pairs / head_dim)
    if scaling is None:
        return plain
    if scaling.divisors:
        return plain / torch.tensor(scaling.divisors, dtype=torch.float64)
    if scaling.kind == "linear":
        return plain / scaling.factor
    if scaling.kind == "yarn":
        kept = _yarn_kept(pairs, base, scaling)
    else:
        turns = scaling.original_positions * plain / (2 * math.pi)
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1)
    return plain * (kept + (1 - kept) / scaling.factor)


def _yarn_kept(pairs: torch.Tensor, base: float, scaling: RopeScaling) -> torch.Tensor:
    """Return how much of each frequency stays: 1 for the fast ones, 0 for the slow ones."""
    count = len(pairs)

    def pair_of(turns: float) -> float:
        """The pair that turns so often over the original positions, as a fraction."""
        return count * math.log(scaling.original_positions / (2 * math.pi * turns), base)

    first = max(math.floor(pair_of(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_of(scaling.beta_slow)), 2 * count - 1)
    # Where both are one pair, the ramp is a step.
    return 1 - ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
