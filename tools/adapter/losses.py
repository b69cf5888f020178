"""Losses over the vocabulary, some tokens at a time: all logits would not fit in memory."""

from collections.abc import Callable

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

_PART = 8_192
"""Tokens whose logits are in memory at a time."""


def cross_entropies(
    hidden: torch.Tensor, table: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return the nats of each target.

    Args:
        hidden: [tokens, hidden] normalised hidden states.
        table: [vocab, hidden] output embedding.
        targets: [tokens] token ids.

    Returns:
        [tokens] float32.
    """

    def some(part: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(
            functional.linear(part, table).float(), wanted, reduction="none"
        )

    return _in_parts(some, hidden, targets)


def divergences(
    hidden: torch.Tensor, table: torch.Tensor, base_hidden: torch.Tensor
) -> torch.Tensor:
    """Return the KL divergence of the base model's predictions from those of ``hidden``.

    Args:
        hidden: [tokens, hidden] of the adapted model.
        table: [vocab, hidden] output embedding of both.
        base_hidden: [tokens, hidden] of the base model.

    Returns:
        [tokens] float32 nats.
    """

    def some(part: torch.Tensor, base_part: torch.Tensor) -> torch.Tensor:
        ours = functional.linear(part, table).float().log_softmax(-1)
        base = functional.linear(base_part, table).float().log_softmax(-1)
        return functional.kl_div(ours, base, reduction="none", log_target=True).sum(-1)

    return _in_parts(some, hidden, base_hidden)


def _in_parts(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    hidden: torch.Tensor,
    other: torch.Tensor,
) -> torch.Tensor:
    parts = [
        checkpoint(function, one, two, use_reentrant=False)
        for one, two in zip(hidden.split(_PART), other.split(_PART), strict=True)
    ]
    return torch.cat(parts)
