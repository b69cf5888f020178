"""What must hold of routed attention, at budgets that really leave tokens out.

In float64 with the plain kernels, so that two ways of computing the same agree to many digits and
near ties between groups do not matter.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hga_engine.attention import routed as attention_module
from hga_engine.attention.routed import Rule
from hga_engine.attention.trace import AttentionTotals
from hga_engine.config import LEAST_BUDGET, EngineConfig, Routing, resolve
from hga_kernels.reference.selection import STRATA
from tests.support.plain_routing import (
    RULES,
    SMALL,
    Layer,
    Text,
    dense,
    plain_routed,
    ratios,
    routers,
    rules,
    run,
    seeds,
    sizes,
    slices,
    with_router,
)

pytestmark = pytest.mark.usefixtures("single_thread")

lengths = st.integers(1, 90).map(lambda n: 2 * n - 1) | st.integers(30, 120)
some = settings(max_examples=25, deadline=None)


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def chunk_borders(ends: list[int], router: Routing = SMALL) -> list[int]:
    return [end // router.chunk_size * router.chunk_size for end in ends]


# Against dense attention and against the rule


@some
@given(lengths, st.integers(1, 3), ratios, routers, rules, slices, sizes, seeds)
def test_full_budget_is_dense_attention(
    tokens: int,
    kv_heads: int,
    ratio: int,
    router: str,
    rule: Rule,
    ends: list[int],
    small: Routing,
    seed: int,
) -> None:
    text = Text.random(tokens, kv_heads, ratio, seed)
    full = replace(
        with_router(router, small),
        decode_budget=tokens,
        prefill_budget=tokens,
        paper_chunks=tokens,
    )
    assert_same(run(text, rule, ends, full), dense(text))


@some
@given(lengths, st.integers(1, 3), ratios, rules, slices, seeds)
def test_the_dense_router_is_dense_attention(
    tokens: int, kv_heads: int, ratio: int, rule: Rule, ends: list[int], seed: int
) -> None:
    text = Text.random(tokens, kv_heads, ratio, seed)
    assert_same(run(text, rule, ends, with_router("dense")), dense(text))


@pytest.mark.parametrize("router", ["hga", "paper"])
@pytest.mark.parametrize("rule", RULES)
def test_partial_budget_leaves_much_out(router: str, rule: Rule) -> None:
    """The other tests of this file mean something: their budget is partial."""
    text = Text.random(119, 2, 3)
    totals = AttentionTotals(30)
    out = Layer(text, with_router(router)).run(rule, [], totals)
    assert totals.sparsity < 0.6
    beyond = slice(40, None)
    difference = (out - dense(text))[beyond].flatten(1).norm(dim=1)
    assert float((difference > 1e-3).double().mean()) > 0.95


@settings(max_examples=12, deadline=None)
@given(st.integers(20, 75), st.integers(1, 2), ratios, routers, rules, sizes, seeds)
def test_attention_is_the_rule_read_plainly(
    tokens: int, kv_heads: int, ratio: int, router: str, rule: Rule, small: Routing, seed: int
) -> None:
    text = Text.random(tokens, kv_heads, ratio, seed)
    config = with_router(router, small)
    assert_same(run(text, rule, [], config), plain_routed(text, rule, config))


def test_scored_queries_are_counted_from_the_start_of_their_block() -> None:
    """Also where the stride divides neither the block nor its place in the chunk."""
    sizes = dict.fromkeys(("group_size", "prefill_group_size", "paper_group_size"), 4)
    small = replace(SMALL, chunk_size=12, prefill_block=4, sink_tokens=0, **sizes)
    text, config = Text.random(34, 1, 1, 0), with_router("hga", small)
    expected = plain_routed(text, "prefill", config)
    assert_same(run(text, "prefill", [], config), expected)
    assert_same(run(text, "prefill", [12, 28], config), expected)


# Slices


@some
@given(lengths, st.integers(1, 2), ratios, routers, slices, slices, sizes, seeds)
def test_the_decode_rule_does_not_depend_on_slices(
    tokens: int,
    kv_heads: int,
    ratio: int,
    router: str,
    ends: list[int],
    others: list[int],
    small: Routing,
    seed: int,
) -> None:
    text = Text.random(tokens, kv_heads, ratio, seed)
    config = with_router(router, small)
    assert_same(run(text, "decode", ends, config), run(text, "decode", others, config))


@some
@given(lengths, st.integers(1, 2), ratios, routers, slices, sizes, seeds)
def test_prefill_by_the_decode_rule_is_token_by_token(
    tokens: int,
    kv_heads: int,
    ratio: int,
    router: str,
    ends: list[int],
    small: Routing,
    seed: int,
) -> None:
    text = Text.random(tokens, kv_heads, ratio, seed)
    config = with_router(router, small)
    one_by_one = run(text, "decode", range(tokens), config)
    assert_same(run(text, "decode", ends, config), one_by_one)


@some
@given(lengths, st.integers(1, 2), ratios, routers, slices, sizes, seeds)
def test_the_prefill_rule_does_not_depend_on_slices_of_whole_chunks(
    tokens: int,
    kv_heads: int,
    ratio: int,
    router: str,
    ends: list[int],
    small: Routing,
    seed: int,
) -> None:
    text = Text.random(tokens, kv_heads, ratio, seed)
    config = with_router(router, small)
    whole = run(text, "prefill", [], config)
    assert_same(run(text, "prefill", chunk_borders(ends, config), config), whole)


@some
@given(lengths, ratios, routers, rules, slices, seeds, st.integers(1, 40))
def test_the_workspace_limit_changes_nothing(
    tokens: int, ratio: int, router: str, rule: Rule, ends: list[int], seed: int, limit: int
) -> None:
    text = Text.random(tokens, 2, ratio, seed)
    config = with_router(router)
    expected = run(text, rule, ends, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_module, "_MAX_PAGES", limit * 20)
        assert_same(run(text, rule, ends, config), expected)


@some
@given(st.integers(40, 119), ratios, routers, rules, slices, st.integers(1, 5), seeds)
def test_a_host_budget_changes_nothing(
    tokens: int, ratio: int, router: str, rule: Rule, ends: list[int], pages: int, seed: int
) -> None:
    text = Text.random(tokens, 2, ratio, seed)
    page = 2 * SMALL.group_size * text.keys.shape[2] * text.keys.element_size()
    layer = Layer(text, with_router(router), host_budget_bytes=2 * pages * page)
    found = layer.run(rule, ends)
    assert layer.store.usage().disk_bytes > 0
    layer.store.close()
    assert torch.equal(found, run(text, rule, ends, with_router(router)))


@some
@given(st.integers(9, 119), st.integers(1, 118), ratios, routers, slices, seeds)
def test_after_a_truncation_it_is_as_if_the_rest_had_never_been(
    tokens: int, kept: int, ratio: int, router: str, ends: list[int], seed: int
) -> None:
    text = Text.random(tokens, 2, ratio, seed)
    kept = min(kept, tokens)
    layer = Layer(text.changed_from(kept), with_router(router))
    layer.run("decode", ends)
    layer.store.truncate(kept)
    layer.index.truncate(kept)
    layer.text = text
    found = layer.run("decode", [end for end in ends if end > kept])
    assert_same(found, run(text, "decode", [], with_router(router))[kept:])


@pytest.mark.parametrize("router", ["hga", "paper", "dense"])
def test_the_same_start_may_be_read_to_other_ends_and_by_other_rules(router: str) -> None:
    text = Text.random(90, 2, 3)
    layer = Layer(text, with_router(router))
    layer.add(40)
    calls: list[tuple[int, Rule]] = [
        (60, "decode"),
        (90, "decode"),
        (90, "prefill"),
        (48, "prefill"),
        (48, "decode"),
    ]
    for end, rule in calls:
        layer.store.truncate(40)
        layer.index.truncate(40)
        fresh = Layer(text, with_router(router))
        fresh.add(40)
        assert torch.equal(layer.attend(end, rule), fresh.attend(end, rule))


# Nothing is known of what comes later


@some
@given(st.integers(2, 119), st.integers(0, 117), st.integers(1, 2), ratios, routers, sizes, seeds)
def test_by_the_decode_rule_no_output_changes_with_a_later_token(
    tokens: int, last: int, kv_heads: int, ratio: int, router: str, small: Routing, seed: int
) -> None:
    text = Text.random(tokens, kv_heads, ratio, seed)
    same = min(last, tokens - 2) + 1
    config = with_router(router, small)
    # In one slice, so that the later tokens are stored and indexed when the early ones attend.
    found = run(text.changed_from(same), "decode", [], config)
    expected = run(text, "decode", [], config)
    assert_same(found[:same], expected[:same])
    assert not torch.allclose(found[same:], expected[same:])


@some
@given(st.integers(2, 119), st.integers(0, 117), st.integers(1, 2), ratios, routers, sizes, seeds)
def test_by_the_prefill_rule_no_output_changes_with_a_later_chunk(
    tokens: int, last: int, kv_heads: int, ratio: int, router: str, small: Routing, seed: int
) -> None:
    text = Text.random(tokens, kv_heads, ratio, seed)
    config = with_router(router, small)
    first_changed = min(last, tokens - 2) + 1
    same = first_changed // config.chunk_size * config.chunk_size
    found = run(text.changed_from(first_changed), "prefill", [], config)
    assert_same(found[:same], run(text, "prefill", [], config)[:same])


def test_by_the_prefill_rule_early_queries_profit_from_later_ones() -> None:
    """The difference of the two rules is real: inside a chunk it looks ahead."""
    text = Text.random(112, 1, 1)
    found, expected = (run(t, "prefill") for t in (text.changed_from(108), text))
    assert_same(found[:104], expected[:104])
    assert not torch.allclose(found[104:108], expected[104:108])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_least_budget_reads_a_group_of_every_stratum(device: str) -> None:
    routing = resolve(EngineConfig(budget_tokens=LEAST_BUDGET), device).routing
    assert min(routing.decode_budget, routing.prefill_budget) >= STRATA
    with pytest.raises(ValueError, match="at least 64 tokens"):
        EngineConfig(budget_tokens=63)


# With the compiled kernels


REAL = Routing(
    sink_tokens=64,
    decode_budget=128,
    prefill_budget=192,
)


@pytest.fixture(scope="module")
def bf16_text() -> Text:
    return Text.random(1237, 2, 3, dtype=torch.bfloat16, head_dim=64)


@pytest.mark.parametrize("rule", RULES)
def test_compiled_kernels_know_nothing_of_later_chunks(bf16_text: Text, rule: Rule) -> None:
    found, expected = (run(t, rule, [], REAL) for t in (bf16_text.changed_from(960), bf16_text))
    assert torch.equal(found[:960], expected[:960])
    assert not torch.allclose(found[960:], expected[960:])


def test_compiled_kernels_do_not_depend_on_slices(bf16_text: Text) -> None:
    whole = run(bf16_text, "decode", [], REAL)
    sliced = run(bf16_text, "decode", [1, 63, 200, 640, *range(900, 1237)], REAL)
    same = (whole - sliced).abs().amax((1, 2)) < 0.02
    # A near tie may be decided otherwise when work is cut into other parts.
    assert float(same.double().mean()) > 0.99


@pytest.mark.parametrize("rule", RULES)
def test_compiled_kernels_at_full_budget_are_dense_attention(bf16_text: Text, rule: Rule) -> None:
    full = replace(REAL, decode_budget=1300, prefill_budget=1300)
    found = run(bf16_text, rule, [100, 700], full)
    wide = Text(bf16_text.queries.double(), bf16_text.keys.double(), bf16_text.values.double())
    torch.testing.assert_close(found.double(), dense(wide), rtol=2e-2, atol=2e-2)
