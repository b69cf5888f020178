"""Attention of new tokens over a session: select, fetch the pages, attend exactly."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from hga_engine.attention.coverage import Coverage
from hga_engine.attention.index import RoutingIndex
from hga_engine.attention.router import select
from hga_engine.attention.trace import AttentionTotals
from hga_engine.config import ModelConfig, Routing
from hga_engine.events import Trace
from hga_engine.kv_store.store import KVStore
from hga_kernels import Budget, ChunkRange, attend_pages, attention_lse

Rule = Literal["decode", "prefill"]

_MAX_PAGES = 2**20
"""Pages listed at a time; bounds the workspace."""

_KEPT_BLOCKS = 64


@dataclass(frozen=True)
class _Choice:
    """What is chosen: groups of a size that may be some pages."""

    budget: int
    group_size: int
    pages: int
    """Of a group."""

    def in_pages(self, groups: torch.Tensor) -> torch.Tensor:
        """[..., n] groups, -1 for none, to [..., n * pages] pages."""
        if self.pages == 1:
            return groups
        within = torch.arange(self.pages, dtype=groups.dtype, device=groups.device)
        pages = groups[..., None] * self.pages + within
        return pages.masked_fill_(groups[..., None] < 0, -1).flatten(-2)

    def of_pages(self, importance: torch.Tensor) -> torch.Tensor:
        """[..., n] of groups to [..., n * pages] of their pages."""
        return importance if self.pages == 1 else importance.repeat_interleave(self.pages, -1)


def _choice(router: Routing, rule: Rule) -> _Choice:
    """What a router chooses by a rule."""
    size = router.group_size if rule == "decode" else router.prefill_group_size
    budget = router.decode_budget if rule == "decode" else router.prefill_budget
    if router.kind == "paper":
        budget = max(budget * size // router.paper_group_size, 1)
        size = router.paper_group_size
    return _Choice(budget, size, size // router.group_size)


@dataclass(frozen=True)
class _Blocks:
    """Blocks of query rows, and what they attend to whatever is selected.

    Everything visible for ``dense``; else sinks and recent tokens.
    """

    positions: torch.Tensor  # [blocks, rows] int32
    sinks: torch.Tensor  # [blocks, kv_heads, n] int32 groups, -1 for none
    recent: torch.Tensor  # [blocks, kv_heads, n] int32 groups, -1 for none
    end_chunks: torch.Tensor  # [blocks] int32: the chunk after the last selectable one
    last_chunk: int
    """The largest of them."""
    place: int
    """Of the first query in its block, by the prefill rule."""
    attended_by_query: torch.Tensor  # [blocks, rows] int64 tokens of sinks and recent, on the host
    attended: int
    """The same, summed over queries and KV heads."""
    visible: int
    """All tokens that may be seen, likewise."""


class RoutedAttention:
    """Attention for one session.

    Under the decode rule each query token has a selection of its own per KV head. Under the prefill
    rule the queries of one chunk share one, so early queries of a chunk profit from what later ones
    look for: right for a prompt that is known as a whole, and only for that.
    """

    def __init__(
        self,
        model: ModelConfig,
        router: Routing,
        store: KVStore,
        index: RoutingIndex,
        device: torch.device,
    ) -> None:
        self._router = router
        self._device = device
        self._store = store
        self._index = index
        self._model = model
        self._kv_heads = model.num_kv_heads
        self._scale = 1 / math.sqrt(model.head_dim)
        self._sink_chunks = router.sink_tokens // router.chunk_size
        self._groups_per_chunk = router.chunk_size // router.group_size
        self._told_together = router.trace_bin_tokens // router.group_size
        self._choices = {rule: _choice(router, rule) for rule in get_args(Rule)}
        self._hidden: torch.Tensor | None = None
        self._blocks: _Blocks
        self._kept_blocks: dict[tuple[int, int, int], _Blocks] = {}
        """By position, queries and rows: every layer asks for the same."""

    def trace(self, position: int, totals: AttentionTotals) -> Trace:
        """What one query at ``position`` read in all layers, with its attention mass."""
        layers, heads = self._model.num_layers, self._model.num_query_heads
        mass = (totals.group_mass / (layers * heads)).float()
        first, last = self._told_groups(position)
        always = mass.clone()
        always[first:last] = 0
        tokens = totals.attended / (layers * self._kv_heads)
        return Trace(position, self._traced(mass - always), tokens, self._traced(always))

    def _traced(self, mass: torch.Tensor) -> torch.Tensor:
        """[..., groups] mass, added up over as many tokens as traces tell together."""
        padded = torch.nn.functional.pad(mass, (0, -mass.shape[-1] % self._told_together))
        return padded.view(*mass.shape[:-1], -1, self._told_together).sum(-1)

    def _told_groups(self, position: int) -> tuple[int, int]:
        """The groups, from and to, whose mass is told apart from what is always attended to."""
        first, last = self._router.routed_groups(position)
        if first < last:
            return first, last
        return self._told_together, position // self._router.group_size + 1

    def mass_by_layer(self, position: int, layer_mass: torch.Tensor) -> torch.Tensor:
        """Attention mass of each layer, mean over query heads, as traces tell it.

        Args:
            position: of the latest query.
            layer_mass: [layers, groups] summed over query heads.

        Returns:
            [layers, places] float32; what is always attended to is zero.
        """
        first, last = self._told_groups(position)
        told = torch.zeros_like(layer_mass)
        told[:, first:last] = layer_mass[:, first:last] / self._model.num_query_heads
        return self._traced(told)

    def hide(self, groups: Sequence[int]) -> None:
        """Attend to none of these groups from now on, whatever is selected.

        What one of them was drawn to stand for is not attended to either.
        """
        self._hidden = None
        if groups:
            self._hidden = torch.tensor(groups, dtype=torch.int32, device=self._device)

    def decode_totals(
        self, position: int, group_mass: torch.Tensor, chosen: int
    ) -> AttentionTotals:
        """What one query at ``position`` read in all layers, by the decode rule.

        Args:
            position: of the query.
            group_mass: [groups] attention mass, summed over layers and query heads.
            chosen: groups, summed over layers and KV heads.
        """
        size = self._router.group_size
        first, last = self._router.routed_groups(position)
        always = position + 1 - (last - first) * size
        totals = AttentionTotals(0)
        totals.group_mass = group_mass[: position // size + 1].double()
        places = self._model.num_layers * self._kv_heads
        totals.visible = (position + 1) * places
        totals.attended = always * places + chosen * size
        return totals

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
        size = 1 if rule == "decode" else self._router.prefill_block
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
        if self._router.kind == "dense":
            return -(-length // self._router.group_size)
        always = self._sink_chunks + 1
        most = max(choice.budget * choice.pages for choice in self._choices.values())
        return always * self._groups_per_chunk + most

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
        groups, importance = blocks.recent, None
        dense = self._router.kind == "dense"
        if not dense:
            selected, importance = self._select(layer, queries, rule)
            groups = torch.cat((blocks.sinks, selected, blocks.recent), 2)
            if importance is not None:
                sinks, recent = (
                    importance.new_ones(1).expand(one.shape)
                    for one in (blocks.sinks, blocks.recent)
                )
                importance = torch.cat((sinks, importance, recent), 2)
            if totals is not None and totals.coverage is not None:
                self._cover(layer, queries, selected, totals.coverage)
        groups = self._without_hidden(groups)
        slots = self._store.fetch(layer, groups)
        pool = self._store.pool(layer)
        out, mass = attend_pages(
            queries.to(pool.dtype),
            blocks.positions,
            groups,
            slots,
            pool,
            self._scale,
            with_mass,
            importance,
        )
        if totals is not None:
            totals.attended += blocks.attended
            totals.visible += blocks.visible
            if not dense:
                chosen = int(torch.count_nonzero(selected >= 0))
                totals.attended += chosen * self._router.group_size * queries.shape[1]
            if totals.shares.numel():
                self._count_shares(None if dense else selected, totals.shares)
            if mass is not None:
                self._count_mass(layer, groups, mass, totals)
        return out.to(queries.dtype)

    def _count_shares(self, selected: torch.Tensor | None, shares: torch.Tensor) -> None:
        """Count what each query attends to of what it sees, in one layer."""
        attended = self._blocks.attended_by_query * self._kv_heads
        if selected is not None:
            chosen = torch.count_nonzero(selected >= 0, (1, 2)).cpu()
            attended = attended + chosen[:, None] * self._router.group_size
        positions = self._blocks.positions.cpu()
        shares[positions.flatten().long()] += (attended / (positions + 1)).flatten()

    def _count_mass(
        self, layer: int, groups: torch.Tensor, mass: torch.Tensor, totals: AttentionTotals
    ) -> None:
        """Add up the mass [blocks, kv_heads, n] of the groups that were attended to."""
        # Places of no group have no mass.
        places, mass = groups.clamp_min(0).cpu(), mass.cpu()
        totals.group_mass.index_add_(0, places.flatten(), mass.flatten().double())
        if totals.layer_mass is not None:
            blocks = self._blocks
            if self._router.kind != "dense" and blocks.last_chunk > self._sink_chunks:
                chosen = slice(blocks.sinks.shape[2], -blocks.recent.shape[2])
                places, mass = places[:, :, chosen], mass[:, :, chosen]
            totals.layer_mass[layer].index_add_(0, places.flatten(), mass.flatten())

    def _cover(
        self, layer: int, queries: torch.Tensor, selected: torch.Tensor, coverage: Coverage
    ) -> None:
        """Compare the selections of sampled blocks with dense attention over all groups."""
        blocks = self._blocks
        pool = self._store.pool(layer)
        always = torch.cat((blocks.sinks, blocks.recent), 2)
        for number in coverage.sampled(blocks.positions).tolist():
            one = slice(number, number + 1)
            positions = blocks.positions[one]
            last = int(positions.max()) // self._router.group_size
            groups = torch.arange(last + 1, dtype=torch.int32, device=positions.device)
            groups = groups.expand(1, self._kv_heads, -1)
            slots = self._store.fetch(layer, groups)
            part = queries[one].to(pool.dtype)
            _, mass = attend_pages(part, positions, groups, slots, pool, self._scale, True)
            assert mass is not None
            coverage.add(layer, mass, always[one], selected[one])

    def _select(
        self, layer: int, queries: torch.Tensor, rule: Rule
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The groups chosen for each block, and how many each stands for, as ``select`` says."""
        router, scored, positions = self._router, queries, self._blocks.positions
        choice = self._choices[rule]
        if rule == "prefill":
            stride = router.scoring_stride
            # By the place in the block, so that slices do not matter; at least the last row.
            offset = (stride - 1 - self._blocks.place) % stride
            rows = slice(offset, None, stride) if offset < queries.shape[1] else slice(-1, None)
            scored, positions = queries[:, rows], positions[:, rows]
        window_lse = None
        if router.kind == "hga" and self._blocks.last_chunk > self._sink_chunks:
            window_lse = self._window_lse(layer, scored, positions)
        groups, importance = select(
            scored,
            self._index,
            layer,
            ChunkRange(self._sink_chunks, self._blocks.end_chunks, self._blocks.last_chunk),
            Budget(choice.budget, choice.group_size),
            router,
            self._scale,
            window_lse,
        )
        return choice.in_pages(groups), None if importance is None else choice.of_pages(importance)

    def _window_lse(
        self, layer: int, queries: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """[blocks, rows, query_heads] logarithm of the mass of sinks and recent tokens."""
        groups = self._without_hidden(torch.cat((self._blocks.sinks, self._blocks.recent), 2))
        # Attending to them counts them.
        slots = self._store.fetch(layer, groups, counted=False)
        pool = self._store.pool(layer)
        return attention_lse(queries.to(pool.dtype), positions, groups, slots, pool, self._scale)

    def _without_hidden(self, groups: torch.Tensor) -> torch.Tensor:
        if self._hidden is None:
            return groups
        return groups.masked_fill(torch.isin(groups, self._hidden), -1)

    def _blocks_of(self, start: int, count: int, rows: int) -> _Blocks:
        span = (start, count, rows)
        blocks = self._kept_blocks.get(span)
        if blocks is None:
            if len(self._kept_blocks) == _KEPT_BLOCKS:
                self._kept_blocks.clear()
            blocks = self._kept_blocks[span] = self._blocks_at(*span)
        return blocks

    def _blocks_at(self, start: int, count: int, rows: int) -> _Blocks:
        """Blocks of ``rows`` queries each, ``count`` in all, from position ``start`` on."""
        positions = torch.arange(start, start + count, dtype=torch.int32).view(-1, rows)
        blocks, size = positions.shape[0], self._router.group_size
        per_chunk = self._groups_per_chunk
        last = positions[:, -1:] // size  # [blocks, 1]
        chunks = positions[:, 0] // self._router.chunk_size
        if self._router.kind == "dense":
            sinks = torch.empty(blocks, 0, dtype=torch.int32)
            recent = torch.arange(int(last.max()) + 1, dtype=torch.int32).expand(blocks, -1)
        else:
            sinks = torch.arange(self._sink_chunks * per_chunk, dtype=torch.int32)
            recent = chunks[:, None] * per_chunk + torch.arange(per_chunk, dtype=torch.int32)
            recent = recent.masked_fill(recent < len(sinks), -1)
            sinks = sinks.expand(blocks, -1)
        always = torch.cat((sinks, recent), 1)
        always = always.masked_fill(always > last, -1)
        seen = (positions[:, :, None] - always[:, None] * size + 1).clamp(0, size)
        attended = seen.masked_fill(always[:, None] < 0, 0).sum(2)
        wide = always[:, None].expand(-1, self._kv_heads, -1)
        # Made on the host, where their size is known without waiting for the device.
        wide = wide.to(self._device)
        return _Blocks(
            positions=positions.to(self._device),
            sinks=wide[:, :, : sinks.shape[1]],
            recent=wide[:, :, sinks.shape[1] :],
            end_chunks=chunks.to(self._device),
            last_chunk=int(chunks.max()),
            place=start % self._router.prefill_block,
            attended_by_query=attended,
            attended=int(attended.sum()) * self._kv_heads,
            visible=(int(positions.sum()) + positions.numel()) * self._kv_heads,
        )
