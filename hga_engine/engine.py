"""The engine: prefills documents, answers questions, and reports its progress as events.

The path of a token: embed, then per layer project to q, k, v; append k, v to the store; extend the
index; select; fetch pages; attend; finish the layer; at the end logits and the sampler.
"""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hga_engine.attention.routed import RoutedAttention, Rule
from hga_engine.attention.trace import AttentionTotals
from hga_engine.config import LEAST_BUDGET, ModelConfig, SamplingParams, SessionConfig
from hga_engine.decode_step import DecodeStep, make_decode_step
from hga_engine.errors import ContextFullError, FixedBudgetError
from hga_engine.events import Event, FinishReason, PrefillProgress, TextDelta, Trace
from hga_engine.forward import ForwardPass
from hga_engine.memory.figures import MemoryFigures, memory_figures
from hga_engine.memory.probes import device_memory
from hga_engine.model.decoder import Decoder
from hga_engine.model.rope import for_context
from hga_engine.model.types import ModelWeights
from hga_engine.sampler import Sampler
from hga_engine.saved_state.state import SavedState, geometry
from hga_engine.tiers import make_tiers
from hga_engine.timing import AnswerClock
from hga_engine.tokenizer.tokenizer import Detokenizer, Tokenizer

if TYPE_CHECKING:
    from hga_engine.decode_graph import DecodeGraph


