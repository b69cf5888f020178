"""Many ways to estimate the attention mass of groups.

An ``Estimate`` is made from the keys of a layer. For any queries it returns the LSE of each group
of tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from hga_engine.attention.index import middle_rotations
from hga_kernels.reference.index import hadamard, summarize

CHUNK = 64
EVEN_STEPS = {2: 1.596, 3: 1.224, 4: 1.0, 6: 0.733, 8: 0.586, 16: 0.335}
"""Best spacing of even levels by their number, in standard deviations (Max, 1960)."""
GAUSS_LEVELS = {
    4: ((0.9816,), (0.4528, 1.510)),
    8: ((0.5006, 1.050, 1.748), (0.2451, 0.7560, 1.344, 2.152)),
}
"""Lloyd-Max quantizer of a normal distribution: borders and levels above zero."""


@dataclass(frozen=True)
class Scorer:
    """What is stored of the keys, and how a group's mass is estimated from it."""

    kind: Literal["codes", "exact", "means", "bounds"] = "codes"
    levels: int = 4
    spacing: Literal["even", "gauss"] = "even"
    scale: Literal["token", "group"] = "token"
    centre: Literal["chunk", "group"] = "chunk"
    balance: Literal["none", "diagonal", "joint"] = "none"
    """Scaling of dimensions before rounding, by the spread of queries and keys."""
    reduce: Literal["sum", "pairs", "max"] = "sum"
    group: int = 16
    kept_chunks: int | None = None
    values: bool = False
    """Whether a group also counts by the distance of its values from the mean value."""


Estimate = Callable[[torch.Tensor, int], torch.Tensor]
"""[kv_heads, rows, head_dim] scaled queries to [kv_heads, rows, groups] of the first tokens."""


def _sum(scores: torch.Tensor) -> torch.Tensor:
    top = scores.amax(-1).float()
    return (scores.float() - top[..., None]).exp().sum(-1).log() + top


def _pairs(scores: torch.Tensor) -> torch.Tensor:
    return _sum(scores.unflatten(-1, (2, -1)).amax(-2))


def _max(scores: torch.Tensor) -> torch.Tensor:
    return scores.amax(-1).float()


REDUCE = {"sum": _sum, "pairs": _pairs, "max": _max}


def compile_reductions(device: torch.device) -> None:
    """Compile each reduction into one kernel."""
    torch._dynamo.config.suppress_errors = True  # then nothing is compiled
    some = torch.zeros(64, 16, dtype=torch.float16, device=device)
    for name, function in list(REDUCE.items()):
        REDUCE[name] = torch.compile(function, dynamic=True)
        REDUCE[name](some)


