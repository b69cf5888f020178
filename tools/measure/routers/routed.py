"""Attention to a selection, and the thresholds that give it the size aimed at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tools.measure.routers.forward import (
    Attend,
    Rows,
    Text,
    attend_branches,
    blocks_of,
    masked_attention,
)
from tools.measure.routers.rules import (
    Above,
    Drawn,
    Rule,
    Top,
    Until,
    Variant,
    combined,
    scored_rows,
    shares,
    weigh,
)
from tools.measure.routers.scores import (
    CHUNK,
    Estimate,
    Scorer,
    chunk_means,
    keep_chunks,
    make_estimate,
    reduced,
    token_scores,
)

BLOCK = 512
_SAMPLED_BLOCKS = 8
"""Every n-th block is compared with dense attention, or used to find thresholds."""
_CALIBRATED_BLOCKS = 16
_MOST_RAISED = 1.5
"""Logarithm of the largest weight of a chosen group."""
_POOL_GROUP = 16
_BRANCH_BUDGET = 1024
"""Tokens that questions and answers attend to where the text follows the prefill rule."""


@dataclass(frozen=True)
class _Part:
    """Some queries and what they may attend to."""

    queries: torch.Tensor  # [kv_heads, query heads of each, rows, head_dim]
    positions: torch.Tensor  # [rows]
    tokens: int
    """Tokens of the text that any of them may attend to: whole chunks."""
    own: torch.Tensor | None = None
    """[kv_heads, query heads of each, rows, branch tokens] scores of their own branch."""

    @property
    def flat(self) -> torch.Tensor:
        """[kv_heads, query heads * rows, head_dim]."""
        return self.queries.flatten(1, 2)


class Windows:
    """The groups that queries of a part always attend to, and those that may be chosen."""

    def __init__(self, variant: Variant, part: _Part) -> None:
        size, place = variant.scorer.group, part.positions[:, None]
        groups = torch.arange(part.tokens // size, device=place.device)
        self.sinks = variant.sinks
        self.recent_from = (place // CHUNK - variant.recent // CHUNK).clamp_min(0) * CHUNK
        is_sink = groups < variant.sinks // size
        is_recent = groups >= self.recent_from // size
        self.always = (is_sink | is_recent) & (groups * size <= place)  # [rows, groups]
        self.allowed = ~is_sink & ~is_recent
        seen = (place + 1 - groups * size).clamp(0, size)
        self.tokens = (seen * self.always).sum(1)  # [rows]

    def attention_lse(self, part: _Part, keys: torch.Tensor) -> torch.Tensor:
        """Return [kv_heads, query heads of each, rows]: the LSE of what is always attended."""
        place = part.positions[:, None]
        first = max(self.sinks, int(self.recent_from.min()))
        pieces = [] if part.own is None else [part.own.float()]
        for start, end in ((0, min(self.sinks, part.tokens)), (first, part.tokens)):
            scores = token_scores(part.flat, keys[:, start:end]).float()
            at = torch.arange(start, end, device=place.device)
            hidden = (at > place) | ((at >= self.sinks) & (at < self.recent_from))
            scores = scores.unflatten(1, part.queries.shape[1:3])
            pieces.append(scores.masked_fill_(hidden, -math.inf))
        return torch.cat(pieces, -1).logsumexp(-1)


class Statistics:
    """What was attended, by layer and KV head."""

    def __init__(self, layers: int, kv_heads: int) -> None:
        shape = layers, kv_heads
        self.groups = torch.zeros(shape, dtype=torch.float64)
        self.rows = 0.0
        self.window = 0.0
        self.visible = 0.0
        self.missing = torch.zeros(shape, dtype=torch.float64)
        self.selectable = torch.zeros(shape, dtype=torch.float64)
        self.sampled = torch.zeros(shape, dtype=torch.float64)

    def count(self, layer: int, chosen: torch.Tensor, windows: Windows, part: _Part) -> None:
        """Add the choice [kv_heads, rows, groups] of a part."""
        self.groups[layer] += chosen.sum((1, 2)).double().cpu()
        if layer == 0:
            self.rows += len(part.positions)
            self.window += float(windows.tokens.sum())
            self.visible += float((part.positions + 1).sum())

    def compare(self, layer: int, exact: torch.Tensor, chosen: torch.Tensor) -> None:
        """Add shares [kv_heads, query heads of each, rows, groups] of dense attention."""
        self.missing[layer] += (exact * ~chosen[:, None]).sum((1, 2, 3)).double().cpu()
        self.selectable[layer] += exact.sum((1, 2, 3)).double().cpu()
        self.sampled[layer] += exact.shape[1] * exact.shape[2]

    def sparsity(self, size: int) -> float:
        """Return the share of the visible tokens that was attended."""
        return (float(self.groups.mean()) * size + self.window) / self.visible


class Routed:
    """Attention by a variant, layer by layer."""

    def __init__(
        self, variant: Variant, text: Text, turns: torch.Tensor, statistics: Statistics
    ) -> None:
        self._variant, self._text, self._turns = variant, text, turns
        self._statistics = statistics

    def __call__(self, rows: Rows) -> torch.Tensor:
        """See ``Attend``."""
        variant, text = self._variant, self._text
        count = text.length - text.start
        estimate = _estimate(variant.scorer, rows, count, self._turns)
        pool_estimate = None
        if variant.pool:
            in_pool = replace(variant.scorer, group=_POOL_GROUP)
            pool_estimate = _estimate(in_pool, rows, count, self._turns)
        parts = []
        for number, block in enumerate(blocks_of(count, BLOCK)):
            part = _text_part(text, rows, block)
            windows = Windows(variant, part)
            pool = None if pool_estimate is None else self._pool(rows, part, pool_estimate)
            of_rows, window = _shares(
                variant, estimate, part, windows, rows.keys, self._turns, pool
            )
            logs = weigh(combined(of_rows, variant), variant.rule, rows.layer, variant.scorer.group)
            logs = logs.repeat_interleave(variant.block, 1)
            logs = logs if pool is None else logs + pool
            chosen = logs > -math.inf
            self._statistics.count(rows.layer, chosen, windows, part)
            if number % _SAMPLED_BLOCKS == _SAMPLED_BLOCKS // 2:
                exact = _exact_shares(variant, part, windows, window, rows.keys)
                self._statistics.compare(rows.layer, exact, chosen)
            bias = _bias(logs, windows, variant.scorer.group, rows.keys.dtype)
            _hide_later(bias, part.positions)
            if variant.tail == "chosen":
                bias = _raised(bias, of_rows, chosen, variant.scorer.group)
            out = masked_attention(
                part.queries, rows.keys[:, : part.tokens], rows.values[:, : part.tokens], bias
            )
            parts.append(self._with_tail(out, of_rows, chosen, rows))
        if text.lengths:
            parts.append(self._branches(rows, estimate))
        return torch.cat(parts, 2)

    def _pool(self, rows: Rows, part: _Part, estimate: Estimate) -> torch.Tensor:
        """Return [kv_heads, rows, groups]: log importance weights of the groups in the pool."""
        variant = replace(
            self._variant,
            rule=Drawn(self._variant.pool),
            scorer=replace(self._variant.scorer, group=_POOL_GROUP),
            block=CHUNK,
            stride=4,
        )
        windows = Windows(variant, part)
        of_rows, _ = _shares(variant, estimate, part, windows, rows.keys, self._turns)
        logs = weigh(combined(of_rows, variant), variant.rule, rows.layer, _POOL_GROUP)
        logs = logs.repeat_interleave(CHUNK, 1)
        return logs.repeat_interleave(_POOL_GROUP // self._variant.scorer.group, 2)

    def _branches(self, rows: Rows, estimate: Estimate) -> torch.Tensor:
        variant, text = self._variant, self._text
        if variant.block > 1:
            rule = variant.rule if isinstance(variant.rule, Drawn) else Top(0)
            variant = replace(
                variant, block=1, rule=replace(rule, budget=_BRANCH_BUDGET // variant.scorer.group)
            )
        queries = rows.queries[:, :, text.length - text.start :]
        own = token_scores(queries.flatten(1, 2), rows.branch_keys).unflatten(1, queries.shape[1:3])
        order = torch.arange(len(text.branch_of), device=own.device)
        hidden = (text.branch_of[:, None] != text.branch_of) | (order > order[:, None])
        own = own.masked_fill(hidden, -math.inf)
        part = _Part(queries, text.length + text.branch_places, text.length, own)
        windows = Windows(variant, part)
        of_rows, _ = _shares(variant, estimate, part, windows, rows.keys, self._turns)
        logs = weigh(combined(of_rows, variant), variant.rule, rows.layer, variant.scorer.group)
        chosen = logs > -math.inf
        bias = _bias(logs, windows, variant.scorer.group, rows.keys.dtype)
        return self._with_tail(attend_branches(text, rows, bias), of_rows, chosen, rows)

    def _with_tail(
        self, out: torch.Tensor, of_rows: torch.Tensor, chosen: torch.Tensor, rows: Rows
    ) -> torch.Tensor:
        """Let mean values stand for what is not attended, by its estimated share."""
        variant = self._variant
        if variant.tail in ("none", "chosen"):
            return out
        left = of_rows * ~chosen[:, None]  # [kv_heads, query heads of each, rows, groups]
        groups, size = left.shape[-1], variant.scorer.group
        values = rows.values[:, : groups * size].float()
        run = {"all": groups * size, "chunk": CHUNK, "group": size}[variant.tail]
        means = values.unflatten(1, (-1, run)).mean(2)  # [kv_heads, runs, head_dim]
        of_runs = left.unflatten(-1, (-1, run // size)).sum(-1)
        stand_in = of_runs @ means[:, None]
        return (out.float() * (1 - left.sum(-1, keepdim=True)) + stand_in).to(out.dtype)


class Calibration:
    """Find the thresholds at which variants attend as much as they aim at."""

    _ABOVE = torch.logspace(-6, 0, 97)
    _UNTIL = 1 - torch.logspace(-4, 0, 97)

    def __init__(
        self, variants: Sequence[Variant], text: Text, start: int, turns: torch.Tensor
    ) -> None:
        """Take the queries from ``start`` on."""
        self._variants = [one for one in variants if _is_open(one)]
        self._text, self._start, self._turns = text, start, turns
        self._groups = {one: torch.zeros(97, dtype=torch.float64) for one in self._variants}
        self._window = dict.fromkeys(self._variants, 0.0)
        self._visible = dict.fromkeys(self._variants, 0.0)

    def beside(self, attend: Attend) -> Attend:
        """Return the same attention, which also collects masses to find thresholds."""
        if not self._variants:
            return attend

        def watched(rows: Rows) -> torch.Tensor:
            self._add(rows)
            return attend(rows)

        return watched

    def _add(self, rows: Rows) -> None:
        text, count = self._text, self._text.length
        estimates: dict[Scorer, Estimate] = {}
        blocks = list(blocks_of(count - self._start, BLOCK))[::_CALIBRATED_BLOCKS]
        for block in blocks:
            part = _text_part(
                text, rows, slice(self._start + block.start, self._start + block.stop)
            )
            for variant in self._variants:
                if variant.scorer not in estimates:
                    estimates[variant.scorer] = _estimate(variant.scorer, rows, count, self._turns)
                windows = Windows(variant, part)
                estimate = estimates[variant.scorer]
                of_rows, _ = _shares(variant, estimate, part, windows, rows.keys, self._turns)
                mass = combined(of_rows, variant)
                counts = _counts(mass, variant.rule, self._grid(variant).to(mass.device))
                self._groups[variant] += counts.cpu() * variant.block
                self._window[variant] += float(windows.tokens.sum()) * mass.shape[0]
                self._visible[variant] += float((part.positions + 1).sum()) * mass.shape[0]

    def found(self, variant: Variant) -> Variant:
        """Return the variant with the share that was found."""
        if variant not in self._groups:
            return variant
        size, grid = variant.scorer.group, self._grid(variant)
        tokens = self._groups[variant] * size + self._window[variant]
        read = tokens / self._visible[variant]  # falls along the grid
        place = int((read > variant.aim).sum().clamp(1, len(read) - 1))
        above, below = float(read[place - 1]), float(read[place])
        part = (above - variant.aim) / (above - below) if above > below else 0.0
        first, second = float(grid[place - 1]), float(grid[place])
        share = first + (second - first) * min(max(part, 0.0), 1.0)
        assert isinstance(variant.rule, Above | Until)
        return replace(variant, rule=replace(variant.rule, share=share))

    def _grid(self, variant: Variant) -> torch.Tensor:
        return self._ABOVE if isinstance(variant.rule, Above) else self._UNTIL


def _is_open(variant: Variant) -> bool:
    return isinstance(variant.rule, Above | Until) and variant.rule.share == 0


def _counts(mass: torch.Tensor, rule: Rule, grid: torch.Tensor) -> torch.Tensor:
    """Return the number of groups chosen at every share of the grid."""
    assert isinstance(rule, Above | Until)
    best = mass.topk(min(rule.cap, mass.shape[-1]), -1).values
    if isinstance(rule, Above):
        # A group is chosen by every share below its own, the floor's by all.
        best[..., : rule.floor] = best[..., : rule.floor].masked_fill(
            best[..., : rule.floor] > 0, 2.0
        )
        below = torch.bucketize(best[best > 0], grid)
        return torch.bincount(below, minlength=len(grid) + 1).flip(0).cumsum(0).flip(0)[1:].double()
    # A group is chosen by every share above what is heavier.
    before = (best.cumsum(-1) - best) / mass.sum(-1, keepdim=True)
    place = torch.bucketize(before[best > 0], grid.flip(0), right=True)
    return torch.bincount(place, minlength=len(grid) + 1).cumsum(0)[:-1].flip(0).double()


def _estimate(scorer: Scorer, rows: Rows, count: int, turns: torch.Tensor) -> Estimate:
    queries = rows.queries[:, :, :count].flatten(1, 2)
    return make_estimate(scorer, rows.keys, rows.values, queries, turns)


def _text_part(text: Text, rows: Rows, block: slice) -> _Part:
    """Return queries of the text by their place among the rows; a block ends with a chunk."""
    last = text.start + block.stop
    positions = torch.arange(text.start + block.start, last, device=text.device)
    return _Part(rows.queries[:, :, block], positions, last)


def _shares(
    variant: Variant,
    estimate: Estimate,
    part: _Part,
    windows: Windows,
    keys: torch.Tensor,
    turns: torch.Tensor,
    pool: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the groups' estimated shares for every query, and the LSE of the windows.

    Groups of a pool count for those they stand for, others not at all.
    """
    scorer = variant.scorer
    logs = estimate(part.flat, part.tokens).unflatten(1, part.queries.shape[1:3])
    logs = logs if pool is None else logs + pool[:, None]
    window = windows.attention_lse(part, keys)
    allowed = windows.allowed
    if scorer.kept_chunks is not None:
        allowed = _in_kept_chunks(variant, part, allowed, keys, turns)
    return shares(logs, allowed, window, of_all=variant.of_all), window


