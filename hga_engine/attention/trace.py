"""What queries attended to: totals for measurements, traces for people."""

import torch

from hga_engine.attention.blocks import QueryBlocks
from hga_engine.attention.coverage import Coverage
from hga_engine.config import ModelConfig, Routing
from hga_engine.events import Trace
from hga_kernels import Reported


class AttentionTotals:
    """Adds up what queries attended to, over layers.

    Attributes:
        group_mass: [groups] float64: attention mass per group, summed over layers and query heads.
            A sampled group counts its own mass only, without its importance weight, so the sum may
            be below 1 per query.
        attended, visible: tokens, summed over queries, KV heads and layers.
        coverage: compares selections with dense attention; None: nothing does.
        layer_mass: [layers, groups] float32: the part of the mass that traces report, by layer;
            None: not counted.
        shares: [tokens] float64: by position, the share of the visible tokens that was attended,
            summed over layers and KV heads. Counted for as many positions as it was made for.
    """

    def __init__(
        self,
        groups: int,
        coverage: Coverage | None = None,
        tokens: int = 0,
        layer_mass: torch.Tensor | None = None,
    ) -> None:
        self.coverage = coverage
        self.layer_mass = layer_mass
        self.shares = torch.zeros(tokens, dtype=torch.float64)
        self.group_mass = torch.zeros(groups, dtype=torch.float64)
        self.attended = 0
        self.visible = 0

    @property
    def sparsity(self) -> float:
        """Share of the visible tokens that was attended to."""
        return self.attended / self.visible if self.visible else 1.0