def token_scores(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return scores [kv_heads, rows, tokens]; half precision on a GPU, whose products are exact."""
    dtype = torch.float16 if queries.is_cuda else torch.float32
    return queries.to(dtype) @ keys.to(dtype).transpose(1, 2)


def reduced(scores: torch.Tensor, group: int, how: str = "sum") -> torch.Tensor:
    """Reduce [kv_heads, rows, tokens] to the LSE of every group."""
    heads, rows, tokens = scores.shape
    return REDUCE[how](scores.view(-1, group)).view(heads, rows, tokens // group)


def make_estimate(
    scorer: Scorer,
    keys: torch.Tensor,
    values: torch.Tensor,
    queries: torch.Tensor,
    turns: torch.Tensor,
) -> Estimate:
    """Return the estimate that a scorer makes from the keys of a layer.

    Args:
        scorer: what is stored.
        keys: [kv_heads, tokens, head_dim] after RoPE; whole chunks.
        values: likewise.
        queries: [kv_heads, rows, head_dim] scaled queries, for the spread of their dimensions.
        turns: [head_dim / 2] float64, RoPE's frequencies.
    """
    wide = keys.float()
    weights = _value_weights(values.float(), scorer.group) if scorer.values else None
    if scorer.kind == "means":
        estimate = _of_means(_means(wide, scorer.group, turns), scorer.group)
    elif scorer.kind == "bounds":
        grouped = wide.unflatten(1, (-1, scorer.group))
        estimate = _of_bounds(grouped.amin(2), grouped.amax(2), scorer.group)
    else:
        kept = wide if scorer.kind == "exact" else decoded(scorer, keys, queries.float(), turns)
        kept = kept.half() if keys.is_cuda else kept

        def estimate(rows: torch.Tensor, tokens: int) -> torch.Tensor:
            return reduced(token_scores(rows, kept[:, :tokens]), scorer.group, scorer.reduce)

    if weights is None:
        return estimate
    return lambda rows, tokens: estimate(rows, tokens) + weights[:, :, : tokens // scorer.group]


def chunk_means(keys: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Return summaries [kv_heads, chunks, head_dim] as the index stores them."""
    return _means(keys.float(), CHUNK, turns).to(keys.dtype).float()


def _means(keys: torch.Tensor, size: int, turns: torch.Tensor) -> torch.Tensor:
    cos, sin = middle_rotations(size, turns, torch.float32)
    return summarize(keys, cos.to(keys.device), sin.to(keys.device))


def _of_means(means: torch.Tensor, group: int) -> Estimate:
    return lambda rows, tokens: rows.float() @ means[:, : tokens // group].transpose(1, 2)


def _of_bounds(low: torch.Tensor, high: torch.Tensor, group: int) -> Estimate:
    """Bound the score of any token between the bounds (Quest, arXiv 2406.10774)."""

    def estimate(rows: torch.Tensor, tokens: int) -> torch.Tensor:
        rows, count = rows.float(), tokens // group
        above = rows.clamp_min(0) @ high[:, :count].transpose(1, 2)
        return above + rows.clamp_max(0) @ low[:, :count].transpose(1, 2)

    return estimate


def _value_weights(values: torch.Tensor, group: int) -> torch.Tensor:
    """Return [kv_heads, 1, groups]: the log distance of a group's values from the mean value."""
    away = (values - values.mean(1, keepdim=True)).norm(dim=-1)
    return away.unflatten(1, (-1, group)).mean(2).clamp_min(1e-6).log()[:, None]


def decoded(
    scorer: Scorer, keys: torch.Tensor, queries: torch.Tensor, turns: torch.Tensor
) -> torch.Tensor:
    """Return the keys after quantization, [kv_heads, tokens, head_dim]."""
    dim = keys.shape[2]
    size = CHUNK if scorer.centre == "chunk" else scorer.group
    centres = _means(keys.float(), size, turns).to(keys.dtype).float().repeat_interleave(size, 1)
    away = keys.float() - centres
    turn = hadamard(dim, torch.float32, keys.device).expand(keys.shape[0], -1, -1)
    if scorer.balance != "none":
        turn = turn @ _balance(away, queries, joint=scorer.balance == "joint")
    turned = away @ turn.transpose(1, 2)
    rounded = _rounded(scorer, turned)
    return centres + torch.linalg.solve(turn, rounded.transpose(1, 2)).transpose(1, 2)


def _rounded(scorer: Scorer, turned: torch.Tensor) -> torch.Tensor:
    grouped = turned.unflatten(1, (-1, scorer.group if scorer.scale == "group" else 1))
    spread = grouped.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1e-30)
    unit = grouped / spread
    if scorer.spacing == "even":
        count = scorer.levels
        steps = (unit / EVEN_STEPS[count] + count / 2).floor().clamp(0, count - 1) - (count - 1) / 2
    else:
        borders, levels = (
            torch.tensor(row, device=turned.device) for row in GAUSS_LEVELS[scorer.levels]
        )
        steps = levels[torch.bucketize(unit.abs(), borders)] * unit.sign()
    scales = (grouped * steps).sum((2, 3), keepdim=True) / steps.square().sum(
        (2, 3), keepdim=True
    ).clamp_min(1e-30)
    return (steps * scales.to(torch.bfloat16).float()).flatten(1, 2)


def _balance(away: torch.Tensor, queries: torch.Tensor, *, joint: bool) -> torch.Tensor:
    """Return the scaling [kv_heads, head_dim, head_dim] of keys that minimizes quantization error.

    The error of a score is the mean square of the scaled keys, equal in all dimensions, times that
    of the queries, scaled inversely. Their product is least at the geometric mean of both: of each
    dimension's squares (diagonal), or of the covariance matrices (joint).
    """
    of_keys = away.mT.double() @ away.double() / away.shape[1]
    of_queries = queries.mT.double() @ queries.double() / queries.shape[1]
    if not joint:
        ratio = of_queries.diagonal(0, 1, 2) / of_keys.diagonal(0, 1, 2).clamp_min(1e-12)
        return ratio.pow(0.25).diag_embed().float()
    floor = 1e-4 * torch.eye(away.shape[2], device=away.device, dtype=torch.float64)
    of_keys = of_keys + floor * of_keys.diagonal(0, 1, 2).mean(1)[:, None, None]
    of_queries = of_queries + floor * of_queries.diagonal(0, 1, 2).mean(1)[:, None, None]
    root = _power(of_keys, 0.5)
    inverse = _power(of_keys, -0.5)
    mean = inverse @ _power(root @ of_queries @ root, 0.5) @ inverse
    return _power(mean, 0.5).float()


def _power(matrices: torch.Tensor, exponent: float) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrices)
    return vectors * values.clamp_min(1e-12).pow(exponent)[:, None] @ vectors.mT


def keep_chunks(centre_scores: torch.Tensor, allowed: torch.Tensor, kept: int) -> torch.Tensor:
    """Choose chunks by their summaries: the paper's first level.

    Args:
        centre_scores: [kv_heads, scored rows of each, units, chunks].
        allowed: [units, chunks].
        kept: chunks a unit and KV head.

    Returns:
        [kv_heads, units, chunks] bool.
    """
    if centre_scores.shape[-1] <= kept:
        return allowed.expand(centre_scores.shape[0], -1, -1)
    mass = centre_scores.masked_fill(~allowed, -math.inf).softmax(-1).nan_to_num_(0.0).sum(1)
    best = mass.topk(kept, -1).indices
    return torch.zeros_like(mass, dtype=torch.bool).scatter_(-1, best, True) & allowed
