"""The engine's results, against the same models with torch's own attention."""

from dataclasses import replace

import pytest
import torch

from hga_engine.attention.routed import Rule
from hga_engine.attention.trace import AttentionTotals
from hga_engine.config import ModelConfig, RopeScaling, RouterName, Routing, SamplingParams
from hga_engine.engine import Engine
from hga_engine.errors import EngineError
from hga_engine.events import PrefillProgress
from hga_engine.model.rope import for_context
from hga_engine.sampler import Sampler
from tests.support.tiny_engine import (
    FULL,
    LLAMA,
    MOE,
    PARTIAL,
    VOCAB,
    ask,
    dense_answer,
    dense_pass,
    make_engine,
    random_tokens,
    random_weights,
    read,
)

pytestmark = pytest.mark.usefixtures("single_thread")

MODELS = [
    pytest.param(LLAMA, id="llama"),
    pytest.param(MOE, id="qwen3_moe"),
    pytest.param(replace(LLAMA, rope_scaling=RopeScaling("yarn", 4.0, 64, 1.25)), id="llama-yarn"),
]
FULL_ROUTERS = [
    pytest.param(replace(FULL, kind=name), id=name) for name in ("hga", "paper", "dense")
]
DOCUMENT, QUESTION = random_tokens(101), random_tokens(13, seed=1)
THREE = replace(PARTIAL, kind="paper", paper_group_size=4, decode_budget=3)
"""Takes the three heaviest groups."""


def all_logits(engine: Engine, tokens: list[int], rule: Rule = "decode") -> torch.Tensor:
    return torch.cat(list(engine.logits(tokens, rule)))


def stored(engine: Engine) -> list[torch.Tensor]:
    """K/V of every layer: [pages, 2, group_size, head_dim], of full groups."""
    count = engine.num_tokens // engine.config.routing.group_size
    kv_heads = engine.model_config.num_kv_heads
    groups = torch.arange(count, dtype=torch.int32).expand(kv_heads, -1)
    store = engine._store
    return [
        store.pool(layer)[store.fetch(layer, groups).long()]
        for layer in range(engine.model_config.num_layers)
    ]


def test_a_context_beyond_the_native_one_is_stretched() -> None:
    engine = make_engine(replace(LLAMA, max_positions=64), FULL)
    stretched = for_context(replace(LLAMA, max_positions=64), 256)
    assert engine.model_config == stretched
    assert stretched.rope_scaling is not None
    expected, _ = dense_pass(stretched, DOCUMENT)
    torch.testing.assert_close(all_logits(engine, DOCUMENT), expected)
    plain, _ = dense_pass(LLAMA, DOCUMENT)
    assert (plain - expected).abs().max() > 0.01


# Full budget


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("router", FULL_ROUTERS)
def test_read_and_answer_is_dense_attention(model: ModelConfig, router: Routing) -> None:
    expected = dense_answer(model, DOCUMENT + QUESTION, 10)
    assert len(set(expected)) > 3  # an answer that says something
    apart = make_engine(model, router)
    read(apart, DOCUMENT)
    assert apart.num_tokens == 101
    assert ask(apart, QUESTION, 10).tokens == expected
    assert apart.num_tokens == 101 + 13 + 10
    assert ask(make_engine(model, router), DOCUMENT + QUESTION, 10).tokens == expected


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("router", FULL_ROUTERS)
@pytest.mark.parametrize("rule", ["decode", "prefill"])
def test_logits_at_full_budget_are_dense(model: ModelConfig, router: Routing, rule: Rule) -> None:
    found = all_logits(make_engine(model, router), DOCUMENT, rule)
    torch.testing.assert_close(found, dense_pass(model, DOCUMENT)[0])


@pytest.mark.parametrize("model", MODELS)
def test_several_turns_are_one_text(model: ModelConfig) -> None:
    engine = make_engine(model, FULL)
    text: list[int] = []
    for turn, length in enumerate((50, 7, 1, 30)):
        prompt = random_tokens(length, seed=turn)
        if turn == 2:
            read(engine, random_tokens(9, seed=20))
            text += random_tokens(9, seed=20)
        found = ask(engine, prompt, 5).tokens
        assert found == dense_answer(model, text + prompt, 5)
        text += prompt + found
        assert engine.num_tokens == len(text)


