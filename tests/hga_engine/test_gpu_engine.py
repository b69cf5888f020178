"""The engine on a GPU, against the engine on the CPU and against itself without a graph."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hga_engine.config import CacheConfig, ModelConfig, Routing, SamplingParams, SessionConfig
from hga_engine.engine import Engine
from hga_engine.events import Finished, TextDelta
from hga_engine.model.types import LayerWeights, ModelWeights
from hga_kernels import min_cache_slots
from hga_kernels.weights import BlockScaled
from tests.support.fp8_weights import in_fp8, plain
from tests.support.tiny_engine import random_weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CONTEXT = 4096
ROUTER = Routing(
    group_size=16,
    decode_budget=8,
    prefill_group_size=16,
    prefill_budget=16,
    prefill_block=64,
    scoring_stride=4,
)
LLAMA = ModelConfig(
    architecture="llama",
    num_layers=3,
    hidden_size=192,
    num_query_heads=6,
    num_kv_heads=2,
    head_dim=64,
    intermediate_size=384,
    vocab_size=640,
    max_positions=CONTEXT,
    rope_base=100_000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=False,
)
MOE = replace(
    LLAMA,
    architecture="qwen3_moe",
    hidden_size=256,
    num_query_heads=8,
    head_dim=128,
    num_experts=16,
    experts_per_token=4,
    expert_intermediate_size=128,
)


class Letters:
    """A tokenizer of which only the end tokens matter."""

    vocab_size = LLAMA.vocab_size
    strips_first_space = False
    end_tokens: frozenset[int] = frozenset()

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([0x21 + token_id % 90])


def on_gpu(weights: ModelWeights) -> ModelWeights:
    def moved(tensor: Any) -> Any:
        if isinstance(tensor, BlockScaled):
            return BlockScaled(tensor.values.cuda(), tensor.scales.cuda())
        return None if tensor is None else tensor.cuda()

    return ModelWeights(
        weights.config,
        weights.embedding.pin_memory(),
        tuple(
            LayerWeights(**{name: moved(tensor) for name, tensor in vars(layer).items()})
            for layer in weights.layers
        ),
        weights.final_norm.cuda(),
        weights.lm_head.cuda(),
    )


def make(weights: ModelWeights, routing: Routing = ROUTER, **cache: Any) -> Engine:
    config = SessionConfig(routing, CacheConfig(CONTEXT, **cache), slice_tokens=512)
    tokenizer: Any = Letters()
    return Engine(weights, tokenizer, config, "tiny", "0" * 64)


MODELS = [("llama", LLAMA, False), ("moe-fp8", MOE, True)]


@pytest.fixture(params=MODELS, ids=[name for name, _, _ in MODELS])
def weights(request: pytest.FixtureRequest) -> ModelWeights:
    _, config, fp8 = request.param
    drawn = random_weights(config, 3, torch.bfloat16)
    return on_gpu(in_fp8(drawn) if fp8 else drawn)


@pytest.fixture
def moe() -> ModelWeights:
    return on_gpu(in_fp8(random_weights(MOE, 4, torch.bfloat16)))


def text(count: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(LLAMA.vocab_size, (count,), generator=generator).tolist()


def read(engine: Engine, tokens: list[int]) -> Engine:
    for _ in engine.prefill(tokens):
        pass
    return engine


def answer(engine: Engine, prompt: list[int], count: int, **given: Any) -> list[int]:
    params = SamplingParams(max_new_tokens=count, ignore_end=True, **given)
    events = list(engine.answer(prompt, params))
    assert isinstance(events[-1], Finished)
    return [e.token_id for e in events if isinstance(e, TextDelta) and e.token_id >= 0]


def scores(engine: Engine, tokens: list[int], rule: Any = "decode") -> torch.Tensor:
    return torch.cat([part.double().cpu() for part in engine.logits(tokens, rule)])


def error(ours: torch.Tensor, truth: torch.Tensor) -> float:
    return float((ours - truth).norm() / truth.norm())


@pytest.mark.parametrize("router", ["hga", "paper", "dense"])
@pytest.mark.parametrize("rule", ["decode", "prefill"])
def test_logits_equal_those_of_the_cpu(weights: ModelWeights, router: Any, rule: Any) -> None:
    tokens = text(900)
    # A full budget, so that rounding does not choose other groups.
    wide = replace(
        ROUTER,
        kind=router,
        decode_budget=200,
        prefill_budget=200,
        paper_chunks=64,
    )
    ours = scores(make(weights, wide), tokens, rule)
    truth = scores(make(plain(weights), wide), tokens, rule)
    assert error(ours, truth) < 0.03


def test_partial_budgets_read_nearly_the_same(weights: ModelWeights) -> None:
    """Rounding chooses other groups now and then, on a GPU not more than in bf16 on the CPU."""
    tokens = text(1500)
    in_bf16 = plain(weights, torch.bfloat16)
    for rule in ("decode", "prefill"):
        truth = scores(make(plain(weights)), tokens, rule)
        ours = error(scores(make(weights), tokens, rule), truth)
        on_cpu = error(scores(make(in_bf16), tokens, rule), truth)
        assert ours < 1.5 * on_cpu + 0.01


def assert_follows(tokens: list[int], logits: torch.Tensor) -> None:
    """Greedy tokens are what these logits say, but where groups or tokens are nearly tied.

    Of groups with nearly the same mass rounding chooses one or the other, which moves single
    logits; a wrong page or position would move all from there on.
    """
    behind = logits.max(1).values - logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    assert float((behind < 0.05 * logits.std(1)).double().mean()) > 0.85


def assert_same_until_a_tie(ours: list[int], theirs: list[int], logits: torch.Tensor) -> None:
    """Two greedy answers differ first where the two best logits lie close together."""
    for place, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        if mine != other:
            best = logits[place].topk(2).values
            assert best[0] - best[1] < 0.05 * logits[place].std(), f"differs at {place}"
            return


@pytest.mark.parametrize(
    ("length", "size"), [(5, 16), (700, 16), (1279, 16), (2111, 16), (1500, 2)]
)
def test_the_graph_decodes_as_single_steps_do(
    weights: ModelWeights, length: int, size: int
) -> None:
    # Small groups are more often nearly tied, so more of them are read.
    budget = 16 if size == 16 else 256
    router = replace(ROUTER, group_size=size, decode_budget=budget)
    engine, without = make(weights, router), make(weights, router)
    without._graph = None
    document, question = text(length, 1), text(9, 2)
    ours = answer(read(engine, document), question, 120)
    logits = scores(read(without, document), [*question, *ours[:-1]])[len(question) - 1 :]
    assert_follows(ours, logits)
    assert engine.num_tokens == length + 9 + 120


def test_a_replayed_graph_sees_history_grow(moe: ModelWeights) -> None:
    """Turn after turn on one graph gives what single steps say of the whole history."""
    engine, without = make(moe), make(moe)
    without._graph = None
    document = text(1100, 5)
    for each in (engine, without):
        read(each, document)
    for turn in range(4):
        question = text(20 + turn, 50 + turn)
        ours = answer(engine, question, 90)
        logits = scores(without, [*question, *ours])[len(question) - 1 : -1]
        assert_follows(ours, logits)
    assert engine.token_ids == without.token_ids


def test_few_cached_pages_change_nothing(moe: ModelWeights) -> None:
    large, small = read(make(moe), text(2500, 6)), read(make(moe), text(2500, 6))
    store = small._tiers.device
    assert store is not None
    router = small.config.routing
    cut = min_cache_slots(router.decode_budget, router.chunk_size // router.group_size)
    window = store.cache.resident.shape[2] - store.cache.owner.shape[2]
    store.cache = replace(
        store.cache,
        resident=store.cache.resident[:, :, : window + cut].contiguous(),
        owner=store.cache.owner[:, :, :cut].contiguous(),
        stamps=store.cache.stamps[:, :, :cut].contiguous(),
    )
    ours, theirs = answer(large, text(5, 7), 64), answer(small, text(5, 7), 64)
    assert ours == theirs
    assert small.page_hit_rate() < large.page_hit_rate() <= 1


def test_full_budget_equals_dense(moe: ModelWeights) -> None:
    tokens = text(2000, 8)
    full = replace(ROUTER, decode_budget=256, prefill_budget=256)
    routed = read(make(moe, full), tokens)
    dense = read(make(moe, replace(ROUTER, kind="dense")), tokens)
    ours, theirs = answer(routed, text(6, 9), 40), answer(dense, text(6, 9), 40)
    check = read(make(moe, replace(ROUTER, kind="dense")), tokens)
    assert_same_until_a_tie(ours, theirs, scores(check, [*text(6, 9), *theirs])[5:])


def test_cancel_keeps_the_part_and_truncate_goes_back(moe: ModelWeights) -> None:
    import threading

    engine = read(make(moe), text(1300, 10))
    cancel, seen = threading.Event(), []
    for event in engine.answer(text(4, 11), SamplingParams(max_new_tokens=50), cancel):
        if isinstance(event, TextDelta):
            seen.append(event.token_id)
            if len(seen) == 7:
                cancel.set()
    assert len(seen) == 7
    assert engine.token_ids[-7:] == seen
    engine.truncate(1300)
    again = answer(engine, text(4, 11), 30)
    assert again == answer(read(make(moe), text(1300, 10)), text(4, 11), 30)


def test_sampling_follows_its_seed(moe: ModelWeights) -> None:
    def drawn(seed: int) -> list[int]:
        return answer(read(make(moe), text(800)), [1], 40, temperature=1.0, top_p=0.9, seed=seed)

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_saved_session_goes_on(moe: ModelWeights, tmp_path: Path) -> None:
    whole = read(make(moe), text(1450, 12))
    saved = read(make(moe, saved_dir=tmp_path / "state"), text(1450, 12))
    first = answer(whole, text(5, 13), 33)
    assert answer(saved, text(5, 13), 33) == first
    saved.save()
    saved.close()
    resumed = make(moe, saved_dir=tmp_path / "state")
    resumed.check()
    assert resumed.token_ids == whole.token_ids
    assert answer(resumed, text(5, 14), 40) == answer(whole, text(5, 14), 40)


def test_traces_hold_all_attention(moe: ModelWeights) -> None:
    # So many that what is nearly tied and read by one of the two alone is little.
    router = replace(ROUTER, decode_budget=64)
    engine = read(make(moe, router), text(1700, 15))
    ours = [
        e.trace
        for e in engine.answer([3], SamplingParams(max_new_tokens=6, ignore_end=True))
        if isinstance(e, TextDelta)
    ]
    other = read(make(moe, router), text(1700, 15))
    other._graph = None
    theirs = [
        e.trace
        for e in other.answer([3], SamplingParams(max_new_tokens=6, ignore_end=True))
        if isinstance(e, TextDelta)
    ]
    # The graph may have gone a step further than the answer.
    layers = engine.layer_mass()
    assert layers.shape[0] == MOE.num_layers
    traced = sum(float(trace.bin_mass.sum()) for trace in ours)
    assert traced == pytest.approx(float(layers.mean(0).sum()), rel=0.25)
    torch.testing.assert_close(other.layer_mass().sum(1), layers.sum(1), rtol=0.3, atol=1e-2)
    for mine, plain_trace in zip(ours, theirs, strict=True):
        assert mine.position == plain_trace.position
        assert mine.tokens_attended == plain_trace.tokens_attended
        # Of groups that are nearly tied, one or the other is read.
        far = ~torch.isclose(mine.bin_mass, plain_trace.bin_mass, rtol=0.1, atol=2e-3)
        assert int(far.sum()) <= 4
        total = float(plain_trace.bin_mass.sum())
        # What is drawn instead may weigh more or less.
        assert float(mine.bin_mass.sum()) == pytest.approx(total, rel=0.2)