class Tracer:
    """Counts what queries attend to and reports it in trace bins. Holds no state.

    Both ways of decoding use it: single steps and the CUDA graph.
    """

    def __init__(self, model: ModelConfig, routing: Routing) -> None:
        self._layers = model.num_layers
        self._query_heads = model.num_query_heads
        self._kv_heads = model.num_kv_heads
        self._routing = routing
        self._bin_groups = routing.trace_bin_tokens // routing.group_size
        per_chunk = routing.groups_per_chunk
        self.reported = Reported(
            routing.sink_chunks * per_chunk, routing.chunk_size, per_chunk, self._bin_groups
        )
        """What ``is_reported`` tells, for kernels."""

    def is_reported(self, groups: torch.Tensor, position: int | torch.Tensor) -> torch.Tensor:
        """Return which groups a trace reports: those outside the query's window.

        A session too short to have any reports all groups but those of the first bin.

        Args:
            groups: group numbers.
            position: of the query; a tensor that broadcasts with ``groups`` for several, or where
                the host does not know it.
        """
        if isinstance(position, int):
            span = self.reported_groups(position)
            return (groups >= span.start) & (groups < span.stop)
        reported = self.reported
        end = position // reported.chunk * reported.per_chunk
        routed = (groups >= reported.first) & (groups < end)
        return routed | ((end <= reported.first) & (groups >= reported.least))

    def reported_groups(self, position: int) -> range:
        """Return the groups up to that of a query that a trace reports, see ``is_reported``."""
        reported = self.reported
        end = position // reported.chunk * reported.per_chunk
        if end <= reported.first:
            return range(reported.least, position // self._routing.group_size + 1)
        return range(reported.first, end)

    def trace(self, position: int, totals: AttentionTotals) -> Trace:
        """Return the trace of one query.

        Args:
            position: of the query.
            totals: of that query in all layers, with its attention mass.
        """
        mass = (totals.group_mass / (self._layers * self._query_heads)).float()
        reported = mass * self.is_reported(torch.arange(len(mass)), position)
        tokens = totals.attended / (self._layers * self._kv_heads)
        return Trace(position, self._in_bins(reported), tokens, self._in_bins(mass - reported))

    def by_layer(self, position: int, layer_mass: torch.Tensor) -> torch.Tensor:
        """Return the attention mass of each layer, mean over query heads, as traces report it.

        Args:
            position: of the latest query.
            layer_mass: [layers, groups] summed over query heads.

        Returns:
            [layers, bins] float32; the window is zero.
        """
        groups = torch.arange(layer_mass.shape[1], device=layer_mass.device)
        return self._in_bins(layer_mass * self.is_reported(groups, position) / self._query_heads)

    def decode_totals(
        self, position: int, group_mass: torch.Tensor, chosen: int
    ) -> AttentionTotals:
        """Return what one query attended to in all layers, by the decode rule.

        Args:
            position: of the query.
            group_mass: [groups] attention mass, summed over layers and query heads.
            chosen: number of groups, summed over layers and KV heads.
        """
        totals = AttentionTotals(0)
        totals.group_mass = group_mass[: position // self._routing.group_size + 1].double()
        self.count_token(totals, position, chosen)
        return totals

    def count_token(self, totals: AttentionTotals, position: int, chosen: int) -> None:
        """Add the tokens that one query attended to in all layers, by the decode rule.

        Args:
            totals: where to add them.
            position: of the query.
            chosen: number of groups, summed over layers and KV heads.
        """
        size, places = self._routing.group_size, self._layers * self._kv_heads
        first, end = self._routing.routed_groups(position)
        window = position + 1 - (end - first) * size
        totals.visible += (position + 1) * places
        totals.attended += window * places + chosen * size

    def count(
        self,
        totals: AttentionTotals,
        layer: int,
        blocks: QueryBlocks,
        selected: torch.Tensor | None,
        groups: torch.Tensor,
        mass: torch.Tensor | None,
    ) -> None:
        """Add what blocks of queries attended to in one layer.

        Args:
            totals: where to add it.
            layer: layer number.
            blocks: the queries.
            selected: [blocks, kv_heads, n] chosen groups, -1 for none; None: the router is dense.
            groups: [blocks, kv_heads, n] all groups attended to, -1 for none.
            mass: [blocks, kv_heads, n] attention mass of these groups; None: not counted.
        """
        totals.attended += blocks.attended
        totals.visible += blocks.visible
        if selected is not None:
            chosen = int(torch.count_nonzero(selected >= 0))
            totals.attended += chosen * self._routing.group_size * blocks.positions.shape[1]
        if totals.shares.numel():
            self._count_shares(totals.shares, blocks, selected)
        if mass is not None:
            self._count_mass(totals, layer, blocks, groups, mass)

    def _count_shares(
        self, shares: torch.Tensor, blocks: QueryBlocks, selected: torch.Tensor | None
    ) -> None:
        attended = blocks.attended_by_query * self._kv_heads
        if selected is not None:
            chosen = torch.count_nonzero(selected >= 0, (1, 2)).cpu()
            attended = attended + chosen[:, None] * self._routing.group_size
        positions = blocks.positions.cpu()
        shares[positions.flatten().long()] += (attended / (positions + 1)).flatten()

    def _count_mass(
        self,
        totals: AttentionTotals,
        layer: int,
        blocks: QueryBlocks,
        groups: torch.Tensor,
        mass: torch.Tensor,
    ) -> None:
        # Entries without a group have no mass.
        groups, mass = groups.clamp_min(0).cpu(), mass.cpu()
        totals.group_mass.index_add_(0, groups.flatten(), mass.flatten().double())
        if totals.layer_mass is not None:
            # Queries of a block are in one chunk, so they have the same window.
            position: int | torch.Tensor = blocks.start
            if len(blocks.positions) > 1:
                position = blocks.positions[:, :1, None].cpu()
            reported = mass * self.is_reported(groups, position)
            totals.layer_mass[layer].index_add_(0, groups.flatten(), reported.flatten())

    def _in_bins(self, mass: torch.Tensor) -> torch.Tensor:
        """[..., groups] mass, added up over trace bins: [..., bins]."""
        padded = torch.nn.functional.pad(mass, (0, -mass.shape[-1] % self._bin_groups))
        return padded.view(*mass.shape[:-1], -1, self._bin_groups).sum(-1)
