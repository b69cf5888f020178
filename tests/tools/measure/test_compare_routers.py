"""The comparison's own attention against the engine's, on a tiny model in float32."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hga_chat.models import EMBEDDED_MODEL
from hga_engine.config import CacheConfig, Routing, SessionConfig
from hga_engine.engine import Engine
from hga_engine.model.rope import frequencies
from tests.support.tiny_engine import LLAMA, FakeTokenizer, random_tokens, random_weights
from tools.measure.compare_routers import prepare
from tools.measure.routers.forward import Network, Outcome, Text, dense
from tools.measure.routers.routed import Calibration, Routed, Statistics
from tools.measure.routers.rules import Above, Drawn, Top, Until, Variant, choose
from tools.measure.routers.samples import Branch, Sample
from tools.measure.routers.scores import Scorer
from tools.measure.routers.variants import variants

TOKENS = 384
MODEL = replace(LLAMA, max_positions=1024, num_layers=2)
TURNS = frequencies(MODEL)
WEIGHTS = random_weights(MODEL, dtype=torch.float32)
ROUTER = Routing(
    sink_tokens=64,
    decode_budget=64,
    prefill_group_size=16,
    prefill_budget=16,
    prefill_block=64,
    scoring_stride=4,
)
PAIRS = Scorer(reduce="pairs", group=2)
WINDOWS: dict[str, Any] = {"sinks": 64, "recent": 0}
DECODE = Variant("decode", Drawn(64), PAIRS, of_all=True, **WINDOWS)
PREFILL = Variant("prefill", Drawn(16), Scorer(reduce="pairs"), of_all=True, block=64, **WINDOWS)


@pytest.fixture(scope="module")
def sample() -> Sample:
    tokens = random_tokens(TOKENS + 20)
    return Sample("random", tuple(tokens[:TOKENS]), (Branch("next", tuple(tokens[TOKENS:]), 1),))


def engine_nats(router: Routing, tokens: tuple[int, ...], rule: Any) -> torch.Tensor:
    tokenizer: Any = FakeTokenizer()
    config = SessionConfig(routing=router, cache=CacheConfig(1024))
    engine = Engine(WEIGHTS, tokenizer, config, "tiny", "0" * 64)
    logits = torch.cat(list(engine.logits(tokens, rule)))
    engine.close()
    return -logits[:-1].log_softmax(-1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].double()


def outcome_of(
    sample: Sample, variant: Variant | None, start: int = 0
) -> tuple[Outcome, Statistics]:
    network = Network(WEIGHTS, 1024)
    text = Text(sample, 0, torch.device("cpu"))
    statistics = Statistics(MODEL.num_layers, MODEL.num_kv_heads)
    whole, kept = network.run(text, dense(text), None)
    if variant is None:
        return whole, statistics
    text = Text(sample, start, torch.device("cpu"))
    prefix = [(keys[:, :start], values[:, :start]) for keys, values in kept]
    attend = Routed(variant, text, TURNS, statistics)
    return network.run(text, attend, prefix)[0], statistics


def test_dense_attention_equals_the_engines(sample: Sample) -> None:
    tokens = sample.tokens + sample.branches[0].tokens
    expected = engine_nats(replace(ROUTER, kind="dense"), tokens, "decode")
    found, _ = outcome_of(sample, None)
    assert torch.allclose(found.nats, expected[: TOKENS - 1], atol=1e-3)
    assert torch.allclose(found.branch_nats[0], expected[TOKENS:], atol=1e-3)


@pytest.mark.parametrize(("variant", "rule"), [(DECODE, "decode"), (PREFILL, "prefill")])
def test_the_engines_rules_equal_the_engines_attention(
    sample: Sample, variant: Variant, rule: str
) -> None:
    expected = engine_nats(ROUTER, sample.tokens, rule)
    found, statistics = outcome_of(sample, variant)
    # Groups that are nearly tied may be chosen differently.
    assert (found.nats - expected).abs().quantile(0.9) < 1e-3
    everything, _ = outcome_of(sample, None)
    assert (found.nats - everything.nats).abs().quantile(0.9) > 1e-2
    assert statistics.groups.sum() > 0


def test_choosing_all_groups_equals_dense_attention_from_any_start(sample: Sample) -> None:
    expected, _ = outcome_of(sample, None)
    found, statistics = outcome_of(sample, replace(DECODE, rule=Drawn(400)), start=192)
    assert torch.allclose(found.nats, expected.nats[192:], atol=1e-3)
    assert torch.allclose(found.branch_nats[0], expected.branch_nats[0], atol=1e-3)
    assert statistics.sparsity(2) == 1
    assert float(statistics.missing.abs().max()) == 0


@pytest.mark.parametrize("rule", [Above(0, 8), Until(0, 8)])
def test_calibration_finds_the_share_that_attends_as_much_as_aimed_at(
    sample: Sample, rule: Above | Until
) -> None:
    variant = Variant("open", rule, of_all=True, aim=0.8, sinks=64, recent=128)
    text = Text(sample, 0, torch.device("cpu"))
    calibration = Calibration([variant], text, 320, TURNS)
    Network(WEIGHTS, 1024).run(text, calibration.beside(dense(text)), None)
    _, statistics = outcome_of(sample, calibration.found(variant), start=320)
    assert statistics.sparsity(16) == pytest.approx(0.8, abs=0.02)


def test_a_source_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="NAME=PATH, not as 'asyncio'"):
        prepare(tmp_path / "samples.jsonl", EMBEDDED_MODEL, 1024, [0], ["one=asyncio", "asyncio"])


def test_rules_choose_as_documented() -> None:
    mass = torch.tensor([[[0.5, 0.0, 0.3, 0.15, 0.05]]])
    expected = {
        Top(2): [1, 0, 1, 0, 0],
        Top(9): [1, 0, 1, 1, 1],
        Above(0.1, 9): [1, 0, 1, 1, 0],
        Above(0.1, 2): [1, 0, 1, 0, 0],
        Above(0.6, 9, floor=1): [1, 0, 0, 0, 0],
        Until(0.75, 9): [1, 0, 1, 0, 0],
        Until(0.85, 9): [1, 0, 1, 1, 0],
    }
    for rule, chosen in expected.items():
        assert choose(mass.clone(), rule)[0, 0].int().tolist() == chosen, rule


def test_every_way_can_be_measured(sample: Sample) -> None:
    text = Text(sample, 0, torch.device("cpu"))
    ways = variants()
    assert len({way.name for way in ways}) == len(ways)
    network = Network(replace(WEIGHTS, layers=WEIGHTS.layers[:1]), 1024)
    calibration = Calibration(ways, text, 0, TURNS)
    _, kept = network.run(text, calibration.beside(dense(text)), None)
    start = Text(sample, 320, torch.device("cpu"))
    prefix = [(keys[:, :320], values[:, :320]) for keys, values in kept]
    for way in ways:
        statistics = Statistics(MODEL.num_layers, MODEL.num_kv_heads)
        narrow = replace(calibration.found(way), sinks=64, recent=64)
        outcome, _ = network.run(start, Routed(narrow, start, TURNS, statistics), prefix)
        assert outcome.nats.isfinite().all(), way.name
        assert torch.cat(outcome.branch_nats).isfinite().all(), way.name
