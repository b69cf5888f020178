"""The decoder layers of llama, qwen3 and qwen3_moe, without attention."""

import torch

from hga_engine.model.types import LayerWeights, ModelWeights
from hga_kernels import (
    Angles,
    HeadWeights,
    experts,
    gather_rows,
    linear,
    mlp,
    norm_linear,
    split_heads,
)


class Decoder:
    """Computes what comes before and after attention in each layer.

    Works in the dtype and on the device of its weights. The architectures differ in two ways:
    qwen3 and qwen3_moe normalise queries and keys per head, and qwen3_moe has experts.
    """

    def __init__(self, weights: ModelWeights) -> None:
        self._weights = weights
        self._config = weights.config
        self._rotation = Rotation(
            weights.config.head_dim,
            weights.config.rope_base,
            torch.promote_types(weights.dtype, torch.float32),
            weights.device,
        )
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

    def angles(self, context: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return RoPE's cosines and sines [context, head_dim / 2] in float32 or wider."""
        return self._rotation.angles(0, context)

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
        self, layer: int, hidden: torch.Tensor, start: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute queries, keys and values of one layer, after RoPE.

        Args:
            layer: layer number.
            hidden: [tokens, hidden].
            start: position of the first token.

        Returns:
            queries [tokens, query_heads, head_dim], keys and values [tokens, kv_heads, head_dim].
        """
        config, weights = self._config, self._weights.layers[layer]
        heads = norm_linear(hidden, weights.attention_norm, config.rms_norm_eps, weights.qkv)
        return split_heads(
            heads,
            self._heads[layer],
            Angles(*self._rotation.angles(start, start + hidden.shape[0])),
            config.num_query_heads,
            config.num_kv_heads,
        )

    def finish(self, layer: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Apply output projection, residual, MLP or experts, and residual.

        Args:
            layer: layer number.
            hidden: [tokens, hidden] as passed to ``project``.
            attended: [tokens, query_heads, head_dim] output of attention.

        Returns:
            [tokens, hidden] input of the next layer.
        """
        config, weights = self._config, self._weights.layers[layer]
        hidden = linear(attended.flatten(1), weights.output, residual=hidden)
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
        self, head_dim: int, base: float, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Make an empty table.

        Args:
            head_dim: head dimension of queries and keys.
            base: RoPE base of the model.
            dtype: type of cosines and sines.
            device: device of the table.
        """
        powers = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim
        self._frequencies = base**-powers
        self._cos = torch.empty(0, head_dim // 2, dtype=dtype, device=device)
        self._sin = self._cos

    def mean(self, heads: torch.Tensor, positions: int) -> torch.Tensor:
        """Return the mean of heads [n, head_dim] float32 rotated to each of so many positions."""
        angles = torch.outer(
            torch.arange(positions, dtype=torch.float64, device=heads.device), self._frequencies
        )
        cos, sin = angles.cos().mean(0), angles.sin().mean(0)
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
            self._cos = angles.cos().to(self._cos.dtype)
            self._sin = angles.sin().to(self._sin.dtype)
        return self._cos[start:end], self._sin[start:end]
