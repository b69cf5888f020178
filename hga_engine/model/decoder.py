"""The decoder's arithmetic for llama, qwen3 and qwen3_moe, without its attention."""

import torch
from hga_kernels import experts, linear, mlp, norm_linear, split_heads

from hga_engine.model.types import ModelWeights


class Decoder:
    """What happens to hidden states before and after attention, layer by layer.

    Works in the dtype and on the device of its weights. The architectures differ in two places:
    qwen3 and qwen3_moe normalise queries and keys per head, and qwen3_moe has experts.
    """

    def __init__(self, weights: ModelWeights) -> None:
        self._weights = weights
        self._config = weights.config
        self._rotation = Rotation(
            weights.config.head_dim,
            weights.config.rope_base,
            torch.promote_types(weights.embedding.dtype, torch.float32),
            # The embedding may be in host memory.
            weights.final_norm.device,
        )

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Hidden states before the first layer.

        Args:
            token_ids: [tokens] integers.

        Returns:
            [tokens, hidden].
        """
        return self._weights.embedding[token_ids]

    def project(
        self, layer: int, hidden: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values of one layer, after RoPE.

        Args:
            layer: layer number.
            hidden: [tokens, hidden].
            positions: [tokens] integers.

        Returns:
            queries [tokens, query_heads, head_dim], keys and values [tokens, kv_heads, head_dim].
        """
        config, weights = self._config, self._weights.layers[layer]
        # A graph of the GPU replays what is computed here: angles are new in the first layer.
        cos, sin = self._rotation.angles(positions, again=layer == 0)
        eps = config.rms_norm_eps
        heads = norm_linear(hidden, weights.attention_norm, eps, weights.qkv)
        norms = weights.q_norm, weights.k_norm
        counts = config.num_query_heads, config.num_kv_heads
        return split_heads(heads, *norms, eps, cos, sin, *counts)

    def finish(self, layer: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Output projection, residual, MLP or experts, residual.

        Args:
            layer: layer number.
            hidden: [tokens, hidden]: what ``project`` was given.
            attended: [tokens, query_heads, head_dim].

        Returns:
            [tokens, hidden]: input of the next layer.
        """
        config, weights = self._config, self._weights.layers[layer]
        hidden = linear(attended.flatten(1), weights.output, residual=hidden)
        norm, eps = weights.mlp_norm, config.rms_norm_eps
        if weights.expert_gate is None:
            return mlp(hidden, norm, eps, weights.gate_up, weights.down)
        return experts(
            *(hidden, norm, eps, weights.expert_gate, weights.gate_up, weights.down),
            config.experts_per_token,
            config.normalize_expert_weights,
        )

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token scores.

        Args:
            hidden: [tokens, hidden] after the last layer.

        Returns:
            [tokens, vocab] float32 (float64 for float64 weights).
        """
        wide = torch.promote_types(hidden.dtype, torch.float32)
        norm, eps = self._weights.final_norm, self._config.rms_norm_eps
        return norm_linear(hidden, norm, eps, self._weights.lm_head, wide)


class Rotation:
    """Angles of RoPE, for positions as they come."""

    def __init__(
        self, head_dim: int, base: float, dtype: torch.dtype, device: torch.device
    ) -> None:
        powers = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim
        self._frequencies = base**-powers
        self._cos = torch.empty(0, head_dim // 2, dtype=dtype, device=device)
        self._sin = self._cos
        self._last: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def angles(
        self, positions: torch.Tensor, again: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [tokens, head_dim / 2] for ``positions`` [tokens].

        Those of the last tensor are kept: every layer asks with the same.

        Args:
            positions: integers.
            again: whether ``positions`` may have been given other values since it was seen.
        """
        if again or self._last is None or self._last[0] is not positions:
            self._last = positions, *self._computed(positions)
        return self._last[1:]

    def _computed(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if positions.is_cuda:
            # Neither a table as long as the context nor a look at the largest position.
            angles = torch.outer(positions.double(), self._frequencies)
            return angles.cos().to(self._cos.dtype), angles.sin().to(self._sin.dtype)
        self._grow(int(positions.max()) + 1)
        return self._cos[positions], self._sin[positions]

    def _grow(self, positions: int) -> None:
        held = self._cos.shape[0]
        if positions <= held:
            return
        wanted = torch.arange(
            max(positions, 2 * held), dtype=torch.float64, device=self._cos.device
        )
        angles = torch.outer(wanted, self._frequencies)
        self._cos, self._sin = angles.cos().to(self._cos.dtype), angles.sin().to(self._sin.dtype)
