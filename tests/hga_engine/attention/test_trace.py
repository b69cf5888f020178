"""The pages that routed attention attends to, and what is counted of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hga_engine.attention import routed as attention_module
from hga_engine.attention.coverage import Coverage
from hga_engine.attention.routed import Rule
from hga_engine.attention.trace import AttentionTotals
from hga_engine.config import Routing
from hga_kernels import attend_pages
from tests.support.plain_routing import (
    RULES,
    SMALL,
    Layer,
    Text,
    limits,
    ratios,
    routers,
    rules,
    run,
    seeds,
    sizes,
    slices,
    window_groups,
    with_router,
)

pytestmark = pytest.mark.usefixtures("single_thread")

some = settings(max_examples=25, deadline=None)


@dataclass
class Read:
    """Pages that one call attended to: positions [blocks, rows], groups [blocks, heads, n]."""

    positions: torch.Tensor
    groups: torch.Tensor


def spy(patch: pytest.MonkeyPatch) -> list[Read]:
    """Notes what is attended to."""
    seen: list[Read] = []
    attend: Callable[..., Any] = attend_pages

    def note(
        queries: torch.Tensor, positions: torch.Tensor, groups: torch.Tensor, *rest: Any
    ) -> Any:
        seen.append(Read(positions, groups))
        return attend(queries, positions, groups, *rest)

    patch.setattr(attention_module, "attend_pages", note)
    return seen


@some
@given(st.integers(1, 119), st.integers(1, 2), ratios, routers, rules, slices, sizes, seeds)
def test_a_selection_is_of_closed_chunks_outside_the_window_and_within_budget(
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
    config = with_router(router, small)
    with pytest.MonkeyPatch.context() as patch:
        seen = spy(patch)
        run(text, rule, ends, config)
    positions = torch.cat([read.positions.flatten() for read in seen])
    assert positions.tolist() == list(range(tokens))
    kept = config.paper_chunks if router == "paper" else tokens
    budget, size = limits(config, rule)
    per_chunk = config.chunk_size // config.group_size
    for read in seen:
        for rows, of_heads in zip(read.positions.tolist(), read.groups.tolist(), strict=True):
            assert len({p // config.chunk_size for p in rows}) == 1
            always = window_groups(rows[-1], config)
            chunk = rows[0] // config.chunk_size
            first = config.sink_tokens // config.chunk_size
            end = max(first, chunk)
            selectable = set(range(first * per_chunk, end * per_chunk))
            for of_head in of_heads:
                groups = [g for g in of_head if g >= 0]
                assert len(groups) == len(set(groups))
                selected = set(groups) - always
                assert always <= set(groups)
                assert selected <= selectable
                assert selectable.isdisjoint(always)
                most = min(budget, min(kept, end - first) * (config.chunk_size // size))
                most *= size // config.group_size
                # Groups are drawn by their share of the attention, or the heaviest are taken.
                assert len(selected) <= most if router == "hga" else len(selected) == most


@pytest.mark.parametrize("router", ["hga", "paper", "dense"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ends", [[], [1, 2, 3, 50, 77, 78, 104]])
def test_readings_count_what_is_attended_to(router: str, rule: Rule, ends: list[int]) -> None:
    text = Text.random(119, 2, 3)
    config = with_router(router)
    totals = AttentionTotals(0, tokens=119)
    with pytest.MonkeyPatch.context() as patch:
        seen = spy(patch)
        Layer(text, config).run(rule, ends, totals)
    attended = 0
    shares = [0.0] * 119
    for read in seen:
        for rows, of_heads in zip(read.positions.tolist(), read.groups.tolist(), strict=True):
            for position in rows:
                for groups in of_heads:
                    tokens = {4 * g + i for g in groups if g >= 0 for i in range(4)}
                    before = len([t for t in tokens if t <= position])
                    attended += before
                    shares[position] += before / (position + 1)
    assert totals.attended == attended
    assert totals.shares.tolist() == pytest.approx(shares)
    assert totals.visible == 2 * sum(range(1, 120))
    assert totals.sparsity == attended / (119 * 120)
    assert (totals.sparsity == 1) == (router == "dense")


def test_an_empty_reading_left_nothing_out() -> None:
    assert AttentionTotals(3).sparsity == 1.0


@some
@given(st.integers(1, 119), ratios, st.sampled_from(["hga", "paper", "dense"]), rules, seeds)
def test_mass_is_one_a_query_and_head_less_what_others_stand_for(
    tokens: int, ratio: int, router: str, rule: Rule, seed: int
) -> None:
    text = Text.random(tokens, 2, ratio, seed)
    layer = Layer(text, with_router(router))
    totals = AttentionTotals(-(-tokens // 4))
    stood_for = []

    def note(*arguments: Any) -> Any:
        out, mass = attend_pages(*arguments)
        assert mass is not None
        times = arguments[-1]
        stood_for.append(float((mass if times is None else mass * times).sum()))
        return out, mass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_module, "attend_pages", note)
        layer.attend(tokens, rule, totals, with_mass=True)
    whole = tokens * 2 * ratio
    assert float(totals.group_mass.sum()) <= whole * (1 + 1e-5)
    assert sum(stood_for) == pytest.approx(whole, rel=1e-5)
    if router == "dense":
        keys = text.keys.repeat_interleave(ratio, 1).transpose(0, 1)
        scores = text.queries.transpose(0, 1) @ keys.transpose(1, 2) / 4
        hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1).sum((0, 1))
        of_groups = torch.nn.functional.pad(weights, (0, -tokens % 4)).view(-1, 4).sum(1)
        torch.testing.assert_close(totals.group_mass, of_groups, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("router", ["hga", "paper"])
@pytest.mark.parametrize("rule", RULES)
def test_coverage_is_the_share_of_dense_mass_that_was_chosen(router: str, rule: Rule) -> None:
    tokens, ratio, stride = 119, 3, 16
    text = Text.random(tokens, 2, ratio)
    config = with_router(router)
    with pytest.MonkeyPatch.context() as patch:
        seen = spy(patch)
        plain = Layer(text, config).run(rule, [])
    coverage = Coverage(1, 2, stride)
    counted = Layer(text, config).run(rule, [], AttentionTotals(0, coverage))
    torch.testing.assert_close(counted, plain)
    keys = text.keys.repeat_interleave(ratio, 1).transpose(0, 1)
    scores = text.queries.transpose(0, 1) @ keys.transpose(1, 2) / 4
    hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    weights = weights.view(2, ratio, tokens, tokens).sum(1)  # [kv_heads, queries, tokens]
    routed, selectable, total = (torch.zeros(2, dtype=torch.float64) for _ in range(3))
    for read in seen:
        for rows, of_heads in zip(read.positions.tolist(), read.groups.tolist(), strict=True):
            if not any(position % stride == stride - 1 for position in rows):
                continue
            always = {4 * g + i for g in window_groups(rows[-1], config) for i in range(4)}
            for head, groups in enumerate(of_heads):
                chosen = {4 * g + i for g in groups if g >= 0 for i in range(4)} - always
                row = weights[head, rows].sum(0)
                routed[head] += sum(row[token] for token in chosen if token < tokens)
                selectable[head] += sum(row[t] for t in range(tokens) if t not in always)
                total[head] += row.sum()
    torch.testing.assert_close(coverage.routed[0], routed, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(coverage.selectable[0], selectable, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(coverage.total[0], total, rtol=1e-5, atol=1e-6)
    attended = routed + total - selectable
    torch.testing.assert_close(coverage.attended[0], attended, rtol=1e-5, atol=1e-6)
    assert 0 < float(routed.sum()) < float(selectable.sum())


@pytest.mark.parametrize("router", ["hga", "paper", "dense"])
@pytest.mark.parametrize("rule", RULES)
def test_a_page_is_a_hit_once_a_reading(router: str, rule: Rule) -> None:
    layer = Layer(Text.random(119, 2, 3), with_router(router))
    with pytest.MonkeyPatch.context() as patch:
        seen = spy(patch)
        layer.run(rule, [])
    listed = sum(int((read.groups >= 0).sum()) for read in seen)
    assert (layer.store.usage().page_hits, layer.store.usage().page_misses) == (listed, 0)


@pytest.mark.parametrize("router", ["hga", "paper", "dense"])
@pytest.mark.parametrize("rule", RULES)
def test_what_is_hidden_is_not_read_whatever_is_drawn(router: str, rule: Rule) -> None:
    text = Text.random(119, 2, 3)
    hidden: list[int] = []
    for _ in range(2):
        layer = Layer(text, with_router(router))
        layer.add(100)
        layer.attention.hide(hidden)
        totals = AttentionTotals(30)
        layer.attend(119, rule, totals, with_mass=True)
        assert bool(totals.group_mass.isfinite().all())
        assert 0 < float(totals.group_mass.sum()) <= 19 * 6 * (1 + 1e-5)
        if hidden:
            assert float(totals.group_mass[hidden].abs().max()) == 0
        hidden = totals.group_mass.nonzero().flatten().tolist()[::2]
        assert len(hidden) > 3


def test_routed_groups_are_those_outside_the_window() -> None:
    # Sinks are groups 0 and 1; position 44 is in chunk 5, whose first group is 10.
    assert SMALL.routed_groups(44) == (2, 10)
    first, last = SMALL.routed_groups(10)
    assert first == last
    for position in range(119):
        first, last = SMALL.routed_groups(position)
        everything = set(range(position // 4 + 1))
        assert set(range(first, last)) == everything - window_groups(position, SMALL)
