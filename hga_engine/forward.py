"""Tokens through the layers of a model, slice by slice, over what the session holds."""

from collections.abc import Generator, Sequence

import torch

from hga_engine.attention.routed import RoutedAttention, Rule
from hga_engine.attention.trace import AttentionTotals
from hga_engine.config import ModelConfig, SessionConfig
from hga_engine.decode_step import DecodeStep
from hga_engine.model.decoder import Decoder
from hga_engine.pace import Pace
from hga_engine.tiers import Tiers


class ForwardPass:
    """Compute hidden states; store and index K/V while doing so.

    Two orders: ``prefill`` takes a text through one layer after the other, ``append`` one slice
    through all of them. If either is interrupted, layers hold different numbers of tokens, and the
    caller has to truncate them.
    """

    def __init__(
        self,
        model: ModelConfig,
        decoder: Decoder,
        attention: RoutedAttention,
        tiers: Tiers,
        config: SessionConfig,
        device: torch.device,
        dtypes: tuple[torch.dtype, torch.dtype],
        step: DecodeStep | None = None,
    ) -> None:
        """Set up a forward pass over a session.

        Args:
            model: geometry of the model.
            decoder: of the model.
            attention: over ``tiers``.
            tiers: of the session.
            config: gives the size of a slice.
            device: where it is computed.
            dtypes: of hidden states, and of K/V.
            step: takes the tokens of answers through the layers; None: this does.
        """
        self._num_layers = model.num_layers
        self._hidden_size = model.hidden_size
        self._decoder = decoder
        self._attention = attention
        self._tiers = tiers
        self._slice_tokens = config.slice_tokens
        self._device = device
        self._dtype, self._kv_dtype = dtypes
        self._step = step

    def set_decode_step(self, step: DecodeStep | None) -> None:
        """Take the tokens of answers through the layers by another step."""
        self._step = step

    def slices(self, start: int, tokens: int) -> list[tuple[int, int]]:
        """Return ranges that end at slice boundaries, which are chunk boundaries.

        Args:
            start: position of the first token.
            tokens: how many there are.

        Returns:
            The first token of each slice and the one behind its last, counted from ``start``.
        """
        size = self._slice_tokens
        borders = [*range(size - start % size, tokens, size), tokens]
        return list(zip([0, *borders[:-1]], borders, strict=True))

    @torch.inference_mode()
    def prefill(self, tokens: Sequence[int], start: int) -> Generator[tuple[int, int], None, None]:
        """Take a text through layer after layer by the prefill rule; the last gives K/V only.

        Args:
            tokens: the text.
            start: position of the first token.

        Yields:
            The number of steps done, and of all steps.
        """
        slices, store = self.slices(start, len(tokens)), self._tiers.store
        hidden = self._decoder.embed(torch.tensor(tokens), self._long_memory(len(tokens)))
        total = self._num_layers * len(slices)
        done = 0
        pace = Pace(self._device)
        for layer in range(self._num_layers):
            store.open_layer(layer)
            try:
                with self._decoder.unpacked(layer):
                    for first, last in slices:
                        part = hidden[first:last]
                        if layer == self._num_layers - 1:
                            self._project(layer, part, start + first)
                        else:
                            hidden[first:last] = self._layer(layer, part, start + first, "prefill")
                        done += 1
                        pace.step()
                        if done == total:
                            pace.finish()
                        yield done, total
            finally:
                store.close_layer(layer)

    def append(
        self,
        tokens: Sequence[int],
        start: int,
        rule: Rule,
        totals: AttentionTotals | None = None,
        with_mass: bool = False,
    ) -> torch.Tensor:
        """Take one slice through all layers.

        Args:
            tokens: of the slice.
            start: position of the first.
            rule: how selections are shared.
            totals: where to count what was attended to.
            with_mass: whether to count attention mass per group as well.

        Returns:
            [tokens, hidden_size] after the last layer.
        """
        step = None if self._attention.leaves_out else self._step
        if step is not None and len(tokens) == 1 and totals is not None and with_mass:
            return step.run(tokens[0], start, totals)
        hidden = self._decoder.embed(torch.tensor(list(tokens)))
        for layer in range(self._num_layers):
            hidden = self._layer(layer, hidden, start, rule, totals, with_mass)
        return hidden

    def _project(self, layer: int, hidden: torch.Tensor, start: int) -> torch.Tensor:
        """Store and index K/V of the tokens; give their queries [tokens, query_heads, head_dim].

        From here on, queries have the type of K/V as well.
        """
        queries, keys, values = self._decoder.project(layer, hidden, start, self._kv_dtype)
        self._tiers.store.append(layer, keys, values)
        self._tiers.index.extend(layer, self._tiers.store)
        return queries

    def _layer(
        self,
        layer: int,
        hidden: torch.Tensor,
        start: int,
        rule: Rule,
        totals: AttentionTotals | None = None,
        with_mass: bool = False,
    ) -> torch.Tensor:
        """Take [tokens, hidden_size] at positions from ``start`` on through one layer."""
        queries = self._project(layer, hidden, start)
        attended = self._attention.attend(layer, queries, start, rule, totals, with_mass)
        if self._device.type == "cpu":
            attended = attended.to(self._dtype)
        return self._decoder.finish(layer, hidden, attended)

    def _long_memory(self, tokens: int) -> torch.Tensor | None:
        """Return memory for the hidden states of a text, where the device is short of it."""
        if self._tiers.device is None or tokens <= self._slice_tokens:
            return None
        return self._tiers.device.borrow((tokens, self._hidden_size), self._dtype)
