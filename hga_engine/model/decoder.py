"""Decoder layers without attention."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hga_engine.config import ModelConfig
from hga_engine.model.rope import frequencies
from hga_engine.model.types import LayerWeights, ModelWeights
from hga_kernels import (
    Angles,
    HeadWeights,
    Packed,
    RowParts,
    experts,
    gather_rows,
    linear,
    mlp,
    norm_linear,
    split_heads,
)


class Decoder:
    """Computes what comes before and after attention in each layer.

    Works in the dtype and on the device of its weights. What architectures differ in shows in
    which weights there are: norms of queries and keys, biases, experts.
    """

    def __init__(self, weights: ModelWeights, config: ModelConfig | None = None) -> None:
        """Set up the layers.

        Args:
            weights: of the model.
            config: geometry with the RoPE scaling to use; None for that of the weights.
        """
        self._weights = weights
        self._config = config = config or weights.config
        self._rotation = Rotation(
            frequencies(config),
            1.0 if config.rope_scaling is None else config.rope_scaling.attention_factor,
            torch.promote_types(weights.dtype, torch.float32),
            weights.device,
        )
        self._layers = list(weights.layers)
        self._heads = [self._head_weights(layer) for layer in weights.layers]

    def head_weights(self, layer: int) -> HeadWeights:
        """Return what a layer applies to its queries, keys and values."""
        return self._heads[layer]

    def _head_weights(self, layer: LayerWeights) -> HeadWeights:
        config = self._config
        shift = None
        if layer.qkv_bias is not None:
            first = config.num_query_heads * config.head_dim
            bias = layer.qkv_bias[first : first + config.num_kv_heads * config.head_dim]
            shift = self._rotation.mean(
                bias.view(config.num_kv_heads, config.head_dim), config.max_positions
            )
        return HeadWeights(layer.q_norm, layer.k_norm, config.rms_norm_eps, layer.qkv_bias, shift)

    @contextmanager
    def unpacked(self, layer: int) -> Iterator[None]:
        """Hold the packed weights of a layer in bf16 as well, for many slices of tokens.

        On a GPU only: a CPU multiplies packed weights as fast as it unpacks them.
        """
        held = self._layers[layer]
        if self._weights.device.type == "cuda":
            # Imports Triton.
            from hga_kernels.gpu import unpack

            self._layers[layer] = LayerWeights(
                **{
                    name: unpack(weight) if isinstance(weight, Packed | RowParts) else weight
                    for name, weight in vars(held).items()
                }
            )
        try:
            yield
        finally:
            self._layers[layer] = held

    def angles(self, context: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return RoPE's cosines and sines [context, head_dim / 2] in float32 or wider."""
        return self._rotation.angles(0, context)

    def angles_of(self, position: int) -> Angles:
        """Return RoPE's angles of one position."""
        return Angles(*self._rotation.angles(position, position + 1))

    def embed(self, token_ids: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the hidden states before the first layer.

        Args:
            token_ids: [tokens] integers.
            out: [tokens, hidden] memory for the result; None allocates it.

        Returns:
            [tokens, hidden].
        """
        token_ids = token_ids.to(self._weights.device)
        return gather_rows(token_ids, self._weights.embedding, out, self._weights.dtype)

    def project(
        self, layer: int, hidden: torch.Tensor, start: int, dtype: torch.dtype | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute queries, keys and values of one layer, after RoPE.

        Args:
            layer: layer number.
            hidden: [tokens, hidden].
            start: position of the first token.
            dtype: of the result; None: that of ``hidden``.

        Returns:
            queries [tokens, query_heads, head_dim], keys and values [tokens, kv_heads, head_dim].
        """
        config, weights = self._config, self._layers[layer]
        heads = norm_linear(hidden, weights.attention_norm, config.rms_norm_eps, weights.qkv)
        return split_heads(
            heads,
            self._heads[layer],
            Angles(*self._rotation.angles(start, start + hidden.shape[0])),
            config.num_query_heads,
            config.num_kv_heads,
            dtype,
        )

    def finish(self, layer: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Apply output projection, residual, MLP or experts, and residual.

        Args:
            layer: layer number.
            hidden: [tokens, hidden] as passed to ``project``.
            attended: [tokens, query_heads, head_dim] output of attention; on a GPU also narrower
                than ``hidden``.

        Returns:
            [tokens, hidden] input of the next layer.
        """
        weights = self._layers[layer]
        hidden = linear(attended.flatten(1), weights.output, hidden.dtype, hidden)
        return self.feed_forward(layer, hidden)

    def feed_forward(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """Apply MLP or experts, and residual, to [tokens, hidden] after attention."""
        config, weights = self._config, self._layers[layer]
        norm, eps = weights.mlp_norm, config.rms_norm_eps
        if weights.expert_gate is None:
            return mlp(hidden, norm, eps, weights.gate_up, weights.down)
        return experts(
            hidden,
            norm,
            eps,
            weights.expert_gate,
            weights.gate_up,
            weights.down,
            config.experts_per_token,
            config.normalize_expert_weights,
        )

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return next-token scores.

        Args:
            hidden: [tokens, hidden] after the last layer.

        Returns:
            [tokens, vocab] float32 (float64 for float64 weights).
        """
        wide = torch.promote_types(hidden.dtype, torch.float32)
        norm, eps = self._weights.final_norm, self._config.rms_norm_eps
        return norm_linear(hidden, norm, eps, self._weights.lm_head, wide)


class Rotation:
    """A table of RoPE's angles that grows with the positions asked for."""

    def __init__(
        self,
        frequencies: torch.Tensor,
        attention_factor: float,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Make an empty table.

        Args:
            frequencies: [head_dim / 2] float64.
            attention_factor: what cosines and sines are multiplied by.
            dtype: type of cosines and sines.
            device: device of the table.
        """
        self._frequencies = frequencies.to(device)
        self._attention_factor = attention_factor
        self._cos = torch.empty(0, len(frequencies), dtype=dtype, device=device)
        self._sin = self._cos

    def mean(self, heads: torch.Tensor, positions: int) -> torch.Tensor:
        """Return the mean of heads [n, head_dim] float32 rotated to each of so many positions."""
        # The mean of exp(i t p) over positions p < n, in closed form.
        half = self._frequencies.to(heads.device) / 2
        size = (positions * half).sin() / (positions * half.sin()) * self._attention_factor
        cos, sin = size * ((positions - 1) * half).cos(), size * ((positions - 1) * half).sin()
        first, second = heads.double().chunk(2, -1)
        rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
        return rotated.to(heads.dtype)

    def angles(self, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines [end - start, head_dim / 2] of positions [start, end)."""
        held = self._cos.shape[0]
        if end > held:
            positions = torch.arange(
                max(end, 2 * held), dtype=torch.float64, device=self._frequencies.device
            )
            angles = torch.outer(positions, self._frequencies)
            self._cos = (angles.cos() * self._attention_factor).to(self._cos.dtype)
            self._sin = (angles.sin() * self._attention_factor).to(self._sin.dtype)
        return self._cos[start:end], self._sin[start:end]
