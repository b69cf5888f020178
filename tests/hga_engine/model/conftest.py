"""Tiny checkpoints in the real file formats, and dense attention around the decoder."""

import pytest
import torch
import transformers

from hga_engine.model.decoder import Decoder

SMALL = {
    "vocab_size": 101,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0},
    "rms_norm_eps": 1e-5,
}
EXPERTS = {"moe_intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 3}
KINDS = {
    "llama": (transformers.LlamaConfig, {"tie_word_embeddings": False}),
    "llama-tied": (transformers.LlamaConfig, {"tie_word_embeddings": True}),
    "mistral": (transformers.MistralConfig, {"sliding_window": None}),
    "qwen2": (transformers.Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (transformers.Qwen3Config, {"tie_word_embeddings": True}),
    "qwen3_moe": (transformers.Qwen3MoeConfig, EXPERTS | {"norm_topk_prob": True}),
    "qwen3_moe-mixed": (
        transformers.Qwen3MoeConfig,
        EXPERTS | {"norm_topk_prob": False, "mlp_only_layers": [0], "decoder_sparse_step": 1},
    ),
}


def randomise(model):
    """Weights large enough that every part of the model shows in the logits."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if name.endswith("norm.weight") else 0.15 * noise)
    return model.eval()


@pytest.fixture
def reference_model():
    """Makes a random transformers model of a kind."""

    def make(kind, **changes):
        config_class, own = KINDS[kind]
        config = config_class(**(SMALL | own | changes))
        # The other implementations of experts have no float64.
        config._experts_implementation = "eager"
        return randomise(transformers.AutoModelForCausalLM.from_config(config))

    return make


@pytest.fixture
def dense_logits():
    """Runs a decoder with full causal attention in plain torch."""

    @torch.no_grad()
    def run(weights, token_ids):
        decoder, config = Decoder(weights), weights.config
        positions = torch.arange(len(token_ids))
        hidden = decoder.embed(torch.as_tensor(token_ids))
        hides = positions[None, :] > positions[:, None]
        for layer in range(config.num_layers):
            queries, keys, values = decoder.project(layer, hidden, 0)
            keys = keys.repeat_interleave(config.heads_per_kv, 1)
            values = values.repeat_interleave(config.heads_per_kv, 1)
            scores = torch.einsum("qhd,khd->hqk", queries, keys) * config.head_dim**-0.5
            shares = scores.masked_fill(hides, -torch.inf).softmax(-1)
            attended = torch.einsum("hqk,khd->qhd", shares, values)
            hidden = decoder.finish(layer, hidden, attended)
        return decoder.logits(hidden)

    return run


@pytest.fixture
def difference():
    """Largest difference of two tensors, relative to the largest value of the second."""

    def measure(found, expected):
        assert found.shape == expected.shape
        return ((found - expected).abs().max() / expected.abs().max()).item()

    return measure