# Partial budget


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("router", ["hga", "paper"])
def test_partial_budget_reads_less_and_says_other_things(
    model: ModelConfig, router: RouterName
) -> None:
    engine = make_engine(model, replace(PARTIAL, kind=router))
    totals = AttentionTotals(0)
    found = torch.cat(list(engine.logits(DOCUMENT, "decode", totals)))
    assert totals.sparsity < 0.7
    assert not torch.allclose(found, dense_pass(model, DOCUMENT)[0], atol=1e-2)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("router", ["hga", "paper"])
@pytest.mark.parametrize("slice_tokens", [8, 24, 256])
def test_the_decode_rule_does_not_depend_on_slices(
    model: ModelConfig, router: RouterName, slice_tokens: int
) -> None:
    config = replace(PARTIAL, kind=router)
    expected = all_logits(make_engine(model, config), DOCUMENT)
    engine = make_engine(model, config, slice_tokens=slice_tokens)
    parts = [all_logits(engine, part) for part in (DOCUMENT[:37], DOCUMENT[37:38], DOCUMENT[38:])]
    torch.testing.assert_close(torch.cat(parts), expected)


@pytest.mark.parametrize("model", MODELS)
def test_decoding_is_prefill_by_the_decode_rule(model: ModelConfig) -> None:
    answer = ask(make_engine(model), DOCUMENT, 30).tokens
    logits = all_logits(make_engine(model), DOCUMENT + answer)
    assert logits.argmax(-1)[len(DOCUMENT) - 1 : -1].tolist() == answer


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("router", [FULL, PARTIAL])
@pytest.mark.parametrize("slice_tokens", [8, 40, 256])
def test_layer_by_layer_is_slice_by_slice(
    model: ModelConfig, router: Routing, slice_tokens: int
) -> None:
    by_layers = make_engine(model, router, slice_tokens=slice_tokens)
    read(by_layers, DOCUMENT)
    by_slices = make_engine(model, router)
    all_logits(by_slices, DOCUMENT, "prefill")
    torch.testing.assert_close(stored(by_layers), stored(by_slices))
    torch.testing.assert_close(all_logits(by_layers, QUESTION), all_logits(by_slices, QUESTION))


def test_at_full_budget_reading_is_appending_by_the_decode_rule() -> None:
    engine, token_major = make_engine(router=FULL), make_engine(router=FULL)
    read(engine, DOCUMENT)
    all_logits(token_major, DOCUMENT, "decode")
    torch.testing.assert_close(stored(engine), stored(token_major))


@pytest.mark.parametrize("router", ["hga", "paper", "dense"])
def test_a_host_budget_changes_no_token(router: RouterName) -> None:
    config = replace(PARTIAL, kind=router)
    page = 2 * 4 * 16 * 8
    engine = make_engine(router=config, host_budget_bytes=3 * 10 * page)
    plain = make_engine(router=config)
    for other in (engine, plain):
        read(other, DOCUMENT)
    assert engine.memory().kv_disk_bytes > 0
    assert plain.memory().kv_disk_bytes == 0
    for turn in range(2):
        prompt = random_tokens(9, seed=turn)
        assert ask(engine, prompt, 20).tokens == ask(plain, prompt, 20).tokens
    assert engine.page_hit_rate() < 1 == plain.page_hit_rate()
    found, without = engine.memory(), plain.memory()
    assert found.page_misses > 0 == without.page_misses
    assert found.page_hits / (found.page_hits + found.page_misses) == engine.page_hit_rate()
    assert found.page_bytes == without.page_bytes == page
    engine.close()


# What is reported


def test_reading_reports_every_step() -> None:
    engine = make_engine(slice_tokens=32)
    steps = list(engine.prefill(DOCUMENT))
    # 101 tokens are slices of 32, 32, 32 and 5, through three layers.
    assert [step.done for step in steps] == list(range(1, 13))
    assert {(step.total, step.tokens) for step in steps} == {(12, 101)}
    assert steps[-1].fraction == 1.0
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)
    # The next slices end on multiples of 32 in the session: 27 and 32 tokens, and 4 more.
    steps = list(engine.prefill(random_tokens(63)))
    assert len(steps) == 9


