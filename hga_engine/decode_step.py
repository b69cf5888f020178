"""Decoding on a CPU: a layer in one call of the C library, without torch in between."""

import torch

from hga_engine.attention.index import RoutingIndex
from hga_engine.attention.trace import AttentionTotals, Tracer
from hga_engine.config import ModelConfig, Routing
from hga_engine.kv_store.tiered import TieredKVStore
from hga_engine.model.decoder import Decoder
from hga_engine.model.types import ModelWeights
from hga_kernels import (
    Budget,
    DecodeCounts,
    DecodeLayer,
    DecodeLayers,
    takes_decode_layers,
)


class DecodeStep:
    """Takes the tokens of an answer through the layers of a model, one by one.

    ``ForwardPass`` does the same in steps of one token: the same kernels, called from Python. It
    runs where this cannot: see ``make_decode_step``.
    """

    def __init__(
        self,
        model: ModelConfig,
        routing: Routing,
        decoder: Decoder,
        store: TieredKVStore,
        index: RoutingIndex,
        tracer: Tracer,
        layers: DecodeLayers,
    ) -> None:
        """Set up the step of a session; its arguments are parts of it."""
        self._model = model
        self._routing = routing
        self._decoder = decoder
        self._store = store
        self._index = index
        self._tracer = tracer
        self._layers = layers

    def run(self, token: int, position: int, totals: AttentionTotals) -> torch.Tensor:
        """Take a token through all layers; store and index its K/V.

        Args:
            token: the token.
            position: its position, which is the length of every layer.
            totals: where to count what is attended to, by layer as well; its ``group_mass`` holds
                every group up to the token's.

        Returns:
            [1, hidden_size] after the last layer.
        """
        assert totals.layer_mass is not None
        hidden = self._decoder.embed(torch.tensor([token])).contiguous()
        angles = self._decoder.angles_of(position)
        counts = DecodeCounts(
            totals.group_mass, totals.layer_mass, self._tracer.reported_groups(position)
        )
        for layer in range(self._model.num_layers):
            self._store.grow(layer, position + 1)
            self._layers.run(layer, hidden, angles, position, counts)
            self._index.extend(layer, self._store)
            if self._model.has_experts(layer):
                hidden = self._decoder.feed_forward(layer, hidden)
        self._tracer.count_token(totals, position, counts.chosen)
        return hidden


def make_decode_step(
    weights: ModelWeights,
    model: ModelConfig,
    routing: Routing,
    decoder: Decoder,
    store: TieredKVStore,
    index: RoutingIndex,
    tracer: Tracer,
) -> DecodeStep | None:
    """Return the decode step of a session on a CPU.

    Returns:
        None where single steps are called from Python: for routers other than ``hga``, with pages
        beyond the host budget, and for types of weights and K/V that the library does not take.
    """
    if routing.kind != "hga" or store.spills or weights.device.type != "cpu":
        return None
    layers = [
        DecodeLayer(
            attention_norm=held.attention_norm,
            qkv=held.qkv,
            heads=decoder.head_weights(number),
            output=held.output,
            mlp_norm=held.mlp_norm,
            gate_up=None if model.has_experts(number) else held.gate_up,
            down=None if model.has_experts(number) else held.down,
            pool=store.pool(number),
            index=index.layer(number),
        )
        for number, held in enumerate(weights.layers)
    ]
    budget = Budget(routing.decode_budget, routing.group_size, routing.decode_odds)
    if not takes_decode_layers(layers, budget):
        return None
    taken = DecodeLayers(layers, routing.sink_chunks, budget)
    return DecodeStep(model, routing, decoder, store, index, tracer, taken)
