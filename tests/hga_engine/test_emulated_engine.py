"""The engine on a GPU that the CPU plays, against the engine on the CPU in float64."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hga_engine import compiling, tiers
from hga_engine.config import CacheConfig, EngineConfig, Routing, SamplingParams, SessionConfig
from hga_engine.engine import Engine
from hga_engine.events import TextDelta
from hga_engine.memory.device_plan import plan_device
from hga_engine.model.synthetic import synthetic_weights
from hga_engine.model.types import ModelWeights
from hga_engine.opening import LoadedModel
from hga_kernels import Packed, RowParts, min_cache_slots
from tests.support.fp8_weights import in_fp8, plain
from tests.support.tiny_engine import (
    LLAMA,
    Answer,
    FakeTokenizer,
    ask,
    random_tokens,
    random_weights,
    read,
)

if torch.cuda.is_available():
    pytest.skip("there is a real one", allow_module_level=True)
pytest.importorskip("triton")
from tests.support.emulated_gpu import emulated_gpu

pytestmark = pytest.mark.usefixtures("single_thread")

PARTIAL = Routing(
    group_size=16,
    sink_tokens=64,
    decode_budget=8,
    prefill_group_size=16,
    prefill_budget=8,
    prefill_block=64,
    scoring_stride=16,
)
FINE = replace(PARTIAL, group_size=2, decode_budget=64)
# All groups are taken: a group whose odds are nearly its draw number may be drawn by one alone.
NEAR = replace(PARTIAL, decode_budget=48, prefill_budget=48)
DENSE = replace(
    LLAMA,
    num_layers=2,
    hidden_size=128,
    num_query_heads=4,
    head_dim=32,
    intermediate_size=128,
    max_positions=512,
)
EXPERTS = replace(
    DENSE,
    architecture="qwen3_moe",
    num_experts=4,
    experts_per_token=2,
    expert_intermediate_size=128,
)
PACKED = replace(
    EXPERTS,
    num_layers=1,
    hidden_size=256,
    head_dim=64,
    num_experts=2,
    experts_per_token=1,
    expert_intermediate_size=256,
)


def make(weights: ModelWeights, routing: Routing) -> Engine:
    config = SessionConfig(routing, CacheConfig(512), slice_tokens=192)
    tokenizer: Any = FakeTokenizer()
    # Hidden states beside packed weights are float32, K/V never.
    kv_dtype = torch.bfloat16 if weights.dtype == torch.float32 else weights.dtype
    return Engine(weights, tokenizer, config, "tiny", "0" * 64, kv_dtype)


def two_turns(engine: Engine, document: int, later: int, answer: int = 6) -> tuple[Answer, Answer]:
    """Read, ask, and ask again with a longer question."""
    read(engine, random_tokens(document, 1))
    first = ask(engine, random_tokens(5, 2), answer, ignore_end=True)
    return first, ask(engine, random_tokens(later, 3), 2, ignore_end=True)


def dense() -> ModelWeights:
    # With these, rounding to bf16 on the CPU changes no token either.
    return random_weights(DENSE, 3, torch.bfloat16)


def experts() -> ModelWeights:
    return in_fp8(random_weights(EXPERTS, 2, torch.bfloat16))


def packed() -> ModelWeights:
    """Return Q4_K and Q6_K weights, in planes beside the embedding."""
    weights = synthetic_weights(PACKED, "q4_k_m", torch.device("cpu"), 2)

    def planar(weight: Any) -> Any:
        if isinstance(weight, RowParts):
            return RowParts(tuple(planar(part) for part in weight.parts))
        return weight.planar() if isinstance(weight, Packed) else weight

    layers = tuple(
        replace(layer, **{name: planar(weight) for name, weight in vars(layer).items()})
        for layer in weights.layers
    )
    return replace(weights, layers=layers, lm_head=planar(weights.lm_head))


@pytest.mark.parametrize(
    ("drawn", "router", "later"),
    [
        # In the second turn the chunk that the first one closed has left the window.
        pytest.param(dense, NEAR, 66, id="dense"),
        pytest.param(
            dense,
            replace(NEAR, group_size=2, decode_budget=256),
            66,
            id="dense, groups of 2",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(experts, NEAR, 9, id="fp8-experts"),
        pytest.param(packed, NEAR, 9, id="packed-experts", marks=pytest.mark.exhaustive),
    ],
)
def test_answers_are_those_of_the_cpu(
    drawn: Callable[[], ModelWeights],
    router: Routing,
    later: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While one graph decodes over the end of a chunk and on."""
    weights = drawn()
    # No more than any choice needs.
    cached = min_cache_slots(router.decode_budget, router.chunk_size // router.group_size)
    monkeypatch.setattr(
        tiers, "plan_device", lambda *of: replace(plan_device(*of), cached_pages=cached)
    )
    # The interpreter takes seconds for a token with packed weights.
    lengths = (185, later, 3) if drawn is packed else (250, later)
    with emulated_gpu():
        engine = make(weights, router)
        ours = two_turns(engine, *lengths)
        assert 0 < engine.page_hit_rate() < 1
    truth = make(plain(weights), router)
    for mine, true in zip(ours, two_turns(truth, *lengths), strict=True):
        assert mine.tokens == true.tokens
        for delta, other in zip(mine.deltas, true.deltas, strict=True):
            assert delta.trace.position == other.trace.position
            assert delta.trace.tokens_attended == other.trace.tokens_attended
            mass, expected = delta.trace.bin_mass, other.trace.bin_mass
            torch.testing.assert_close(mass, expected, rtol=0, atol=0.03)
    assert engine.token_ids == truth.token_ids


@pytest.mark.parametrize(
    "router",
    [
        pytest.param(replace(PARTIAL, group_size=4, decode_budget=32), id="groups of 4"),
        pytest.param(PARTIAL, id="groups of 16", marks=pytest.mark.exhaustive),
        pytest.param(FINE, id="groups of 2", marks=pytest.mark.exhaustive),
    ],
)
def test_a_graph_answers_as_single_steps_do_where_some_groups_are_drawn(router: Routing) -> None:
    """It looks pages up in the page cache, steps take them from the pages of a whole layer."""
    document, question, found = random_tokens(250, 1), random_tokens(5, 2), []
    with emulated_gpu():
        engine = make(dense(), router)
        read(engine, document)
        answer = ask(engine, question, 8, ignore_end=True)
        assert 0 < engine.page_hit_rate() < 1
        steps = make(dense(), router)
        read(steps, document)
        logits = torch.cat(list(steps.logits(question)))
        for token in answer.tokens:
            found.append(int(logits[-1].argmax()))
            logits = torch.cat(list(steps.logits([token])))
    assert found == answer.tokens
    assert answer.finished.sparsity < 0.8


def test_cancel_keeps_the_part_and_truncate_goes_back() -> None:
    document, question = random_tokens(70, 4), random_tokens(3, 5)
    cancel, seen = threading.Event(), []
    with emulated_gpu():
        engine = make(random_weights(DENSE, 4, torch.bfloat16), PARTIAL)
        read(engine, document)
        sampling = SamplingParams(max_new_tokens=9, ignore_end=True)
        for event in engine.answer(question, sampling, cancel):
            if isinstance(event, TextDelta):
                seen.append(event.token_id)
                if len(seen) == 2:
                    cancel.set()
        assert len(seen) == 2
        assert engine.token_ids == [*document, *question, *seen]
        engine.truncate(len(document))
        assert ask(engine, question, 2, ignore_end=True).tokens == seen


def test_a_question_leaves_the_cache_full_of_true_pages() -> None:
    """And going back in the session takes those away that it no longer holds."""
    with emulated_gpu():
        engine = make(random_weights(DENSE, 4, torch.bfloat16), NEAR)
        read(engine, random_tokens(300, 4))
        list(engine.logits(random_tokens(3, 5)))
        store: Any = engine._store
        for tokens in (300, 200):
            engine.truncate(tokens)
            for layer, owners in enumerate(store.cache.owner.tolist()):
                by_head = store.host_pages[layer].unflatten(0, (len(owners), -1))
                for head, groups in enumerate(owners):
                    held = {slot: group for slot, group in enumerate(groups) if group >= 0}
                    # Whole chunks between the first one and the one under way.
                    assert set(held.values()) == set(range(4, tokens // 64 * 4))
                    for slot, group in held.items():
                        assert store.cache.table[layer, head, group] == slot
                        page = store.cache.resident[layer, head, store.window.slots + slot]
                        assert torch.equal(page, by_head[head, group])


@pytest.mark.parametrize("document", [256, 250])
def test_decoding_from_where_a_chunk_begins_leaves_the_index_as_it_was(document: int) -> None:
    """Whether the text before was read or, its last tokens, decoded."""
    cancel = threading.Event()
    with emulated_gpu():
        engine = make(random_weights(DENSE, 4, torch.bfloat16), NEAR)
        read(engine, random_tokens(document, 4))
        if document < 256:
            sampling = SamplingParams(max_new_tokens=9, ignore_end=True)
            for _ in engine.answer(random_tokens(3, 6), sampling, cancel):
                if engine._stored == 256:
                    cancel.set()
            engine.truncate(256)
        index = engine._index.stacked
        stored = index.summaries, index.codes, index.scales
        before = [entries[:, :, :4].clone() for entries in stored]
        ask(engine, random_tokens(1, 5), 2, ignore_end=True)
        for entries, same in zip(stored, before, strict=True):
            assert torch.equal(entries[:, :, :4], same)


def test_kernels_can_be_compiled_beforehand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The session they are compiled with takes the engine's way from the text to an answer."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "_QUESTIONS", (2,))
    session = SessionConfig(PARTIAL, CacheConfig(192))
    monkeypatch.setattr(compiling, "resolve", lambda *_: session)
    tokenizer: Any = FakeTokenizer()
    model = LoadedModel(dense(), tokenizer, "tiny", "0" * 64)
    with emulated_gpu():
        compiling.compile_kernels(model, EngineConfig())
    [mark] = tmp_path.iterdir()
    assert mark.name.startswith("hga-chat-sm_")
