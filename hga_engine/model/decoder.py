"""The decoder layers of llama, qwen3 and qwen3_moe, without attention."""

import torch

from hga_engine.model.types import ModelWeights
from hga_kernels import experts, gather_rows, linear, mlp, norm_linear, split_heads


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
        cos, sin = self._rotation.angles(start, start + hidden.shape[0])
        eps = config.rms_norm_eps
        heads = norm_linear(hidden, weights.attention_norm, eps, weights.qkv, bias=weights.qkv_bias)
        norms = weights.q_norm, weights.k_norm
        counts = config.num_query_heads, config.num_kv_heads
        return split_heads(heads, *norms, eps, cos, sin, *counts)

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
