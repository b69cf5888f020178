"""``select`` finds what queries look for, whatever the router."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hga_engine.attention.router import select
from hga_kernels import Budget, ChunkRange
from tests.support.plain_routing import (
    HEAD_DIM,
    SMALL,
    Layer,
    Text,
    attended_scores,
    plain_selection,
    window_groups,
    with_router,
)

pytestmark = pytest.mark.usefixtures("single_thread")

SCALE = 1 / math.sqrt(HEAD_DIM)
routers = st.sampled_from(["hga", "paper"])


def size_of(layer: Layer) -> int:
    """Tokens of a group that is chosen."""
    router = layer.router
    return router.paper_group_size if router.kind == "paper" else router.group_size


def choose(
    layer: Layer,
    queries: torch.Tensor,
    ends: list[int],
    budget: int,
    window_lse: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Select after one sink chunk."""
    chunks = ChunkRange(1, torch.tensor(ends, dtype=torch.int32), max(ends))
    return select(
        queries,
        layer.index,
        0,
        chunks,
        Budget(budget, size_of(layer)),
        layer.router,
        SCALE,
        window_lse,
    )


def planted(groups: list[int], tokens: int, ratio: int, places: list[int]) -> Text:
    """A text whose last query, in KV head h, looks for what stands in group ``groups[h]``.

    ``places`` of the group's tokens hold it.
    """
    text = Text.random(tokens, len(groups), ratio, seed=sum(groups))
    needle = torch.randn(HEAD_DIM, generator=torch.Generator().manual_seed(1)).double()
    text.keys.mul_(0.3)
    for head, group in enumerate(groups):
        for place in places:
            text.keys[group * SMALL.group_size + place, head] = needle * 2
    text.queries[-1] = needle * 4
    return text


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(2, 30), min_size=1, max_size=3),
    st.sampled_from([1, 3, 8]),
    routers,
    st.integers(30, 55),
)
def test_a_group_that_a_query_looks_for_is_selected(
    groups: list[int], ratio: int, router: str, budget: int
) -> None:
    text = planted(groups, 140, ratio, places=[0, 1, 2, 3])
    small = replace(with_router(router), paper_chunks=16, paper_group_size=4)
    layer = Layer(text, small)
    layer.add(140)
    chosen, _ = choose(layer, text.queries[None, -1:], [16], budget)
    assert chosen.shape[:2] == (1, len(groups))
    assert chosen.shape[2] <= budget
    assert chosen.dtype == torch.int32
    for head, group in enumerate(groups):
        assert group in chosen[0, head].tolist()


@pytest.mark.parametrize("place", range(SMALL.group_size))
def test_the_token_index_finds_a_single_token(place: int) -> None:
    text = planted([9, 22], 140, 3, places=[place])
    layer = Layer(text)
    layer.add(140)
    chosen, importance = choose(layer, text.queries[None, -1:], [16], 32)
    assert importance is not None
    for head, group in enumerate([9, 22]):
        at = chosen[0, head].tolist().index(group)
        assert importance[0, head, at] == 1


@settings(max_examples=25, deadline=None)
@given(
    st.integers(20, 120),
    st.integers(1, 2),
    st.sampled_from([1, 3, 8]),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 6),
    routers,
    st.integers(0, 99),
)
def test_selection_is_the_rule_read_plainly(
    tokens: int,
    kv_heads: int,
    ratio: int,
    rows: int,
    kept: int,
    budget: int,
    router: str,
    seed: int,
) -> None:
    text = Text.random(tokens, kv_heads, ratio, seed)
    layer = Layer(text, replace(with_router(router), paper_chunks=kept))
    layer.add(tokens)
    positions = [tokens - 1, tokens // 2, tokens // 4]
    scored = [[max(p - r, 0) for r in range(rows)] for p in positions]
    ends = [p // 8 for p in positions]
    window_lse = torch.empty(3, rows, kv_heads * ratio, dtype=torch.float64)
    for block, head in itertools.product(range(3), range(kv_heads)):
        own = scored[block]
        window = window_groups(own[-1], layer.router)
        of_window = attended_scores(text, head, own, window, layer.router.group_size)
        part = slice(head * ratio, (head + 1) * ratio)
        window_lse[block, :, part] = of_window.logsumexp(1).view(rows, ratio)
    chosen, importance = choose(layer, text.queries[torch.tensor(scored)], ends, budget, window_lse)
    assert chosen.shape[:2] == (3, kv_heads)
    assert (importance is None) == (router == "paper")
    for block, position in enumerate(positions):
        for head in range(kv_heads):
            groups = [g for g in chosen[block, head].tolist() if g >= 0]
            expected = plain_selection(
                text, head, scored[block], position, layer.router, budget, size_of(layer)
            )
            assert len(groups) == len(set(groups))
            assert set(groups) == set(expected)
            if importance is not None:
                weights = importance[block, head][chosen[block, head] >= 0]
                found = dict(zip(groups, weights.tolist(), strict=True))
                assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("router", ["hga", "paper"])
def test_nothing_is_selected_before_there_is_a_choice(router: str) -> None:
    text = Text.random(20, 2, 3)
    layer = Layer(text, with_router(router))
    layer.add(20)
    chosen, _ = choose(layer, text.queries[:3, None], [1, 0, -3], 4)
    assert chosen.shape == (3, 2, 0)
