"""How much of a layer's attention falls where routing would not attend."""

import torch

# The adapter in assets was trained with these.
CHUNK, GROUP = 64, 16
SINKS, RECENT = 128, 512
"""Tokens that are always attended: from the start, and before the open chunk."""
BUDGET = 48
"""Groups that are read beyond them."""
QUERIES = 48
"""Places of a sequence that are looked at."""


def places(tokens: int, generator: torch.Generator) -> torch.Tensor:
    """[QUERIES] places drawn from all but the first eighth of a sequence of ``tokens``."""
    return torch.randint(tokens // 8, tokens, (QUERIES,), generator=generator)


def missed_share(queries: torch.Tensor, keys: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Mean share of attention outside of windows and the heaviest groups, by the decode rule.

    Args:
        queries: [batch, query_heads, tokens, head_dim] after RoPE; tokens are whole groups.
        keys: [batch, kv_heads, tokens, head_dim].
        at: [n] places of the queries that are looked at.

    Returns:
        A scalar, with a gradient that draws attention together.
    """
    tokens, dim = keys.shape[2:]
    seen = queries[:, :, at].unflatten(1, (keys.shape[1], -1))  # [batch, kv, per, n, dim]
    scores = (seen @ keys[:, :, None].transpose(3, 4)).float() * dim**-0.5
    token = torch.arange(tokens, device=keys.device)
    scores = scores.masked_fill(token > at[:, None], -torch.inf)
    mass = scores.softmax(-1).unflatten(-1, (-1, GROUP)).sum(-1).mean(2)  # [batch, kv, n, groups]
    group = torch.arange(tokens // GROUP, device=keys.device)
    recent = (at // CHUNK - RECENT // CHUNK)[:, None] * (CHUNK // GROUP)
    routed = mass.masked_fill((group < SINKS // GROUP) | (group >= recent), 0.0)
    read = routed.topk(min(BUDGET, len(group)), -1).values.sum(-1)
    return (routed.sum(-1) - read).mean()