def test_reading_nothing_takes_no_step() -> None:
    engine = make_engine()
    assert list(engine.prefill([])) == []
    assert engine.num_tokens == 0


def test_an_answer_reports_its_prompt_and_what_it_cost() -> None:
    engine = make_engine(slice_tokens=32)
    answer = ask(engine, DOCUMENT, 5)
    kinds = [type(event) for event in answer.events]
    assert kinds == sorted(kinds, key=[*dict.fromkeys(kinds)].index)
    assert [p.done for p in answer.progress] == [1, 2, 3, 4]
    assert {p.total for p in answer.progress} == {4}
    finished = answer.finished
    assert finished.reason == "length"
    assert (finished.prompt_tokens, finished.completion_tokens) == (101, 5)
    assert 0 < finished.prefill_s < finished.ttft_s
    assert finished.decode_tokens_per_s > 0


def test_sparsity_of_a_small_case() -> None:
    engine = make_engine(router=THREE)
    read(engine, DOCUMENT[:59])
    finished = ask(engine, DOCUMENT[59:60], 2).finished
    # Positions 59 and 60 are in chunk 7. Each attends to 8 sink tokens, to 3 of the 12 groups
    # between (12 tokens), and to the 4 or 5 of the open chunk.
    assert finished.sparsity == pytest.approx((8 + 12 + 4 + 8 + 12 + 5) / (60 + 61))


def test_traces_count_what_a_token_read() -> None:
    engine = make_engine(router=THREE)
    read(engine, DOCUMENT[:59])
    deltas = ask(engine, DOCUMENT[59:60], 2).deltas
    assert [d.trace.position for d in deltas] == [59, 60]
    assert [d.trace.tokens_attended for d in deltas] == [8 + 12 + 4, 8 + 12 + 5]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("router", FULL_ROUTERS)
