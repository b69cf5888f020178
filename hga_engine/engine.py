"""The engine: reads documents, answers questions, and reports what it does as events.

The way of a token: embed, then per layer project to q, k, v; append k, v to the store; extend the
index; select; fetch pages; attend; finish the layer; at the end logits and the sampler.
"""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import torch

from hga_engine import ledger
from hga_engine.attention.attention import Reading, RoutedAttention, Rule
from hga_engine.attention.index import RoutingIndex
from hga_engine.config import EngineConfig, ModelConfig, SamplingParams
from hga_engine.device_memory import DevicePlan, device_memory, plan_device
from hga_engine.errors import ContextFullError
from hga_engine.events import (
    Event,
    FinishReason,
    MemoryFigures,
    PrefillProgress,
    TextDelta,
    Trace,
)
from hga_engine.kv_store import KVStore
from hga_engine.kv_store.tiered import TieredKVStore
from hga_engine.model.decoder import Decoder
from hga_engine.model.types import ModelWeights
from hga_engine.pace import Pace
from hga_engine.sampler import Sampler
from hga_engine.saved_state.state import SavedState, geometry
from hga_engine.timing import AnswerClock
from hga_engine.tokenizer import Detokenizer, Tokenizer

if TYPE_CHECKING:
    from hga_engine.decode_graph import DecodeGraph
    from hga_engine.kv_store.device import DeviceKVStore


