"""Tokens of an answer take one call a layer, and come out as with a call a kernel."""

from dataclasses import replace

import pytest
import torch

from hga_engine.config import CacheConfig, ModelConfig, Routing, SamplingParams, SessionConfig
from hga_engine.engine import Engine
from hga_engine.events import TextDelta
from hga_engine.model.types import LayerWeights, ModelWeights
from hga_kernels import Packed, RowParts
from tests.support.packed_weights import random_packed
from tests.support.tiny_engine import VOCAB, FakeTokenizer, random_tokens, random_weights, read

LLAMA = ModelConfig(
    architecture="llama",
    num_layers=3,
    hidden_size=256,
    num_query_heads=6,
    num_kv_heads=2,
    head_dim=32,
    intermediate_size=288,
    vocab_size=VOCAB,
    max_positions=1024,
    rope_base=10_000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=False,
)
QWEN2 = replace(LLAMA, architecture="qwen2")
QWEN3 = replace(LLAMA, architecture="qwen3", num_query_heads=8)
MOE = replace(
    QWEN3,
    architecture="qwen3_moe",
    num_experts=4,
    experts_per_token=2,
    expert_intermediate_size=96,
)
ROUTING = Routing(decode_budget=96, prefill_budget=128)
"""192 tokens, of several hundred."""
DOCUMENT, QUESTION = random_tokens(570), random_tokens(9, seed=1)


def packed(config: ModelConfig) -> ModelWeights:
    """Packed linear weights, with tails of rows and parts of several formats."""
    weights = random_weights(config, dtype=torch.float32)
    return replace(weights, layers=tuple(map(packed_layer, weights.layers)))


def packed_layer(layer: LayerWeights) -> LayerWeights:
    size_out, size_in = layer.qkv.shape
    down = random_packed("Q5_0", *layer.down.shape, seed=3)
    gate_up = random_packed("Q4_K", *layer.gate_up.shape, seed=4)
    bias = torch.randn(size_out, generator=torch.Generator().manual_seed(5))
    parts = (random_packed("Q4_K", size_out - 64, size_in), random_packed("Q6_K", 64, size_in))
    return replace(
        layer,
        qkv=RowParts(parts),
        output=random_packed("Q8_0", *layer.output.shape),
        gate_up=gate_up,
        down=down,
        qkv_bias=bias,
    )


def bf16(config: ModelConfig) -> ModelWeights:
    return random_weights(config, dtype=torch.bfloat16)


def make_engine(weights: ModelWeights, routing: Routing = ROUTING, budget: int | None = None):
    config = SessionConfig(routing, CacheConfig(1024, budget))
    kv_dtype = torch.float64 if weights.dtype == torch.float64 else torch.bfloat16
    return Engine(weights, FakeTokenizer(), config, "tiny", "0" * 64, kv_dtype)


def has_step(engine: Engine) -> bool:
    return engine._layers._step is not None


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(packed(LLAMA), id="packed llama"),
        pytest.param(packed(QWEN2), id="packed qwen2"),
        pytest.param(packed(MOE), id="packed qwen3_moe"),
        pytest.param(bf16(LLAMA), id="bf16 llama"),
        pytest.param(bf16(QWEN3), id="bf16 qwen3"),
    ],
)
@pytest.mark.parametrize("document", [DOCUMENT, DOCUMENT[:50]], ids=["long", "short"])
def test_answers_are_those_of_single_kernels(weights, document, monkeypatch):
    fast = make_engine(weights)
    monkeypatch.setattr("hga_engine.engine.make_decode_step", lambda *_: None)
    plain = make_engine(weights)
    assert [has_step(fast), has_step(plain)] == [True, False]
    found = []
    for engine in (fast, plain):
        read(engine, document)
        # Across the end of a chunk; what it writes and indexes shows in the logits that follow.
        sampling = SamplingParams(1.0, seed=7, max_new_tokens=80, ignore_end=True)
        events = list(engine.answer(QUESTION, sampling))
        after = torch.cat(list(engine.logits(random_tokens(70, seed=2))))
        found.append((events, engine.layer_mass(), after))
    deltas, expected = ([e for e in events if isinstance(e, TextDelta)] for events, _, _ in found)
    assert len({delta.token_id for delta in deltas}) > 10
    assert [delta.token_id for delta in deltas] == [delta.token_id for delta in expected]
    for ours, theirs in zip(deltas, expected, strict=True):
        assert ours.trace.position == theirs.trace.position
        assert ours.trace.tokens_attended == theirs.trace.tokens_attended
        torch.testing.assert_close(ours.trace.bin_mass, theirs.trace.bin_mass, rtol=0, atol=1e-6)
        torch.testing.assert_close(
            ours.trace.window_mass, theirs.trace.window_mass, rtol=0, atol=1e-6
        )
    assert found[0][0][-1].sparsity == found[1][0][-1].sparsity
    assert found[0][1].sum() > 0
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=1e-6)
    assert torch.equal(found[0][2], found[1][2])
    assert found[0][2].isfinite().all()


@pytest.mark.parametrize(
    ("weights", "routing", "budget"),
    [
        pytest.param(random_weights(LLAMA), ROUTING, None, id="float64"),
        pytest.param(bf16(LLAMA), replace(ROUTING, kind="paper"), None, id="paper"),
        pytest.param(bf16(LLAMA), replace(ROUTING, kind="dense"), None, id="dense"),
        pytest.param(
            bf16(LLAMA),
            replace(ROUTING, group_size=16, prefill_group_size=16),
            None,
            id="groups of 16",
        ),
        pytest.param(bf16(LLAMA), ROUTING, 200_000, id="budget"),
    ],
)
def test_what_the_library_does_not_take_is_called_kernel_by_kernel(weights, routing, budget):
    engine = make_engine(weights, routing, budget)
    assert not has_step(engine)
    read(engine, DOCUMENT[:90])
    sampling = SamplingParams(max_new_tokens=3, ignore_end=True)
    assert len(list(engine.answer(QUESTION, sampling))) > 3


def test_packed_weights_of_too_few_columns_are_not_taken():
    weights = bf16(LLAMA)
    odd = replace(
        weights.layers[0], down=Packed(torch.zeros(256, 18 * 9, dtype=torch.uint8), "Q4_0")
    )
    engine = make_engine(replace(weights, layers=(odd, *weights.layers[1:])))
    assert not has_step(engine)


def test_answers_with_groups_left_out_are_those_of_single_kernels():
    engine = make_engine(bf16(LLAMA))
    read(engine, DOCUMENT)
    sampling = SamplingParams(max_new_tokens=5, ignore_end=True)
    whole = [event for event in engine.answer(QUESTION, sampling) if isinstance(event, TextDelta)]
    engine.truncate(len(DOCUMENT))
    left_out = list(range(40, 250))
    engine.leave_out(left_out)
    found = [event for event in engine.answer(QUESTION, sampling) if isinstance(event, TextDelta)]
    bins = slice(40 * 2 // 16, 250 * 2 // 16)
    assert all(delta.trace.all_mass[bins].any() for delta in whole)
    assert not any(delta.trace.all_mass[bins].any() for delta in found)
    # As many as without: half of the groups that are left may be chosen.
    assert found[0].trace.tokens_attended > 64 + 30
    engine.truncate(len(DOCUMENT))
    engine.leave_out(())
    again = [event for event in engine.answer(QUESTION, sampling) if isinstance(event, TextDelta)]
    assert [delta.token_id for delta in again] == [delta.token_id for delta in whole]
