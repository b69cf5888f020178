"""From estimated masses to chosen groups."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

from hga_kernels import Budget
from hga_kernels.reference.selection import draw_groups, draw_numbers
from tools.measure.routers.scores import CHUNK, Scorer


@dataclass(frozen=True)
class Top:
    """The top groups, a fixed number."""

    budget: int


@dataclass(frozen=True)
class Above:
    """Groups with more than a share of the mass, up to a cap; at least ``floor`` groups."""

    share: float
    """0: found by calibration, so that on average as much is attended as the variant aims at."""
    cap: int
    floor: int = 0


@dataclass(frozen=True)
class Until:
    """The top groups until a share of the mass is reached, up to a cap."""

    share: float
    cap: int


@dataclass(frozen=True)
class Drawn:
    """Groups drawn by their share, with importance weights (``reference.draw_groups``)."""

    budget: int
    odds: float = 1.0


@dataclass(frozen=True)
class TopAndEven:
    """The top groups, and others drawn with even odds (vAttention, arXiv 2510.05688)."""

    top: int
    even: int
    """Groups that are drawn on average."""


Rule = Top | Above | Until | Drawn | TopAndEven


@dataclass(frozen=True)
class Variant:
    """One way of attending."""

    name: str
    rule: Rule
    scorer: Scorer = field(default_factory=Scorer)
    of_all: bool = False
    """Whether shares are of all mass or of the groups that may be chosen."""
    combine: Literal["mean", "max"] = "mean"
    """How masses of the query heads of a KV head, and of a block's scored rows, are combined."""
    sinks: int = 128
    recent: int = 512
    block: int = 1
    """Queries that share a selection: 1 by the decode rule, a block by the prefill rule."""
    stride: int = 4
    """Every n-th query of a block is scored."""
    pool: int = 0
    """Groups of 16 that are drawn first for each chunk of queries, of which every fourth is scored;
    selections are drawn from this pool. 0: from all groups."""
    tail: Literal["none", "all", "chunk", "group", "chosen"] = "none"
    """What stands for the tokens that are not attended: one mean value, or one per chunk or group;
    or the chosen groups, with larger weights."""
    aim: float = 0.03
    """Share of the visible tokens to attend to, where the rule leaves it open."""


def shares(
    logs: torch.Tensor, allowed: torch.Tensor, window: torch.Tensor, *, of_all: bool
) -> torch.Tensor:
    """Return each group's share of each query's attention.

    Args:
        logs: [kv_heads, query heads of each, rows, groups] logarithms of masses.
        allowed: [rows, groups] or [kv_heads, 1, rows, groups] that may be chosen.
        window: [kv_heads, query heads of each, rows] LSE of what is always attended.
        of_all: whether shares are of that mass as well.

    Returns:
        Like ``logs``; 0 where it is not allowed.
    """
    logs = logs.masked_fill(~allowed, -math.inf)
    total = logs.logsumexp(-1)
    if of_all:
        total = torch.logaddexp(total, window)
    return (logs - total[..., None]).exp_().nan_to_num_(0.0)


def combined(of_rows: torch.Tensor, variant: Variant) -> torch.Tensor:
    """Reduce [kv_heads, query heads of each, rows, groups] to [kv_heads, units, groups]."""
    scored = scored_rows(of_rows, variant)
    return scored.mean(1) if variant.combine == "mean" else scored.amax(1)


def scored_rows(of_rows: torch.Tensor, variant: Variant) -> torch.Tensor:
    """Arrange [kv_heads, query heads of each, rows, n] as [kv_heads, scored rows, units, n].

    A unit shares a selection: a query, or a block of which every n-th query is scored.
    """
    if variant.block == 1:
        return of_rows
    blocks = of_rows.unflatten(2, (-1, variant.block))
    scored = blocks[:, :, :, variant.stride - 1 :: variant.stride]
    return scored.transpose(2, 3).flatten(1, 2)


def weigh(mass: torch.Tensor, rule: Rule, layer: int, group: int) -> torch.Tensor:
    """Return log importance weights of the chosen groups, -inf for others.

    Args:
        mass: [kv_heads, units, groups], 0 where none may be chosen.
        rule: how to choose.
        layer: layer number.
        group: tokens of one.
    """
    if isinstance(rule, TopAndEven):
        return _top_and_even(mass, rule, layer)
    if not isinstance(rule, Drawn):
        return torch.zeros_like(mass).masked_fill_(~choose(mass, rule), -math.inf)
    places = mass.shape[2]
    in_chunks = mass.unflatten(2, (-1, CHUNK // group)).amax(-1)
    numbers = torch.arange(in_chunks.shape[2], device=mass.device)
    listed = numbers.where(in_chunks > 0, -1)
    chosen, importance = draw_groups(mass, listed, Budget(rule.budget, group, rule.odds), layer)
    logs = mass.new_full((*mass.shape[:2], places + 1), -math.inf)
    chosen = chosen.where(chosen >= 0, places).transpose(0, 1)
    return logs.scatter_(2, chosen.long(), importance.log().transpose(0, 1))[..., :places]


def _top_and_even(mass: torch.Tensor, rule: TopAndEven, layer: int) -> torch.Tensor:
    top = _of_heaviest(mass, rule.top, lambda best: best > 0)
    left = (mass > 0) & ~top
    odds = rule.even / left.sum(-1, keepdim=True).clamp_min(rule.even)
    groups = torch.arange(mass.shape[2], device=mass.device).expand(mass.shape[0], 1, -1)
    is_drawn = left & (draw_numbers(layer, mass.shape[0], groups) <= odds)
    logs = (-odds.log()).expand(mass.shape).masked_fill(~is_drawn, -math.inf)
    return logs.masked_fill(top, 0.0)


def choose(mass: torch.Tensor, rule: Top | Above | Until) -> torch.Tensor:
    """Choose by masses [kv_heads, units, groups], 0 for what may not be chosen; return bools."""
    if isinstance(rule, Top):
        return _of_heaviest(mass, rule.budget, lambda best: best > 0)
    if isinstance(rule, Above):
        above = mass > rule.share
        many = above.sum(-1) > rule.cap
        if many.any():
            above[many] = _of_heaviest(mass[many], rule.cap, lambda best: best > rule.share)
        if rule.floor:
            above |= _of_heaviest(mass, rule.floor, lambda best: best > 0)
        return above
    least = rule.share * mass.sum(-1, keepdim=True)
    return _of_heaviest(mass, rule.cap, lambda best: (best.cumsum(-1) - best < least) & (best > 0))


def _of_heaviest(
    mass: torch.Tensor, count: int, keep: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    best = mass.topk(min(count, mass.shape[-1]), -1)
    chosen = torch.zeros_like(mass, dtype=torch.bool)
    return chosen.scatter_(-1, best.indices, keep(best.values))