class Engine:
    """One model and one session. Owned by one thread; only ``cancel`` events cross threads."""

    def __init__(
        self,
        weights: ModelWeights,
        tokenizer: Tokenizer,
        config: EngineConfig,
        model_name: str,
        model_fingerprint: str,
        kv_dtype: torch.dtype | None = None,
    ) -> None:
        """Set up a session: the one saved in ``config.cache.saved_dir``, else an empty one.

        Args:
            weights: of the model; where they are, the engine computes.
            tokenizer: of the model.
            config: routing, context and budgets.
            model_name: for reports.
            model_fingerprint: sha256 over the model's files, for reports and saved states.
            kv_dtype: of stored K/V; None: that of the weights.

        Raises:
            KVStoreError: the disk tier cannot be set up.
            SavedStateError: the saved state is damaged, or of another model, geometry or format.
        """
        self.tokenizer = tokenizer
        self.config = config
        self.model_config: ModelConfig = weights.config
        self.model_name = model_name
        self.fingerprint = model_fingerprint
        self._weights_bytes = weights.bytes()
        self._decoder = Decoder(weights)
        model, router = weights.config, config.router
        self._device = device = weights.final_norm.device
        dtype = kv_dtype or weights.embedding.dtype
        self._slice_tokens = config.slice_on(device.type)
        self._host_store = TieredKVStore(
            model, router, config.cache, dtype, is_pinned=device.type == "cuda"
        )
        self._plan = self._plan_device(weights, dtype) if device.type == "cuda" else None
        self._index = RoutingIndex(model, router, config.cache.context, dtype, device)
        self._store: KVStore = self._host_store
        self._device_store: DeviceKVStore | None = None
        self._graph: DecodeGraph | None = None
        if self._plan is not None:
            self._use_device(weights, dtype, self._plan.cached_pages)
        self._attention = RoutedAttention(model, router, self._store, self._index, device)
        self._stored_ids: list[int] = []
        """Tokens whose K/V is in the store."""
        self._pending: list[int] = []
        """Tokens of the session whose K/V is not computed yet: the end of the last answer."""
        self._saved: SavedState | None = None
        if config.cache.saved_dir is not None:
            self._saved = SavedState(
                config.cache.saved_dir,
                model_name,
                model_fingerprint,
                config.router,
                geometry(weights.config, config.router, config.cache.context, dtype),
                self._host_store,
                self._index,
                self._store,
            )
            try:
                token_ids, stored = self._saved.resume()
            except BaseException:
                self.close()
                raise
            if self._device_store is not None:
                self._device_store.take_host_lengths()
            self._stored_ids, self._pending = token_ids[:stored], token_ids[stored:]

    def _plan_device(self, weights: ModelWeights, dtype: torch.dtype) -> DevicePlan:
        """What the session will take of the GPU's memory, beside the weights that are there."""
        torch.cuda.empty_cache()
        now, weights_bytes = device_memory(self._device), weights.device_bytes()
        return plan_device(
            weights.config,
            self.config,
            self._slice_tokens,
            weights_bytes,
            now.used_bytes - weights_bytes,
            now.total_bytes,
            dtype,
        )

    def _use_device(self, weights: ModelWeights, dtype: torch.dtype, cached_pages: int) -> None:
        """Put a tier on the GPU before the host's, and decode there."""
        # Not to be imported where there is no GPU.
        from hga_engine.decode_graph import DecodeGraph
        from hga_engine.kv_store.device import DeviceKVStore

        model, router = weights.config, self.config.router
        store = DeviceKVStore(model, router, self._host_store, dtype, self._device, cached_pages)
        self._store = self._device_store = store
        if router.router == "hga":
            self._graph = DecodeGraph(weights, router, store, self._index, self._decoder)

    @property
    def token_ids(self) -> list[int]:
        """All tokens of the session, in order."""
        return [*self._stored_ids, *self._pending]

    @property
    def num_tokens(self) -> int:
        """Tokens in the session."""
        return self._stored + len(self._pending)

    @property
    def _stored(self) -> int:
        return self._store.length(0)

    def _require_room(self, tokens: int) -> None:
        room = self.config.cache.context - self.num_tokens
        if tokens > room:
            raise ContextFullError(
                f"{tokens:,} more tokens do not fit: the session holds {self.num_tokens:,} of "
                f"{self.config.cache.context:,}. Use a larger --context or less text."
            )

    def check(self) -> None:
        """Wait until a resumed session has been read from disk and checked.

        ``read``, ``logits``, ``answer`` and ``save`` do so first by themselves.

        Raises:
            SavedStateError: a file is damaged or cannot be read; the session cannot be used.
        """
        if self._saved is not None:
            self._saved.wait()

    def save(self) -> None:
        """Make the state in ``saved_dir`` that of the session; without one nothing is done.

        Only pages that are not on disk yet are written. Not to be called while ``read`` or
        ``answer`` go on.

        Raises:
            SavedStateError: what was resumed turns out to be damaged.
            KVStoreError: the state cannot be written. What was saved last is whole, and the
                session goes on.
        """
        if self._saved is not None:
            if self._device_store is not None:
                self._device_store.flush()
            self._saved.save(self.token_ids, self._stored)

    def _prepare(self) -> None:
        """Before K/V is used and grows."""
        if self._saved is not None:
            self._saved.wait()
            self._saved.before_growth()

    def _project(self, layer: int, hidden: torch.Tensor, start: int) -> torch.Tensor:
        """Store and index K/V of the tokens; give their queries [tokens, query_heads, head_dim]."""
        queries, keys, values = self._decoder.project(layer, hidden, start)
        self._store.append(layer, keys, values)
        self._index.extend(layer, self._store)
        return queries

    def _layer(
        self,
        layer: int,
        hidden: torch.Tensor,
        start: int,
        rule: Rule,
        reading: Reading | None = None,
        with_mass: bool = False,
    ) -> torch.Tensor:
        """Take [tokens, hidden_size] at positions from ``start`` on through one layer."""
        queries = self._project(layer, hidden, start)
        attended = self._attention.attend(layer, queries, start, rule, reading, with_mass)
        return self._decoder.finish(layer, hidden, attended)

    def read(
        self, token_ids: Sequence[int], cancel: threading.Event | None = None
    ) -> Iterator[PrefillProgress]:
        """Append known text, layer after layer over all of it, by the prefill rule.

        Each layer's weights are read once, and its K/V is at hand while the layer runs. The last
        layer gives only its K/V. If ``cancel`` is set or the iterator is closed, the session is as
        before.

        Args:
            token_ids: the text.
            cancel: set by another thread to stop.

        Yields:
            Progress after each step.

        Raises:
            ContextFullError: the text does not fit; the session is as before.
            SavedStateError: what was resumed is damaged.
        """
        if not token_ids:
            return
        self._prepare()
        self._require_room(len(token_ids))
        tokens, self._pending = [*self._pending, *token_ids], []
        start = self._stored
        began = time.perf_counter()
        finished = False
        try:
            with closing(self._read_layers(tokens, start, began)) as steps:
                for progress in steps:
                    if cancel is not None and cancel.is_set():
                        return
                    finished = progress.done == progress.total
                    yield progress
        finally:
            if finished:
                self._stored_ids += tokens
            else:
                self._cut(start)
                self._pending = tokens[: len(tokens) - len(token_ids)]

    @torch.inference_mode()
    def _read_layers(
        self, tokens: list[int], start: int, began: float
    ) -> Generator[PrefillProgress, None, None]:
        slices = self._slices(start, len(tokens))
        hidden = self._decoder.embed(torch.tensor(tokens), self._long_memory(len(tokens)))
        layers = self.model_config.num_layers
        steps = 0
        pace = Pace(self._device)
        for layer in range(layers):
            self._store.open_layer(layer)
            try:
                for first, last in slices:
                    part = hidden[first:last]
                    if layer == layers - 1:
                        self._project(layer, part, start + first)
                    else:
                        hidden[first:last] = self._layer(layer, part, start + first, "prefill")
                    steps += 1
                    pace.step()
                    if steps == layers * len(slices):
                        pace.finish()
                    yield PrefillProgress(
                        steps, layers * len(slices), len(tokens), time.perf_counter() - began
                    )
            finally:
                self._store.close_layer(layer)

    def _long_memory(self, tokens: int) -> torch.Tensor | None:
        """Room for the hidden states of a text, where the device is short of it."""
        if self._device_store is None or tokens <= self._slice_tokens:
            return None
        return self._device_store.borrow(tokens, self.model_config.hidden_size)

    def _slices(self, start: int, tokens: int) -> list[tuple[int, int]]:
        """Ranges that end on multiples of the slice size in the session, so on chunk borders."""
        size = self._slice_tokens
        borders = [*range(size - start % size, tokens, size), tokens]
        return list(zip([0, *borders[:-1]], borders, strict=True))

    @torch.inference_mode()
    def logits(
        self,
        token_ids: Sequence[int],
        rule: Rule = "decode",
        reading: Reading | None = None,
        hidden_groups: Sequence[int] = (),
    ) -> Iterator[torch.Tensor]:
        """Append tokens slice by slice and give the logits of each: for scoring a known text.

        Args:
            token_ids: the text; a whole one for the prefill rule.
            rule: how selections are shared.
            reading: where to count what was attended to.
            hidden_groups: groups of the session that these tokens must not attend to.

        Yields:
            [tokens of the slice, vocab] at least float32.

        Raises:
            ContextFullError: the text does not fit.
            SavedStateError: what was resumed is damaged.
        """
        self._prepare()
        self._require_room(len(token_ids))
        tokens, self._pending = [*self._pending, *token_ids], []
        start = self._stored
        for first, last in self._slices(start, len(tokens)):
            self._attention.hide(hidden_groups)
            try:
                hidden = self._append(tokens[first:last], rule, reading)
            finally:
                self._attention.hide(())
            yield self._decoder.logits(hidden)

    def _append(
        self,
        tokens: Sequence[int],
        rule: Rule,
        reading: Reading | None = None,
        with_mass: bool = False,
    ) -> torch.Tensor:
        """Take one slice through all layers: [tokens, hidden_size]."""
        start = self._stored
        hidden = self._decoder.embed(torch.tensor(list(tokens)))
        try:
            for layer in range(self.model_config.num_layers):
                hidden = self._layer(layer, hidden, start, rule, reading, with_mass)
        except BaseException:
            # Layers that are done would hold more than the others.
            self._cut(start)
            raise
        self._stored_ids += tokens
        return hidden

    @torch.inference_mode()
    def answer(
        self,
        prompt_ids: Sequence[int],
        sampling: SamplingParams,
        cancel: threading.Event | None = None,
    ) -> Iterator[Event]:
        """Append a prompt and generate, both by the decode rule.

        What was generated stays in the session, without the end token. If ``cancel`` is set while
        the prompt is read, the session is as before; during the answer, its part is kept.

        Args:
            prompt_ids: the prompt, at least one token.
            sampling: how tokens are drawn.
            cancel: set by another thread to stop.

        Yields:
            PrefillProgress while the prompt is read, a TextDelta a token, then one Finished.

        Raises:
            ContextFullError: the prompt does not fit; the session is as before.
            SavedStateError: what was resumed is damaged.
        """
        clock = AnswerClock()
        self._prepare()
        # And room for the first token of the answer.
        self._require_room(len(prompt_ids) + 1)
        kept_pending, start = self._pending, self._stored
        tokens, self._pending = [*kept_pending, *prompt_ids], []
        # The last token is decoded, so that the first word's reading is traced as well.
        slices = self._slices(start, len(tokens) - 1) if len(tokens) > 1 else []
        is_read = False
        try:
            for done, (first, last) in enumerate(slices, 1):
                if cancel is not None and cancel.is_set():
                    break
                self._append(tokens[first:last], "decode")
                yield PrefillProgress(done, len(slices), len(tokens), clock.seconds)
            is_read = cancel is None or not cancel.is_set()
        finally:
            if not is_read:
                self.truncate(start)
                self._pending = kept_pending
        if not is_read:
            yield clock.finished("cancelled", len(prompt_ids), 0, 1.0)
            return
        self._pending = tokens[-1:]
        clock.prompt_read()
        yield from self._generate(tokens[-1], len(prompt_ids), sampling, cancel, clock)

    def _generate(
        self,
        token: int,
        prompt_tokens: int,
        sampling: SamplingParams,
        cancel: threading.Event | None,
        clock: AnswerClock,
    ) -> Iterator[Event]:
        detokenizer = Detokenizer(self.tokenizer)
        reading = Reading(0)
        generated = 0
        reason: FinishReason = "length"
        steps = self._steps if self._graph is None else self._graph_steps
        with closing(steps(token, sampling, reading)) as tokens:
            for token, trace in tokens:
                clock.token_sampled()
                if token in self.tokenizer.end_tokens and not sampling.ignore_end:
                    reason = "stop"
                    break
                generated += 1
                self._pending = [token]
                yield TextDelta(detokenizer.push(token), token, trace)
                if generated == sampling.max_new_tokens or not self._has_room():
                    break
                if cancel is not None and cancel.is_set():
                    reason = "cancelled"
                    break
        rest = detokenizer.finish()
        if rest:
            yield TextDelta(rest, -1, trace)
        yield clock.finished(reason, prompt_tokens, generated, reading.sparsity)

    def _has_room(self) -> bool:
        return self.num_tokens < self.config.cache.context

    def _steps(
        self, token: int, sampling: SamplingParams, total: Reading
    ) -> Generator[tuple[int, Trace], None, None]:
        """Decode from ``token`` on, one step after the other: each next token and what was read."""
        sampler = Sampler(sampling)
        while True:
            position = self._stored
            reading = Reading(position // self.config.router.group_size + 1)
            hidden = self._append([token], "decode", reading, with_mass=True)
            self._pending = []
            total.attended += reading.attended
            total.visible += reading.visible
            token = sampler.sample(self._decoder.logits(hidden)[0])
            yield token, self._attention.trace(position, reading)

    def _graph_steps(
        self, token: int, sampling: SamplingParams, total: Reading
    ) -> Generator[tuple[int, Trace], None, None]:
        """``_steps`` as a CUDA graph."""
        assert self._graph is not None
        room = min(sampling.max_new_tokens, self.config.cache.context - self._stored)
        with closing(self._graph.run(token, self._stored, room, sampling)) as results:
            for following, mass, chosen in results:
                position = self._stored
                self._graph.advance()
                self._stored_ids.append(token)
                self._pending = []
                token = following
                reading = self._attention.decode_reading(position, mass, chosen)
                total.attended += reading.attended
                total.visible += reading.visible
                yield token, self._attention.trace(position, reading)

    def truncate(self, tokens: int) -> None:
        """Drop everything from position ``tokens`` on."""
        stored = self._stored
        self._pending = self._pending[: max(0, tokens - stored)]
        if tokens < stored:
            self._cut(tokens)

    # K/V was written in inference mode, and is only changed there.
    @torch.inference_mode()
    def _cut(self, tokens: int) -> None:
        """Drop K/V and index entries from position ``tokens`` on, in every layer."""
        del self._stored_ids[tokens:]
        if self._saved is not None:
            self._saved.cut(tokens)
        self._store.truncate(tokens)
        self._index.truncate(tokens)

    def memory(self) -> MemoryFigures:
        """Bytes in use now."""
        usage = self._store.usage()
        device = device_memory(self._device)
        return MemoryFigures(
            weights_bytes=self._weights_bytes,
            index_bytes=self._index.bytes(),
            kv_device_bytes=usage.device_bytes,
            kv_host_bytes=usage.host_bytes,
            kv_disk_bytes=usage.disk_bytes,
            device_peak_bytes=device.peak_bytes,
            device_used_bytes=device.used_bytes,
            device_reserved_bytes=device.reserved_bytes,
            device_allocated_bytes=device.allocated_bytes,
            device_total_bytes=device.total_bytes,
            device_planned_bytes=0 if self._plan is None else self._plan.total,
            host_peak_bytes=ledger.peak_resident_bytes(),
            host_resident_bytes=ledger.resident_bytes(),
            host_total_bytes=ledger.total_memory_bytes(),
            kv_host_capacity_bytes=usage.host_capacity_bytes,
            kv_disk_capacity_bytes=usage.disk_capacity_bytes,
        )

    def page_hit_rate(self) -> float:
        """Share of the pages fetched so far that were in host memory already."""
        return self._store.usage().hit_rate

    def close(self) -> None:
        """Give memory and files back; what was saved stays. The weights are the caller's."""
        if self._saved is not None:
            self._saved.close()
        self._graph = None
        self._store.close()
        self._index.close()
        if self._device_store is not None:
            # For whoever plans with what the driver says is free.
            torch.cuda.empty_cache()