def test_traces_hold_the_attention_outside_the_window(model: ModelConfig, router: Routing) -> None:
    engine = make_engine(model, router)
    read(engine, DOCUMENT)
    deltas = ask(engine, QUESTION, 3).deltas
    tokens = DOCUMENT + QUESTION + [delta.token_id for delta in deltas]
    weights = dense_pass(model, tokens)[1].mean((0, 1))
    for delta in deltas:
        position = delta.trace.position
        groups = position // 4 + 1
        expected = torch.zeros(groups)
        # The window is two groups of sinks and the groups of the open chunk.
        for group in range(2, position // 8 * 2):
            expected[group] = weights[position, 4 * group : 4 * group + 4].sum()
        assert delta.trace.bin_mass.dtype == torch.float32
        torch.testing.assert_close(delta.trace.bin_mass, expected, rtol=1e-4, atol=1e-6)
        assert 0.3 < float(delta.trace.bin_mass.sum()) < 1


@pytest.mark.parametrize("router", FULL_ROUTERS)
def test_each_layer_reports_its_own_mass(router: Routing) -> None:
    engine = make_engine(router=router)
    read(engine, DOCUMENT)
    ask(engine, QUESTION, 2)  # an earlier answer's mass is not counted again
    kept = engine.token_ids
    deltas = ask(engine, QUESTION, 3).deltas
    tokens = kept + QUESTION + [delta.token_id for delta in deltas]
    weights = dense_pass(LLAMA, tokens)[1].mean(1)
    expected = torch.zeros_like(engine.layer_mass())
    for delta in deltas:
        position = delta.trace.position
        for group in range(2, position // 8 * 2):
            expected[:, group] += weights[:, position, 4 * group : 4 * group + 4].sum(1)
    torch.testing.assert_close(engine.layer_mass(), expected.float(), rtol=1e-4, atol=1e-6)
    assert float((expected[0] - expected[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("together", [1, 2])
def test_layers_of_a_short_session_are_reported_as_traces_are(together: int) -> None:
    """All bins but the first, which every token attends to."""
    engine = make_engine(router=replace(FULL, trace_bin_tokens=together * FULL.group_size))
    read(engine, DOCUMENT[:13])
    deltas = ask(engine, DOCUMENT[13:14], 2).deltas
    found = engine.layer_mass().mean(0)
    assert float(found[0]) == 0
    assert float(found[1]) > 0
    for delta in deltas:
        assert float(delta.trace.bin_mass[0]) == 0
        assert float(delta.trace.window_mass[0]) > 0
    for group in range(-(-4 // together)):
        traced = sum(float(delta.trace.bin_mass[group]) for delta in deltas)
        assert float(found[group]) == pytest.approx(traced, rel=1e-4, abs=1e-6)
    assert float(found.sum()) > 0.1


@pytest.mark.parametrize("router", ["hga", "paper"])
def test_traces_hold_nothing_that_was_not_read(router: RouterName) -> None:
    engine = make_engine(router=replace(THREE, kind=router))
    read(engine, DOCUMENT)
    for delta in ask(engine, QUESTION, 10).deltas:
        mass = delta.trace.bin_mass
        # 3 groups for each of 2 KV heads and 3 layers at most.
        assert 1 <= int((mass > 0).sum()) <= 18
        assert 0 < float(mass.sum()) < 1


def test_traces_hold_what_is_always_read_apart() -> None:
    engine = make_engine(router=replace(PARTIAL, kind="dense"))
    read(engine, DOCUMENT)
    deltas = ask(engine, QUESTION, 3).deltas
    tokens = DOCUMENT + QUESTION + [delta.token_id for delta in deltas]
    weights = dense_pass(LLAMA, tokens)[1].mean((0, 1))
    for delta in deltas:
        row = torch.nn.functional.pad(weights[delta.trace.position], (0, -len(tokens) % 4))
        expected = row.view(-1, 4).sum(1)[: delta.trace.position // 4 + 1].float()
        torch.testing.assert_close(delta.trace.all_mass, expected, rtol=1e-4, atol=1e-6)
        assert not bool(((delta.trace.window_mass > 0) & (delta.trace.bin_mass > 0)).any())
        assert float(delta.trace.window_mass[0]) == pytest.approx(float(expected[0]), rel=1e-4)


@pytest.mark.parametrize("router", FULL_ROUTERS)
def test_hidden_groups_are_not_attended_to(router: Routing) -> None:
    engine = make_engine(router=router)
    read(engine, DOCUMENT)
    # A sink, one in the middle and one of the last.
    hidden = [1, 9, 24]
    found = torch.cat(list(engine.logits(QUESTION, hidden_groups=hidden)))
    tokens = DOCUMENT + QUESTION
    unseen = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    for group in hidden:
        unseen[len(DOCUMENT) :, 4 * group : 4 * group + 4] = True
    expected = dense_pass(LLAMA, tokens, unseen=unseen)[0][len(DOCUMENT) :]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found, dense_pass(LLAMA, tokens)[0][len(DOCUMENT) :], rtol=1e-3)
    engine.truncate(len(DOCUMENT))
    again = torch.cat(list(engine.logits(QUESTION)))
    torch.testing.assert_close(again, dense_pass(LLAMA, tokens)[0][len(DOCUMENT) :])


@pytest.mark.parametrize("router", FULL_ROUTERS)
def test_what_is_left_out_is_not_attended_to_by_questions_and_answers(router: Routing) -> None:
    engine = make_engine(router=router)
    read(engine, DOCUMENT)
    # A sink, whole chunks of two groups, and single groups.
    left_out = [1, 4, 5, 8, 9, 10, 11, 15, 24]
    engine.leave_out(left_out)
    found = all_logits(engine, QUESTION)
    tokens = DOCUMENT + QUESTION
    unseen = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    for group in left_out:
        unseen[len(DOCUMENT) :, 4 * group : 4 * group + 4] = True
    expected = dense_pass(LLAMA, tokens, unseen=unseen)[0][len(DOCUMENT) :]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    engine.truncate(len(DOCUMENT))
    for delta in ask(engine, QUESTION, 6).deltas:
        assert not delta.trace.all_mass[left_out].any()
        assert delta.trace.all_mass[[6, 7, 14, 20]].all()
    engine.truncate(len(DOCUMENT))
    engine.leave_out(())
    again = all_logits(engine, QUESTION)
    torch.testing.assert_close(again, dense_pass(LLAMA, tokens)[0][len(DOCUMENT) :])


def test_the_budget_goes_to_what_is_not_left_out() -> None:
    # Twelve groups may be chosen. All are taken of one chunk of the document and two with the end
    # of it and the question, as if the ten others were not in the session.
    engine = make_engine(router=replace(PARTIAL, decode_budget=12))
    read(engine, DOCUMENT)
    left_out = [group for group in range(2, 24) if group not in (14, 15)]
    engine.leave_out(left_out)
    for delta in ask(engine, QUESTION, 3).deltas:
        assert not delta.trace.all_mass[left_out].any()
        # The sinks, the chunk, and everything from the end of the document on.
        assert delta.trace.tokens_attended == 8 + 8 + delta.trace.position + 1 - 96


def test_memory_is_counted() -> None:
    engine = make_engine()
    weights = random_weights(LLAMA)
    numbers = 2 * weights.embedding.numel() + weights.final_norm.numel()
    for layer in weights.layers:
        numbers += sum(t.numel() for t in vars(layer).values() if t is not None)
    before = engine.memory()
    assert before.weights_bytes == numbers * 8
    assert before.index_bytes == before.kv_host_bytes == before.kv_disk_bytes == 0
    read(engine, DOCUMENT[:61])
    after = engine.memory()
    # 16 groups of 4 tokens; 2 KV heads, 16 dimensions, K and V, 8 bytes, 3 layers.
    assert after.kv_host_bytes == 16 * 4 * 2 * 16 * 2 * 8 * 3
    # 7 closed chunks of 2 KV heads and 3 layers: 16 float64, 8 tokens with 4 bytes of codes and 2
    # of scale.
    assert after.index_bytes == 7 * (16 * 8 + 8 * 6) * 2 * 3
    assert after.host_total_bytes > after.host_resident_bytes > 0
    assert after.kv_device_bytes == after.device_peak_bytes == 0


# Sampling and text


def test_seeds_reproduce() -> None:
    def draw(seed: int | None) -> list[int]:
        return ask(make_engine(), DOCUMENT, 20, temperature=1.5, seed=seed).tokens

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(4)}) == 4
    assert draw(None) != draw(None)


def test_an_end_token_ends_the_answer_and_stays_out_of_the_session() -> None:
    said = ask(make_engine(), DOCUMENT, 20).tokens
    end = next(t for place, t in enumerate(said) if place >= 3 and t not in said[:place])
    place = said.index(end)
    engine = make_engine(end_tokens=[end])
    answer = ask(engine, DOCUMENT, 20)
    assert answer.tokens == said[:place]
    assert answer.finished.reason == "stop"
    assert answer.finished.completion_tokens == place
    assert engine.num_tokens == 101 + place
    # What follows is as if the text had been given.
    again = make_engine(end_tokens=[end])
    read_by_decode = all_logits(again, DOCUMENT + said[:place])
    assert read_by_decode.shape[0] == engine.num_tokens
    assert ask(engine, QUESTION, 6).tokens == ask(again, QUESTION, 6).tokens


def test_the_end_can_be_ignored() -> None:
    engine = make_engine(end_tokens=range(VOCAB))
    assert ask(engine, DOCUMENT).tokens == []
    assert engine.num_tokens == 101
    answer = ask(engine, QUESTION, 7, ignore_end=True)
    assert len(answer.tokens) == 7
    assert answer.finished.reason == "length"


@pytest.mark.parametrize(
    ("script", "texts"),
    [
        ([1, 2, 3], ["A", "B", "C"]),
        ([1, VOCAB - 2, VOCAB - 1, 2], ["A", "", "é", "B"]),
        ([1, VOCAB - 2], ["A", "", "\ufffd"]),
    ],
)
def test_text_is_streamed_by_whole_characters(
    script: list[int], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = iter(script)
    monkeypatch.setattr(Sampler, "sample", lambda self, logits: next(tokens))
    answer = ask(make_engine(), DOCUMENT[:5], len(script))
    assert [delta.text for delta in answer.deltas] == texts
    assert answer.tokens == script


def test_damaged_weights_are_an_error() -> None:
    engine = make_engine()
    engine._decoder._weights.final_norm[0] = torch.nan
    with pytest.raises(EngineError, match="not a number"):
        ask(engine, DOCUMENT)


def test_progress_comes_before_text() -> None:
    events = make_engine().answer(QUESTION, SamplingParams(max_new_tokens=1))
    assert isinstance(next(iter(events)), PrefillProgress)
