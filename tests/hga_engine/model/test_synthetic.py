"""Random weights have the geometry asked for, are reproducible and keep activations in range."""

from dataclasses import replace

import pytest
import torch

from hga_engine.config import ModelConfig
from hga_engine.memory import ledger
from hga_engine.model.synthetic import Topics, plan_synthetic, synthetic_tokens, synthetic_weights
from hga_kernels.weights import BlockScaled

CPU = torch.device("cpu")
MOE = ModelConfig(
    architecture="qwen3_moe",
    num_layers=12,
    hidden_size=256,
    num_query_heads=8,
    num_kv_heads=4,
    head_dim=32,
    intermediate_size=512,
    vocab_size=515,
    max_positions=4096,
    rope_base=1e6,
    rms_norm_eps=1e-6,
    tie_embeddings=False,
    num_experts=8,
    experts_per_token=2,
    expert_intermediate_size=256,
)
DENSE = replace(
    MOE,
    architecture="llama",
    num_experts=0,
    experts_per_token=0,
    expert_intermediate_size=0,
    tie_embeddings=True,
)


@pytest.mark.parametrize("config", [MOE, DENSE], ids=["moe", "dense"])
@pytest.mark.parametrize("kind", ["fp8", "bf16"])
def test_the_ledger_predicts_the_size(config, kind):
    fp8 = kind == "fp8"
    dtype = torch.float8_e4m3fn if fp8 else torch.bfloat16
    weights = synthetic_weights(config, kind, CPU)
    assert weights.bytes() == plan_synthetic(config, kind).bytes()
    assert weights.bytes() == ledger.weights_bytes(config, dtype)
    assert weights.config == config
    assert (weights.lm_head is weights.embedding) == config.tie_embeddings
    assert all(isinstance(layer.gate_up, BlockScaled) == fp8 for layer in weights.layers)


def test_a_seed_gives_the_same_weights():
    first, again, other = (synthetic_weights(MOE, "fp8", CPU, seed) for seed in (1, 1, 2))
    same = torch.equal(first.layers[3].down.scales, again.layers[3].down.scales)
    assert same
    assert torch.equal(first.lm_head, again.lm_head)
    assert not torch.equal(first.lm_head, other.lm_head)


def test_weights_have_the_variance_that_keeps_activations_in_range():
    weights = synthetic_weights(MOE, "fp8", CPU)
    for layer in weights.layers:
        for weight in (layer.qkv, layer.output, layer.gate_up, layer.down):
            assert isinstance(weight, BlockScaled)
            plain = weight.dequantize(torch.float32)
            assert plain.isfinite().all()
            assert plain.std().item() == pytest.approx(weight.shape[-1] ** -0.5, rel=0.15)
            assert weight.values.float().abs().max() > 400
    assert weights.embedding.float().std().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("kind", ["bf16", "q4_k_m"])
@pytest.mark.parametrize("topics", [None, Topics(count=16)])
@pytest.mark.parametrize("config", [MOE, DENSE], ids=["moe", "dense"])
def test_hidden_states_keep_their_size(config, topics, kind, dense_logits):
    weights = synthetic_weights(config, kind, CPU, topics=topics)
    tokens = synthetic_tokens(config.vocab_size, 60, topics=topics)
    logits = dense_logits(weights, tokens)
    assert logits.isfinite().all()
    assert 0.3 < logits.std() < 30


def test_a_stream_stays_on_a_topic():
    topics = Topics(count=16, run_tokens=40)
    tokens = torch.tensor(synthetic_tokens(515, 8000, 3, topics))
    assert tokens.min() >= 0
    assert tokens.max() < 515
    stays = (tokens[1:] % 16 == tokens[:-1] % 16).float().mean().item()
    assert stays == pytest.approx(1 - 1 / 40 * 15 / 16, abs=0.005)
    assert (tokens % 16).unique().numel() == 16
    uniform = torch.tensor(synthetic_tokens(515, 8000, 3))
    assert (uniform[1:] % 16 == uniform[:-1] % 16).float().mean() < 0.1
    assert synthetic_tokens(515, 50, 3, topics) == synthetic_tokens(515, 50, 3, topics)


def test_tokens_of_a_topic_are_similar_and_predict_each_other():
    topics = Topics(count=16, share=0.5)
    weights = synthetic_weights(MOE, "bf16", CPU, topics=topics)
    rows, heads = weights.embedding.float(), weights.lm_head.float() * 256**0.5
    for first, second, expected in ((3, 19, 0.5), (3, 20, 0.0)):
        for table in (rows, heads):
            alike = torch.cosine_similarity(table[first], table[second], dim=0).item()
            assert alike == pytest.approx(expected, abs=0.2)
    of_topic = (rows[3::16] @ heads[3::16].T / 256).mean().item()
    assert of_topic == pytest.approx(0.5, abs=0.1)
    assert rows.std().item() == pytest.approx(1, rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu():
    weights = synthetic_weights(MOE, "fp8", torch.device("cuda"))
    assert weights.embedding.is_pinned()
    assert weights.device_bytes() + weights.embedding.nbytes == weights.bytes()
    gate_up = weights.layers[0].gate_up
    assert isinstance(gate_up, BlockScaled)
    assert gate_up.dequantize(torch.float32).isfinite().all()