def _in_kept_chunks(
    variant: Variant, part: _Part, allowed: torch.Tensor, keys: torch.Tensor, turns: torch.Tensor
) -> torch.Tensor:
    assert variant.scorer.kept_chunks is not None
    per_chunk = CHUNK // variant.scorer.group
    means = chunk_means(keys[:, : part.tokens], turns)
    scores = (part.flat.float() @ means.transpose(1, 2)).unflatten(1, part.queries.shape[1:3])
    of_chunks = allowed[:: variant.block, ::per_chunk]
    kept = keep_chunks(scored_rows(scores, variant), of_chunks, variant.scorer.kept_chunks)
    kept = kept.repeat_interleave(variant.block, 1).repeat_interleave(per_chunk, 2)
    return allowed & kept[:, None]


def _exact_shares(
    variant: Variant, part: _Part, windows: Windows, window: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    scores = token_scores(part.flat, keys[:, : part.tokens])
    logs = reduced(scores, variant.scorer.group).unflatten(1, part.queries.shape[1:3])
    return shares(logs, windows.allowed, window, of_all=True)


def _bias(logs: torch.Tensor, windows: Windows, size: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the bias of scores, [kv_heads, rows, tokens], from [kv_heads, rows, groups]."""
    bias = logs.masked_fill(windows.always, 0.0).to(dtype)
    return bias[..., None].expand(*bias.shape, size).flatten(2)


def _raised(
    bias: torch.Tensor, of_rows: torch.Tensor, chosen: torch.Tensor, size: int
) -> torch.Tensor:
    """Return a bias [kv_heads, query heads of each, rows, tokens]: the chosen have all mass."""
    read = (of_rows * chosen[:, None]).sum(-1, keepdim=True)
    factor = of_rows.sum(-1, keepdim=True) / read
    raised = factor.log().clamp(0, _MOST_RAISED).nan_to_num(0.0, 0.0, 0.0) * chosen[:, None]
    return bias[:, None] + raised.to(bias.dtype).repeat_interleave(size, -1)


def _hide_later(bias: torch.Tensor, positions: torch.Tensor) -> None:
    """Hide the tokens of the query's own block that come after it."""
    rows = len(positions)
    later = torch.ones(rows, rows, dtype=torch.bool, device=bias.device).triu_(1)
    bias[:, :, -rows:].masked_fill_(later, -math.inf)