class Engine:
    """One model and one session. Owned by one thread; only ``cancel`` events cross threads."""

    def __init__(
        self,
        weights: ModelWeights,
        tokenizer: Tokenizer,
        config: SessionConfig,
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
            LongContextError: the model cannot be used for such a context.
            KVStoreError: the disk tier cannot be set up.
            SavedStateError: the saved state is damaged, or of another model, geometry or format.
        """
        self.tokenizer = tokenizer
        self.config = config
        self.model_config: ModelConfig = for_context(weights.config, config.cache.context)
        self.model_name = model_name
        self.fingerprint = model_fingerprint
        self._weights_bytes = weights.bytes()
        model, routing = self.model_config, config.routing
        self._decoder = Decoder(weights, model)
        self._device = device = weights.final_norm.device
        dtype = kv_dtype or weights.dtype
        tiers = self._tiers = make_tiers(weights, model, config, dtype)
        self._store, self._index = tiers.store, tiers.index
        self._attention = RoutedAttention(model, routing, self._store, self._index, device)
        self._tracer = self._attention.tracer
        self._graph = self._make_graph(weights)
        groups = -(-config.cache.context // routing.group_size)
        self._layer_mass = torch.zeros(model.num_layers, groups)
        self._is_replayed = self._graph is not None
        """Whether the last answer was decoded by the graph."""
        self._weights = weights
        step = self._make_step()
        dtypes = (weights.dtype, dtype)
        self._layers = ForwardPass(
            model, self._decoder, self._attention, tiers, config, device, dtypes, step
        )
        self._stored_ids: list[int] = []
        """Tokens whose K/V is in the store."""
        self._pending: list[int] = []
        """Tokens of the session whose K/V is not computed yet: the end of the last answer."""
        self._saved: SavedState | None = None
        if config.cache.saved_dir is not None:
            self._saved = self._resume(config.cache.saved_dir, dtype)

    def _resume(self, folder: Path, dtype: torch.dtype) -> SavedState:
        """Fill the empty session with what is saved in ``folder``."""
        routing, tiers = self.config.routing, self._tiers
        saved = SavedState(
            folder,
            self.model_name,
            self.fingerprint,
            routing,
            geometry(self.model_config, routing, self.config.cache.context, dtype),
            tiers.host,
            self._index,
            self._store,
        )
        try:
            token_ids, stored = saved.resume()
        except BaseException:
            saved.close()
            self.close()
            raise
        if tiers.device is not None:
            tiers.device.take_host_lengths()
        self._stored_ids, self._pending = token_ids[:stored], token_ids[stored:]
        return saved

    def _make_graph(self, weights: ModelWeights) -> "DecodeGraph | None":
        """Return the graph that decodes on a GPU; None: decoding takes single steps."""
        tiers, routing = self._tiers, self.config.routing
        if tiers.device is None or routing.kind != "hga":
            return None
        # Needs triton, so it is imported only where there is a GPU.
        from hga_engine.decode_graph import DecodeGraph

        return DecodeGraph(weights, routing, tiers.device, tiers.index, self._decoder, self._tracer)

    def _make_step(self) -> DecodeStep | None:
        return make_decode_step(
            self._weights,
            self.model_config,
            self.config.routing,
            self._decoder,
            self._tiers.host,
            self._index,
            self._tracer,
        )

    def set_budget(self, tokens: int) -> None:
        """Let queries attend to another number of tokens by the decode rule from now on.

        K/V stays as it is, and a saved state that of the budget with which it was opened.

        Args:
            tokens: most tokens beyond the window, per KV head.

        Raises:
            ValueError: they are fewer than ``LEAST_BUDGET``.
            FixedBudgetError: the session is on a GPU.
        """
        if tokens < LEAST_BUDGET:
            raise ValueError(f"a budget is at least {LEAST_BUDGET} tokens")
        if self._tiers.device is not None:
            raise FixedBudgetError
        routing = self.config.routing
        routing = replace(routing, decode_budget=tokens // routing.group_size)
        self.config = replace(self.config, routing=routing)
        self._attention.set_routing(routing)
        self._layers.set_decode_step(self._make_step())

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
            raise ContextFullError(tokens, self.num_tokens, self.config.cache.context)

    def check(self) -> None:
        """Wait until a resumed session is loaded from disk and checked.

        ``prefill``, ``logits``, ``answer`` and ``save`` do so themselves.

        Raises:
            SavedStateError: a file is damaged or cannot be read; the session cannot be used.
        """
        if self._saved is not None:
            self._saved.wait()

    def save(self) -> None:
        """Write the session to ``config.cache.saved_dir``; do nothing if there is none.

        Only pages that are not on disk yet are written. Must not be called while ``prefill`` or
        ``answer`` runs.

        Raises:
            SavedStateError: what was resumed turns out to be damaged.
            KVStoreError: the state cannot be written. What was saved last is whole, and the
                session goes on.
        """
        if self._saved is not None:
            if self._tiers.device is not None:
                self._tiers.device.flush()
            self._saved.save(self.token_ids, self._stored)

    def _prepare(self) -> None:
        """Make it safe to use K/V and to append to it."""
        if self._saved is not None:
            self._saved.wait()
            self._saved.before_growth()

    def prefill(
        self, token_ids: Sequence[int], cancel: threading.Event | None = None
    ) -> Generator[PrefillProgress, None, None]:
        """Append known text, layer after layer over all of it, by the prefill rule.

        Each layer's weights are read once, and its K/V is resident while the layer runs. The last
        layer computes only its K/V. If ``cancel`` is set or the iterator is closed, the session is
        as before.

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
            with closing(self._layers.prefill(tokens, start)) as steps:
                for done, total in steps:
                    if cancel is not None and cancel.is_set():
                        return
                    finished = done == total
                    seconds = time.perf_counter() - began
                    yield PrefillProgress(done, total, len(tokens), seconds)
        finally:
            if finished:
                self._stored_ids += tokens
            else:
                self._cut(start)
                self._pending = tokens[: len(tokens) - len(token_ids)]

    def leave_out(self, groups: Sequence[int]) -> None:
        """Keep these groups from what follows: ``answer`` and ``logits`` do not attend to them.

        Their K/V stays in the session. ``prefill`` attends to everything.

        Args:
            groups: instead of those left out before; none: nothing is left out.
        """
        self._attention.leave_out(groups)

    @torch.inference_mode()
    def logits(
        self,
        token_ids: Sequence[int],
        rule: Rule = "decode",
        totals: AttentionTotals | None = None,
        hidden_groups: Sequence[int] = (),
    ) -> Iterator[torch.Tensor]:
        """Append tokens slice by slice and yield the logits of each, to score a known text.

        Args:
            token_ids: the text; a whole one for the prefill rule.
            rule: how selections are shared.
            totals: where to count what was attended to.
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
        for first, last in self._layers.slices(start, len(tokens)):
            self._attention.hide(hidden_groups)
            try:
                hidden = self._append(tokens[first:last], rule, totals)
            finally:
                self._attention.hide(())
            yield self._decoder.logits(hidden)

    def _append(
        self,
        tokens: Sequence[int],
        rule: Rule,
        totals: AttentionTotals | None = None,
        with_mass: bool = False,
    ) -> torch.Tensor:
        """Take one slice through all layers; return [tokens, hidden_size]."""
        start = self._stored
        try:
            hidden = self._layers.append(tokens, start, rule, totals, with_mass)
        except BaseException:
            # Layers that are done would hold more tokens than the others.
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

        Generated tokens stay in the session, without the end token. If ``cancel`` is set during the
        prompt, the session is as before; later, it keeps the prompt and what was generated.

        Args:
            prompt_ids: the prompt, at least one token.
            sampling: how tokens are drawn.
            cancel: set by another thread to stop.

        Yields:
            PrefillProgress during the prompt, a TextDelta per token, then one Finished.

        Raises:
            ContextFullError: the prompt does not fit; the session is as before.
            SavedStateError: what was resumed is damaged.
        """
        clock = AnswerClock()
        self._prepare()
        # With room for the first token of the answer.
        self._require_room(len(prompt_ids) + 1)
        old_pending, start = self._pending, self._stored
        tokens, self._pending = [*old_pending, *prompt_ids], []
        # The last token is decoded, so that the first token of the answer is traced as well.
        slices = self._layers.slices(start, len(tokens) - 1) if len(tokens) > 1 else []
        is_prefilled = False
        try:
            for done, (first, last) in enumerate(slices, 1):
                if cancel is not None and cancel.is_set():
                    break
                self._append(tokens[first:last], "decode")
                yield PrefillProgress(done, len(slices), len(tokens), clock.seconds)
            is_prefilled = cancel is None or not cancel.is_set()
        finally:
            if not is_prefilled:
                self.truncate(start)
                self._pending = old_pending
        if not is_prefilled:
            yield clock.finished("cancelled", len(prompt_ids), 0, 1.0)
            return
        self._pending = tokens[-1:]
        clock.prompt_prefilled()
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
        totals = AttentionTotals(0)
        generated = 0
        reason: FinishReason = "length"
        self._is_replayed = self._graph is not None and not self._attention.leaves_out
        steps = self._graph_steps if self._is_replayed else self._steps
        with closing(steps(token, sampling, totals)) as tokens:
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
        yield clock.finished(reason, prompt_tokens, generated, totals.sparsity)

    def _has_room(self) -> bool:
        return self.num_tokens < self.config.cache.context

    def _steps(
        self, token: int, sampling: SamplingParams, total: AttentionTotals
    ) -> Generator[tuple[int, Trace], None, None]:
        """Decode from ``token`` on, step by step: yield each next token and its trace."""
        sampler = Sampler(sampling)
        self._layer_mass.zero_()
        while True:
            position = self._stored
            groups = position // self.config.routing.group_size + 1
            totals = AttentionTotals(groups, layer_mass=self._layer_mass)
            hidden = self._append([token], "decode", totals, with_mass=True)
            self._pending = []
            total.attended += totals.attended
            total.visible += totals.visible
            token = sampler.sample(self._decoder.logits(hidden)[0])
            yield token, self._tracer.trace(position, totals)

    def _graph_steps(
        self, token: int, sampling: SamplingParams, total: AttentionTotals
    ) -> Generator[tuple[int, Trace], None, None]:
        """Decode as ``_steps`` does, by replaying a CUDA graph."""
        assert self._graph is not None
        room = min(sampling.max_new_tokens, self.config.cache.context - self._stored)
        with closing(self._graph.run(token, self._stored, room, sampling)) as results:
            for following, mass, chosen in results:
                position = self._stored
                self._graph.advance()
                self._stored_ids.append(token)
                self._pending = []
                token = following
                totals = self._tracer.decode_totals(position, mass, chosen)
                total.attended += totals.attended
                total.visible += totals.visible
                yield token, self._tracer.trace(position, totals)

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
        """Return the bytes in use now."""
        return memory_figures(
            self._weights_bytes,
            self._index.bytes(),
            self._tiers.planned_bytes,
            self._store.usage(),
            device_memory(self._device),
        )

    def layer_mass(self) -> torch.Tensor:
        """Return the attention mass of each layer for the answer so far, or for the last one.

        On a GPU it lags a little while tokens are decoded, so that no token waits for it.

        Returns:
            [layers, bins] float32: as traces report it, summed over the answer; the window is zero.
        """
        mass = self._layer_mass
        if self._graph is not None and self._is_replayed:
            mass = self._graph.layer_mass()
        return self._tracer.by_layer(max(self._stored - 1, 0), mass)

    def page_hit_rate(self) -> float:
        """Return the share of page requests that hit: on the GPU, else in host memory."""
        return self._store.usage().hit_rate

    def close(self) -> None:
        """Give memory and files back; what was saved stays. The weights belong to the caller."""
        if self._saved is not None:
            self._saved.close()
        self._graph = None
        self._tiers.close()
