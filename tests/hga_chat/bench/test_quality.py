"""The whole measurement, with a tiny model whose tokens are bytes."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from hga_chat.bench import measure, quality
from hga_chat.bench.quality import QualityPlan, run_quality
from hga_engine.config import EngineConfig
from hga_engine.opening import LoadedModel
from hga_engine.tokenizer.synthetic import synthetic_tokenizer
from tests.support.tiny_engine import LLAMA, random_weights

pytestmark = pytest.mark.usefixtures("single_thread")

VOCAB = 300
WORDS = ["".join(letters) for letters in product("aeiou", "lmn", "aeiou", "rst")]
TEXT = "".join(f"line {n} and more of it\n" for n in range(250))
TINY = replace(LLAMA, num_layers=2, vocab_size=VOCAB)
PLAN = QualityPlan(
    context=1792, needles=3, tasks=1, seeds=(4, 5), routers=("hga", "paper"), budgets=(64, 3840)
)


@pytest.fixture(scope="module")
def result():
    model = LoadedModel(
        random_weights(TINY, dtype=torch.float32),
        synthetic_tokenizer(VOCAB),
        "tiny",
        "0" * 64,
    )
    notes = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "single_token_words", lambda *_: WORDS)
        # A word is four letters and a space here, one token each.
        patch.setattr(quality, "_LIST_SHARE", 0.02)
        patch.setattr(measure, "NEEDLE_TOKENS", 4)
        patch.setattr(measure, "TASK_TOKENS", 4)
        config = EngineConfig()
        found = run_quality(model, [TEXT], PLAN, config, notes.append)
    assert any(note.startswith("hga, 64 tokens, decode rule: ") for note in notes)
    return found


def test_every_router_budget_and_rule_is_reported(result):
    assert [(run["router"], run["budget_tokens"], run["rule"]) for run in result["runs"]] == [
        (router, budget, rule)
        for router in ("hga", "paper")
        for budget in (64, 3840)
        for rule in ("decode", "prefill")
    ]
    assert result["rules"] == {run["rule"]: run for run in result["runs"][:2]}
    assert (result["context"], result["texts"], result["seeds"]) == (1792, 1, [4, 5])
    assert (result["needles_total"], result["model"]) == (6, "tiny")
    assert len(result["needles_dense_by_depth"]) == 3


def test_a_budget_for_all_tokens_is_dense_attention(result):
    run = next(r for r in result["runs"] if (r["router"], r["budget_tokens"]) == ("hga", 3840))
    assert run["gap_nats"] == pytest.approx(0, abs=1e-3)
    assert run["copies_gap_nats"] == pytest.approx(0, abs=1e-2)
    assert run["greedy_agreement"] > 0.99
    assert run["sparsity"] == pytest.approx(1, abs=1e-3)
    assert run["recall"]["attended"] == pytest.approx(1, abs=1e-6)
    for row in run["tasks"].values():
        assert row["answer_gap_nats"] == pytest.approx(0, abs=2e-2)


def test_a_small_budget_attends_to_and_covers_less(result):
    small, _, large, _ = result["runs"][:4]
    assert small["sparsity"] < 0.5 < large["sparsity"]
    assert small["recall"]["routed"] < 0.9
    assert small["greedy_agreement"] < large["greedy_agreement"]
    layers = small["recall"]["routed_by_layer_and_head"]
    assert [len(heads) for heads in layers] == [TINY.num_kv_heads] * TINY.num_layers


def test_tasks_of_every_family_are_asked(result):
    counts = {family: row["tasks"] for family, row in result["tasks_dense"].items()}
    assert counts == dict.fromkeys(counts, 2)
    assert len(counts) == 5
    assert all(row["answer_nats"] > 0 for row in result["tasks_dense"].values())


def test_a_text_that_is_too_short_is_refused(result):
    model = LoadedModel(
        random_weights(TINY, dtype=torch.float32),
        synthetic_tokenizer(VOCAB),
        "tiny",
        "0" * 64,
    )
    with pytest.raises(ValueError, match="the text has 5 tokens"):
        run_quality(model, ["short"], QualityPlan(1792), EngineConfig(), lambda _: None)
