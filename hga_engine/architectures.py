"""What the supported architectures differ in.

All are decoders like llama: RMS norms, RoPE, grouped queries, a gated SiLU.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """What sets an architecture apart from llama."""

    name: str
    """``model_type`` in ``config.json``."""
    gguf_name: str | None = None
    """``general.architecture`` in GGUF files; None if they give another architecture's name."""
    head_dim: int | None = None
    """Head dimension if ``config.json`` says none; None for hidden_size / num_attention_heads."""
    sliding_window: int | None = None
    """Tokens of the sliding window if ``config.json`` has no ``sliding_window``."""
    has_qk_norm: bool = False
    """Whether queries and keys pass an RMSNorm per head before RoPE."""
    has_qkv_bias: bool = False
    """Whether q, k and v have biases."""
    has_experts: bool = False
    """Whether layers hold a mixture of experts."""
    interleaves_gguf: bool = False
    """Whether GGUF files hold the two halves of each head of q and k interleaved row by row."""


_TABLE = (
    Architecture("llama", "llama", interleaves_gguf=True),
    Architecture("mistral", sliding_window=4096),  # GGUF files of Mistral say llama.
    Architecture("qwen2", "qwen2", has_qkv_bias=True),
    Architecture("qwen3", "qwen3", head_dim=128, has_qk_norm=True),
    Architecture("qwen3_moe", "qwen3moe", head_dim=128, has_qk_norm=True, has_experts=True),
)
ARCHITECTURES = {entry.name: entry for entry in _TABLE}
"""By ``model_type``."""
GGUF_ARCHITECTURES = {entry.gguf_name: entry for entry in _TABLE if entry.gguf_name}
"""By ``general.architecture``."""
