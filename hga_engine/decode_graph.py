"""Decoding on a GPU: one CUDA graph a token, without the host in between."""

import math
from collections.abc import Generator

import torch

from hga_engine.attention.index import RoutingIndex
from hga_engine.attention.trace import Tracer
from hga_engine.config import Routing, SamplingParams
from hga_engine.errors import NotANumberError
from hga_engine.kv_store.device import DeviceKVStore
from hga_engine.kv_store.mirror import Mirror
from hga_engine.model.decoder import Decoder
from hga_engine.model.types import ModelWeights
from hga_kernels import (
    Angles,
    Budget,
    ChunkRange,
    DecodeState,
    LayerPages,
    PageTable,
    StepResults,
    TokenWindow,
    norm_linear,
    sample,
)
from hga_kernels.gpu import (
    attend_resident,
    choose_pages,
    count_layers,
    finish_step,
    index_closed_chunk,
    write_token,
)

_RING = 4
"""Results that the host may still have to read."""
_AHEAD = 2
"""Steps queued while the host waits for the first of them. So one token may be decoded beyond the
last that is wanted; a second one would choose from pages that hold the first."""


class DecodeGraph:
    """The decode step of one session.

    A step takes a token at a position through the model and draws the next one, which the
    following step finds on the device, together with its position: whatever changes from step to
    step is in device memory, so the same graph serves a history that grows. The host only reads
    results, from pinned memory, while later steps are under way. A step queued after the last
    token that is wanted writes to places that are overwritten, or fetched again, before the next
    one is used.
    """

    def __init__(
        self,
        weights: ModelWeights,
        routing: Routing,
        store: DeviceKVStore,
        index: RoutingIndex,
        decoder: Decoder,
        tracer: Tracer,
    ) -> None:
        """Set up the state; the graph is captured when it is first used.

        Args:
            weights: of the model, on the GPU.
            routing: of the session.
            store: of the session.
            index: of the session.
            decoder: over ``weights``.
            tracer: of the session; says which mass the layers report.
        """
        self._weights = weights
        self._model = weights.config
        self._routing = routing
        self._store = store
        self._index = index
        self._decoder = decoder
        self._tracer = tracer
        self._device = device = weights.final_norm.device
        self._graph: torch.cuda.CUDAGraph | None = None
        groups = store.cache.table.shape[2]
        self._token = torch.zeros(1, dtype=torch.int64, device=device)
        self._position = torch.zeros(1, dtype=torch.int32, device=device)
        self._end_chunk = torch.zeros(1, dtype=torch.int32, device=device)
        self._step = torch.zeros(1, dtype=torch.int32, device=device)
        self._replays = 0
        self._mass = torch.zeros(groups, dtype=torch.float32, device=device)
        """[groups] of this step, over all layers."""
        layers = weights.config.num_layers
        # Rows begin at whole 16 bytes, so that one compiled kernel serves all layers.
        rows = torch.zeros(layers, -(-groups // 4) * 4, dtype=torch.float32, device=device)
        self._step_mass = rows[:, :groups]
        """[layers, groups] of this step."""
        self._layer_mass = torch.zeros(layers, groups, dtype=torch.float32, device=device)
        """[layers, groups] of the answer, as far as traces report it."""
        self._layer_mirror = Mirror(self._layer_mass)
        self._settings = torch.zeros(2, dtype=torch.float32, device=device)
        self._top_k = torch.zeros(1, dtype=torch.int32, device=device)
        self._seed = torch.zeros(1, dtype=torch.int64, device=device)
        self._tokens_out = torch.zeros(_RING, dtype=torch.int64, pin_memory=True)
        self._masses_out = torch.zeros(_RING, groups, dtype=torch.float32, pin_memory=True)
        self._counts_out = torch.zeros(_RING, 2, dtype=torch.int64, pin_memory=True)
        self._done = [torch.cuda.Event() for _ in range(_RING)]

    def run(
        self, token: int, position: int, room: int, sampling: SamplingParams
    ) -> Generator[tuple[int, torch.Tensor, int], None, None]:
        """Decode from ``token`` on.

        Args:
            token: the last token of the session, which has no K/V yet.
            position: its place.
            room: steps at most.
            sampling: how tokens are drawn.

        Yields:
            The next token; [groups] float32: attention mass per group, summed over layers and
            query heads; and how many groups were chosen, in all layers and KV heads. Each result
            that is taken has to be counted with ``advance``.

        Raises:
            NotANumberError: the model's output is not a number.
        """
        self._store.prepare_decoding()
        if self._graph is None:
            self._set(token, position, sampling)
            self._graph = self._capture()
            # Where a chunk begins, that step has overwritten an earlier token of the window.
            self._store.prepare_decoding()
        self._set(token, position, sampling)
        first, found = self._replays, int(self._store.cache.counts.sum())
        try:
            for number in range(first, first + room):
                while self._replays < min(number + _AHEAD, first + room):
                    self._graph.replay()
                    self._done[self._replays % _RING].record()
                    self._replays += 1
                place = number % _RING
                self._done[place].synchronize()
                drawn = int(self._tokens_out[place])
                if drawn < 0:
                    raise NotANumberError
                before, found = found, int(self._counts_out[place].sum())
                yield drawn, self._masses_out[place].clone(), found - before
        finally:
            torch.cuda.current_stream(self._device).synchronize()

    def advance(self) -> None:
        """Count one token that ``run`` has given K/V."""
        self._store.advance(1)
        length = self._store.length(0)
        self._index.count((length - 1) // self._routing.chunk_size)

    def layer_mass(self) -> torch.Tensor:
        """Return [layers, groups] float32: the answer's attention mass, summed over query heads.

        It holds what traces report, and lags a little while steps are computed.
        """
        return self._layer_mirror.latest()

    def _set(self, token: int, position: int, sampling: SamplingParams) -> None:
        """Set the token, position and sampling of the next step."""
        self._token.fill_(token)
        self._position.fill_(position)
        self._step.fill_(self._replays)
        self._step_mass.zero_()
        self._layer_mass.zero_()
        self._settings[0] = sampling.temperature
        self._settings[1] = sampling.top_p
        self._top_k.fill_(sampling.top_k)
        seed = torch.seed() if sampling.seed is None else sampling.seed
        self._seed.fill_(seed % 2**31)

    def _capture(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            # Compiles the kernels; what it writes the first replay writes again.
            self._run_step()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        torch.cuda.synchronize(self._device)
        self._store.cache.counts.zero_()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._run_step()
        return graph

    def _run_step(self) -> None:
        """Queue one step."""
        model, routing, index = self._model, self._routing, self._index
        cache, hosts, window = self._store.cache, self._store.host_pages, self._store.window
        context = cache.table.shape[2] * routing.group_size
        angles = Angles(*self._decoder.angles(context))
        scale = 1 / math.sqrt(model.head_dim)
        hidden = self._decoder.embed(self._token)
        torch.div(self._position, routing.chunk_size, rounding_mode="floor", out=self._end_chunk)
        cos, sin = index.middle_rotations
        index_closed_chunk(self._position, cache.resident, window, cos, sin, index.stacked)
        chunks = ChunkRange(routing.sink_chunks, self._end_chunk)
        budget = Budget(routing.decode_budget, routing.group_size, routing.decode_odds)
        for layer, weights in enumerate(self._weights.layers):
            heads = norm_linear(hidden, weights.attention_norm, model.rms_norm_eps, weights.qkv)
            pages = LayerPages(cache.resident[layer], hosts[layer], window)
            applied = self._decoder.head_weights(layer)
            queries = write_token(heads, applied, angles, self._position, pages)
            assert queries is not None
            rows = queries.view(model.num_kv_heads, 1, model.heads_per_kv, model.head_dim)
            table = PageTable(
                cache.table[layer],
                cache.owner[layer],
                cache.stamps[layer],
                self._step,
                cache.counts,
            )
            groups, importance, slots = choose_pages(
                rows,
                index.layer(layer),
                chunks,
                budget,
                scale,
                table,
                TokenWindow(self._position, pages),
                layer,
            )
            attended = attend_resident(
                queries,
                self._position,
                pages,
                groups,
                slots,
                scale,
                self._step_mass[layer],
                importance,
            )
            assert attended is not None
            hidden = self._decoder.finish(layer, hidden, attended[None])
        count_layers(
            self._step_mass, self._mass, self._layer_mass, self._position, self._tracer.reported
        )
        logits = self._decoder.logits(hidden)
        drawn = sample(logits, self._settings, self._top_k, self._seed, self._position)
        finish_step(
            drawn,
            DecodeState(self._token, self._position, self._step),
            self._mass,
            cache.counts,
            StepResults(self._tokens_out, self._masses_out, self._counts_out),
        )
