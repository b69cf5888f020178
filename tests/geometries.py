"""Geometries of real models."""

from hga_engine.config import ModelConfig

QWEN3_30B = ModelConfig(
    architecture="qwen3_moe",
    num_layers=48,
    hidden_size=2048,
    num_query_heads=32,
    num_kv_heads=4,
    head_dim=128,
    intermediate_size=6144,
    vocab_size=151_936,
    max_positions=262_144,
    rope_base=1e7,
    rms_norm_eps=1e-6,
    tie_embeddings=False,
    num_experts=128,
    experts_per_token=8,
    expert_intermediate_size=768,
)
