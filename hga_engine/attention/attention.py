"""Attention of new tokens over a session: select, fetch the pages, attend exactly."""

import math
from typing import Literal

import torch
from hga_kernels import attend_pages

from hga_engine.attention.index import RoutingIndex
from hga_engine.attention.router import select
from hga_engine.config import ModelConfig, RouterConfig
from hga_engine.events import Trace
from hga_engine.kv_store import KVStore

Rule = Literal["decode", "prefill"]

_MAX_PAGES = 2**20
"""Pages listed at a time; bounds the workspace."""


class Reading:
    """Adds up what queries attended to, over layers.

    ``group_mass`` [groups] float64: attention mass per group, summed over layers and query heads.
    ``attended`` and ``visible``: tokens, summed over queries, KV heads and layers.
    """

    def __init__(self, groups: int) -> None:
        self.group_mass = torch.zeros(groups, dtype=torch.float64)
        self.attended = 0
        self.visible = 0

    @property
    def sparsity(self) -> float:
        """Share of the visible tokens that was attended to."""
        return self.attended / self.visible if self.visible else 1.0


class RoutedAttention:
    """Attention for one session.

    Under the decode rule each query token has a selection of its own per KV head. Under the prefill
    rule the queries of one chunk share one, so early queries of a chunk profit from what later ones
    look for: right for a prompt that is known as a whole, and only for that.
    """

    def __init__(
        self, model: ModelConfig, router: RouterConfig, store: KVStore, index: RoutingIndex
    ) -> None:
        self._router = router
        self._store = store
        self._index = index
        self._model = model
        self._kv_heads = model.num_kv_heads
        self._scale = 1 / math.sqrt(model.head_dim)
        self._sink_chunks = router.sink_tokens // router.chunk_size
        self._recent_chunks = router.recent_tokens // router.chunk_size
        self._groups_per_chunk = router.chunk_size // router.group_size
        # The same for every layer, so that of the last positions is kept.
        self._window: tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]
        self._window_of: tuple[int, int, int] | None = None

    def routed_groups(self, position: int) -> tuple[int, int]:
        """The groups, from and to, that a query at ``position`` reads only if they are selected."""
        chunk = position // self._router.chunk_size
        first = self._sink_chunks
        return (
            first * self._groups_per_chunk,
            max(first, chunk - self._recent_chunks) * self._groups_per_chunk,
        )

    def trace(self, position: int, reading: Reading) -> Trace:
        """What one query at ``position`` read in all layers, with its attention mass."""
        layers, heads = self._model.num_layers, self._model.num_query_heads
        mass = (reading.group_mass / (layers * heads)).float()
        first, last = self.routed_groups(position)
        if first < last:
            mass[:first] = 0
            mass[last:] = 0
        else:
            mass[:1] = 0
        return Trace(position, mass, reading.attended / (layers * self._kv_heads))

    def attend(
        self,
        layer: int,
        queries: torch.Tensor,
        start: int,
        rule: Rule,
        reading: Reading | None = None,
        with_mass: bool = False,
    ) -> torch.Tensor:
        """Attend from the tokens that ``layer`` received last.

        Args:
            layer: layer number; its K/V and index hold the query tokens already.
            queries: [tokens, query_heads, head_dim], after RoPE.
            start: position of the first query.
            rule: how selections are shared.
            reading: where to count what was attended to.
            with_mass: whether to add attention mass to ``reading`` as well.

        Returns:
            [tokens, query_heads, head_dim].
        """
        tokens = queries.shape[0]
        out = torch.empty_like(queries)
        size = self._router.chunk_size
        pages = self._pages_per_block(start + tokens)
        rows = 1 if rule == "decode" else size
        step = max(1, _MAX_PAGES // (pages * self._kv_heads)) * rows
        first = 0
        while first < tokens:
            # Up to the next chunk border, then whole chunks, then the rest.
            inside = (start + first) % size
            count = min(tokens - first, step)
            if rule == "prefill" and (inside or count < size):
                count = min(count, size - inside)
            elif rule == "prefill":
                count -= count % size
            part = slice(first, first + count)
            block_rows = 1 if rule == "decode" else min(size, count)
            out[part] = self._attend_blocks(
                layer,
                queries[part].unflatten(0, (-1, block_rows)),
                torch.arange(start + first, start + first + count, dtype=torch.int32).view(
                    -1, block_rows
                ),
                rule,
                reading,
                with_mass,
            ).flatten(0, 1)
            first += count
        return out

    def _pages_per_block(self, length: int) -> int:
        if self._router.router == "dense":
            return -(-length // self._router.group_size)
        always = self._sink_chunks + self._recent_chunks + 1
        budget = max(self._router.prefill_budget, self._router.decode_budget)
        return always * self._groups_per_chunk + budget

    def _attend_blocks(
        self,
        layer: int,
        queries: torch.Tensor,
        positions: torch.Tensor,
        rule: Rule,
        reading: Reading | None,
        with_mass: bool,
    ) -> torch.Tensor:
        """Attend from queries [blocks, rows, heads, dim] at positions [blocks, rows]."""
        groups, attended = self._page_groups(layer, queries, positions, rule)
        slots = self._store.fetch(layer, groups)
        pool = self._store.pool(layer)
        out, mass = attend_pages(
            queries.to(pool.dtype), positions, groups, slots, pool, self._scale, with_mass
        )
        if reading is not None:
            reading.attended += attended
            reading.visible += (int(positions.sum()) + positions.numel()) * self._kv_heads
            if mass is not None:
                present = groups >= 0
                reading.group_mass.index_add_(0, groups[present].long(), mass[present].double())
        return out.to(queries.dtype)

    def _page_groups(
        self, layer: int, queries: torch.Tensor, positions: torch.Tensor, rule: Rule
    ) -> tuple[torch.Tensor, int]:
        """Groups that each block attends to, -1 for none, and how many tokens that is.

        Returns:
            [blocks, kv_heads, pages] int32, and tokens summed over queries and KV heads.
        """
        span = (int(positions[0, 0]), int(positions[-1, -1]), positions.shape[1])
        if span != self._window_of:
            self._window, self._window_of = self._always_attended(positions), span
        sinks, recent, window_tokens, end_chunks = self._window
        if self._router.router == "dense":
            return recent, window_tokens
        router, scored = self._router, queries
        budget, kept = router.decode_budget, router.decode_kept_chunks
        if rule == "prefill":
            stride = self._router.scoring_stride
            # By the place in the chunk, so that slices do not matter; at least the last row.
            offset = (stride - 1 - span[0] % self._router.chunk_size) % stride
            scored = queries[:, offset::stride] if offset < queries.shape[1] else queries[:, -1:]
            budget, kept = router.prefill_budget, router.prefill_kept_chunks
        selected = select(
            scored,
            self._index,
            layer,
            self._sink_chunks,
            end_chunks,
            budget,
            router.paper_kept_chunks if router.router == "paper" else kept,
            router,
            self._scale,
        )
        chosen = int((selected >= 0).sum()) * self._router.group_size * positions.shape[1]
        return torch.cat((sinks, selected, recent), 2), window_tokens + chosen

    def _always_attended(
        self, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]:
        """What blocks attend to whatever is selected; all that is visible for ``dense``.

        Returns:
            sinks, recent: [blocks, kv_heads, n] int32 groups, -1 for none; the tokens that is,
            summed over queries and KV heads; [blocks] the chunk after the last selectable one.
        """
        blocks, size = positions.shape[0], self._router.group_size
        per_chunk = self._groups_per_chunk
        last = positions[:, -1:] // size  # [blocks, 1]
        chunks = positions[:, 0] // self._router.chunk_size
        if self._router.router == "dense":
            sinks = torch.empty(blocks, 0, dtype=torch.int32)
            recent = torch.arange(int(last.max()) + 1, dtype=torch.int32).expand(blocks, -1)
        else:
            sinks = torch.arange(self._sink_chunks * per_chunk, dtype=torch.int32)
            window = torch.arange((self._recent_chunks + 1) * per_chunk, dtype=torch.int32)
            recent = (chunks[:, None] - self._recent_chunks) * per_chunk + window
            recent = recent.masked_fill(recent < len(sinks), -1)
            sinks = sinks.expand(blocks, -1)
        always = torch.cat((sinks, recent), 1)
        always = always.masked_fill(always > last, -1)
        seen = (positions[:, :, None] - always[:, None] * size + 1).clamp(0, size)
        tokens = int(seen.masked_fill(always[:, None] < 0, 0).sum()) * self._kv_heads
        wide = always[:, None].expand(-1, self._kv_heads, -1)
        return (
            wide[:, :, : sinks.shape[1]],
            wide[:, :, sinks.shape[1] :],
            tokens,
            chunks - self._recent_chunks,
        )
