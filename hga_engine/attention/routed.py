"""Attention of new tokens over a session: select, fetch the pages, attend exactly."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from hga_engine.attention.blocks import QueryBlocks, query_blocks
from hga_engine.attention.coverage import Coverage
from hga_engine.attention.index import RoutingIndex
from hga_engine.attention.router import select
from hga_engine.attention.trace import AttentionTotals, Tracer
from hga_engine.config import ModelConfig, Routing
from hga_engine.kv_store.store import KVStore
from hga_kernels import Budget, ChunkRange, attend_pages, attention_lse, list_pages

Rule = Literal["decode", "prefill"]

_MAX_PAGES = 2**20
"""Pages listed at a time; bounds the workspace."""

_MAX_CACHED_BLOCKS = 64


@dataclass(frozen=True)
class _Choice:
    """How many groups are chosen, and of what size: one page or several."""

    budget: int
    group_size: int
    pages: int
    """Pages of a group."""
    odds: float
    """See ``Budget``."""


def _choice(routing: Routing, rule: Rule) -> _Choice:
    """Return what is chosen by a rule."""
    size = routing.group_size if rule == "decode" else routing.prefill_group_size
    budget = routing.decode_budget if rule == "decode" else routing.prefill_budget
    odds = routing.decode_odds if rule == "decode" else routing.prefill_odds
    if routing.kind == "paper":
        budget = max(budget * size // routing.paper_group_size, 1)
        size = routing.paper_group_size
    return _Choice(budget, size, size // routing.group_size, odds)


class RoutedAttention:
    """Attention for one session.

    Under the decode rule each query token has a selection of its own per KV head. Under the prefill
    rule the queries of a query block (``Routing.prefill_block``) share one, so early queries of a
    block profit from what later ones look for. That is right only for text known as a whole.
    """

    def __init__(
        self,
        model: ModelConfig,
        routing: Routing,
        store: KVStore,
        index: RoutingIndex,
        device: torch.device,
    ) -> None:
        self._device = device
        self._store = store
        self._index = index
        self._kv_heads = model.num_kv_heads
        self._scale = 1 / math.sqrt(model.head_dim)
        self.tracer = Tracer(model, routing)
        self.set_routing(routing)
        self._hidden: torch.Tensor | None = None
        self._left_out: torch.Tensor | None = None
        self._listed: torch.Tensor | None = None
        """[chunks of the context] whether groups of a chunk may be selected; None: all."""
        self._blocks: QueryBlocks
        self._cached_blocks: dict[tuple[int, int, int], QueryBlocks] = {}
        """By position, queries and rows: every layer asks for the same."""

    def set_routing(self, routing: Routing) -> None:
        """Select by other budgets from now on; sizes of chunks and groups must be the same."""
        self._routing = routing
        self._choices = {rule: _choice(routing, rule) for rule in get_args(Rule)}

    def hide(self, groups: Sequence[int]) -> None:
        """Attend to none of these groups from now on, whatever is selected.

        Groups that a hidden one was sampled to stand for are not attended to either.
        """
        self._hidden = None
        if groups:
            self._hidden = torch.tensor(groups, dtype=torch.int32, device=self._device)

    def leave_out(self, groups: Sequence[int]) -> None:
        """Attend to none of these groups from now on, and spend the budget on the others.

        Chunks that are named whole do not take part in the selection, unlike with ``hide``; router
        ``paper`` selects as ever. Both can be in force at a time.
        """
        self._left_out = self._listed = None
        if groups:
            self._left_out = torch.tensor(groups, dtype=torch.int32).unique().to(self._device)
            per_chunk = self._routing.groups_per_chunk
            self._listed = (self._left_out // per_chunk).bincount() < per_chunk

    @property
    def leaves_out(self) -> bool:
        """Whether any groups are left out."""
        return self._left_out is not None

    def attend(
        self,
        layer: int,
        queries: torch.Tensor,
        start: int,
        rule: Rule,
        totals: AttentionTotals | None = None,
        with_mass: bool = False,
    ) -> torch.Tensor:
        """Attend from the tokens that ``layer`` received last.

        Args:
            layer: layer number; its K/V and index hold the query tokens already.
            queries: [tokens, query_heads, head_dim], after RoPE.
            start: position of the first query.
            rule: how selections are shared.
            totals: where to count what was attended to.
            with_mass: whether to add attention mass to ``totals`` as well.

        Returns:
            [tokens, query_heads, head_dim].
        """
        tokens = queries.shape[0]
        if tokens == 0:
            return torch.empty_like(queries)
        parts = []
        size = 1 if rule == "decode" else self._routing.prefill_block
        pages = self._pages_per_block(start + tokens)
        step = max(1, _MAX_PAGES // (pages * self._kv_heads)) * size
        first = 0
        while first < tokens:
            # Up to the next border of a block, then whole blocks, then the rest.
            inside = (start + first) % size
            count = min(tokens - first, step)
            if inside or count < size:
                count = min(count, size - inside)
            else:
                count -= count % size
            rows = min(size, count)
            self._blocks = self._blocks_of(start + first, count, rows)
            part = queries[first : first + count].unflatten(0, (-1, rows))
            parts.append(self._attend_blocks(layer, part, rule, totals, with_mass).flatten(0, 1))
            first += count
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _pages_per_block(self, length: int) -> int:
        if self._routing.kind == "dense":
            return -(-length // self._routing.group_size)
        window = self._routing.window_tokens // self._routing.group_size
        return window + max(choice.budget * choice.pages for choice in self._choices.values())

    def _attend_blocks(
        self,
        layer: int,
        queries: torch.Tensor,
        rule: Rule,
        totals: AttentionTotals | None,
        with_mass: bool,
    ) -> torch.Tensor:
        """Attend from the queries [blocks, rows, heads, dim] of ``self._blocks``."""
        blocks = self._blocks
        groups, selected, importance = blocks.window, None, None
        if self._routing.kind != "dense":
            chosen, weights = self._select(layer, queries, rule)
            pages = self._choices[rule].pages
            groups, importance = list_pages(chosen, weights, blocks.window, blocks.sinks, pages)
            selected = groups[:, :, blocks.sinks :][:, :, : chosen.shape[2] * pages]
            if totals is not None and totals.coverage is not None:
                self._cover(layer, queries, selected, totals.coverage)
        groups = self._without_hidden(groups)
        slots = self._store.fetch(layer, groups)
        pool = self._store.pool(layer)
        out, mass = attend_pages(
            queries,
            blocks.positions,
            groups,
            slots,
            pool,
            self._scale,
            with_mass,
            importance,
        )
        if totals is not None:
            self.tracer.count(totals, layer, blocks, selected, groups, mass)
        return out

    def _cover(
        self, layer: int, queries: torch.Tensor, selected: torch.Tensor, coverage: Coverage
    ) -> None:
        """Compare the selections of sampled blocks with dense attention over all groups."""
        blocks = self._blocks
        pool = self._store.pool(layer)
        for number in coverage.sampled(blocks.positions).tolist():
            one = slice(number, number + 1)
            positions = blocks.positions[one]
            last = int(positions.max()) // self._routing.group_size
            groups = torch.arange(last + 1, dtype=torch.int32, device=positions.device)
            groups = groups.expand(1, self._kv_heads, -1)
            slots = self._store.fetch(layer, groups)
            _, mass = attend_pages(queries[one], positions, groups, slots, pool, self._scale, True)
            assert mass is not None
            coverage.add(layer, mass, blocks.window[one], selected[one])

    def _select(
        self, layer: int, queries: torch.Tensor, rule: Rule
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the chosen groups and their importance weights, as ``select`` does."""
        routing, scored, positions = self._routing, queries, self._blocks.positions
        choice = self._choices[rule]
        if rule == "prefill":
            stride = routing.scoring_stride
            # Counted from the start of the block, so that slices do not matter; at least one row.
            offset = (stride - 1 - self._blocks.offset) % stride
            rows = slice(offset, None, stride) if offset < queries.shape[1] else slice(-1, None)
            scored, positions = queries[:, rows], positions[:, rows]
        window_lse = None
        if routing.kind == "hga" and self._blocks.last_chunk > routing.sink_chunks:
            window_lse = self._window_lse(layer, scored, positions)
        return select(
            scored,
            self._index,
            layer,
            ChunkRange(routing.sink_chunks, self._blocks.end_chunks, self._blocks.last_chunk),
            Budget(choice.budget, choice.group_size, choice.odds),
            routing,
            self._scale,
            window_lse,
            self._listed_chunks(),
        )

    def _listed_chunks(self) -> torch.Tensor | None:
        """Return the numbers [n] of the chunks that may be selected from; None: all."""
        if self._listed is None:
            return None
        first, end = self._routing.sink_chunks, self._blocks.last_chunk
        listed = self._listed[:end]
        listed = torch.nn.functional.pad(listed, (0, end - len(listed)), value=True)
        listed[:first] = False
        return listed.nonzero().flatten()

    def _window_lse(
        self, layer: int, queries: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Return [blocks, rows, query_heads]: the LSE of the window's scores."""
        groups = self._without_hidden(self._blocks.window)
        # Not counted here: attending to them counts them.
        slots = self._store.fetch(layer, groups, counted=False)
        pool = self._store.pool(layer)
        return attention_lse(queries, positions, groups, slots, pool, self._scale)

    def _without_hidden(self, groups: torch.Tensor) -> torch.Tensor:
        for hidden in (self._hidden, self._left_out):
            if hidden is not None:
                groups = groups.masked_fill(torch.isin(groups, hidden), -1)
        return groups

    def _blocks_of(self, start: int, count: int, rows: int) -> QueryBlocks:
        span = (start, count, rows)
        blocks = self._cached_blocks.get(span)
        if blocks is None:
            if len(self._cached_blocks) == _MAX_CACHED_BLOCKS:
                self._cached_blocks.clear()
            blocks = query_blocks(self._routing, self._kv_heads, start, count, rows, self._device)
            self._cached_blocks[span] = blocks
        return blocks
