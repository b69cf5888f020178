"""The compiled selection and attention against their torch references.

Expected values come from the reference in float64 on the same bf16 numbers. All memory that the
wrappers allocate is filled with NaN (or 123) first, so that unwritten places show.
"""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hga_kernels import Budget, ChunkIndex, ChunkRange, cpu, reference
from tests.support.kernel_cases import (
    BF16_STEP,
    CHUNK,
    assert_drawn,
    assert_near,
    exact,
    importance_for,
    index_of,
    page_case,
    random,
    ratios,
    seeds,
)

compiled = pytest.mark.usefixtures("compiled")


# Selection


def round_to_int8(rotated: torch.Tensor) -> torch.Tensor:
    """Round each row to 127 steps up to its largest magnitude."""
    step = rotated.abs().amax(-1, keepdim=True) / 127
    return (rotated / step).round() * step


def check_selection(
    queries: torch.Tensor,
    index: ChunkIndex,
    first: int,
    ends: torch.Tensor,
    budget: int,
    size: int,
    window_lse: torch.Tensor | None,
    layer: int,
    odds: float = 1.0,
) -> None:
    """Assert that groups are drawn by the shares of the reference."""
    heads, blocks, _, dim = queries.shape
    found = cpu.select_groups(
        queries, index, ChunkRange(first, ends), Budget(budget, size, odds), 1.0, window_lse, layer
    )
    assert found is not None
    groups, importance = found
    span = max(int(ends.max()) - first, 0)
    assert groups.shape == importance.shape
    assert groups.shape[:2] == (blocks, heads)
    assert groups.shape[2] <= min(budget, span * (CHUNK // size))
    if span == 0:
        return

    centre_scores = queries.double() @ index.summaries[:, None, : first + span].double().mT
    candidates = reference.candidate_chunks(heads, ChunkRange(first, ends, first + span))
    rotated = round_to_int8(queries.double() @ reference.hadamard(dim, torch.float64))
    shares = reference.score_groups(
        rotated, centre_scores, index.codes, index.scales, candidates, size, window_lse
    )
    for block in range(blocks):
        for head in range(heads):
            per_chunk = CHUNK // size
            numbers = candidates[head, block].repeat_interleave(per_chunk) * per_chunk
            numbers += torch.arange(per_chunk).repeat(candidates.shape[2])
            of_group = {
                int(n): float(m)
                for n, m in zip(numbers, shares[head, block], strict=True)
                if n >= 0
            }
            assert (importance[block, head][groups[block, head] < 0] == 1).all()
            pairs = zip(groups[block, head].tolist(), importance[block, head].tolist(), strict=True)
            drawn = {group: weight for group, weight in pairs if group >= 0}
            # Weights are stored in bf16.
            number, error = layer * heads + head, 1.25 * BF16_STEP
            assert_drawn(drawn, of_group, number, budget, per_chunk, error, 1e-6, odds)


@compiled
@pytest.mark.parametrize("size", [2, 16])
@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_selection_from_many_chunks(size: int, spread: float) -> None:
    """Few and many blocks, whose candidates are scored in parts and together."""
    chunks = 300 if size == 16 else 60
    index = index_of(3, chunks, 64, seed=5)
    for blocks, rows in ((1, 3), (6, 9), (6, 35)):
        queries = random(3, blocks, rows, 64, seed=blocks).float() / 8 * spread
        ends = torch.full((blocks,), chunks, dtype=torch.int32)
        ends[-1] = chunks - 5
        check_selection(queries, index, 1, ends, 120, size, None, 2)


@compiled
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([16, 32, 64, 128, 256]),
    st.integers(1, 3),
    st.integers(1, 3),
    ratios,
    st.sampled_from([1, 2, 3, 16]),
    st.integers(1, 10),
    st.integers(0, 2),
    st.integers(1, 200),
    st.sampled_from([2, 16]),
    st.integers(0, 60),
    st.sampled_from([1.0, 1.25, 2.0]),
    seeds,
    st.data(),
)
def test_select_groups(
    dim: int,
    heads: int,
    blocks: int,
    ratio: int,
    queries_a_block: int,
    chunks: int,
    first: int,
    budget: int,
    size: int,
    layer: int,
    odds: float,
    seed: int,
    data: st.DataObject,
) -> None:
    ends = torch.tensor(
        data.draw(st.lists(st.integers(-2, chunks), min_size=blocks, max_size=blocks)),
        dtype=torch.int32,
    )
    rows = queries_a_block * ratio
    queries = random(heads, blocks, rows, dim, seed=seed + 2).float() / math.sqrt(dim) * 2
    window_lse = random(heads, blocks, rows, seed=seed + 3).float() * 3 if seed % 2 else None
    index = index_of(heads, chunks, dim, seed)
    check_selection(queries, index, first, ends, budget, size, window_lse, layer, odds)


@compiled
def test_rounding_queries_to_int8_changes_few_groups() -> None:
    """Nearly the same groups as by the reference, which does not round queries."""
    index = index_of(2, 60, 64, seed=7)
    queries = random(2, 4, 3, 64, seed=9).float() / 4
    chunks = ChunkRange(2, torch.full((4,), 60, dtype=torch.int32))
    found = cpu.select_groups(queries, index, chunks, Budget(192, 2))
    assert found is not None
    groups, importance = found
    best, expected = reference.select_groups(queries, index, chunks, Budget(192, 2))
    shared = 0
    for place in itertools.product(range(4), range(2)):
        ours = dict(zip(groups[place].tolist(), importance[place].tolist(), strict=True))
        theirs = dict(zip(best[place].tolist(), expected[place].tolist(), strict=True))
        both = (set(ours) & set(theirs)) - {-1}
        shared += sum(ours[group] == pytest.approx(theirs[group], rel=0.2) for group in both)
    assert shared >= 0.97 * int((best >= 0).sum()) > 1000


@compiled
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 300.0])
@pytest.mark.parametrize("where", ["queries", "window_lse"])
def test_nan_and_infinity_select_no_group_outside_the_range(value: float, where: str) -> None:
    """The sampler reports damaged weights, so selection must get through them."""
    index = index_of(2, 20, 64, seed=3)
    queries, window_lse = random(2, 2, 3, 64, seed=4).float(), torch.zeros(2, 2, 3)
    (queries if where == "queries" else window_lse)[0, 0, 1] = value
    chunks = ChunkRange(1, torch.tensor([20, 15], dtype=torch.int32))
    found = cpu.select_groups(queries, index, chunks, Budget(64, 2), 0.1, window_lse, 3)
    assert found is not None
    groups, importance = found
    assert groups.shape == importance.shape
    assert groups.shape[2] <= 64
    for block, head in itertools.product(range(2), range(2)):
        chosen = [group for group in groups[block, head].tolist() if group != -1]
        assert len(chosen) == len(set(chosen))
        assert all(32 <= group < 640 for group in chosen)
    queries[0, 0, 1] = window_lse[0, 0, 1] = 0
    found = cpu.select_groups(queries, index, chunks, Budget(64, 2), 0.1, window_lse, 3)
    assert found is not None
    # The other block and the other head are unaffected.
    for block, head in ((1, 0), (1, 1), (0, 1)):
        assert set(groups[block, head].tolist()) - {-1} == set(found[0][block, head].tolist()) - {
            -1
        }


@compiled
def test_selection_from_scores_far_apart() -> None:
    """Weights that underflow count as zero, and no result is NaN."""
    index = index_of(1, 6, 64, seed=3)
    queries = random(1, 1, 2, 64, seed=4).float() * 100
    ends = torch.tensor([6], dtype=torch.int32)
    found = cpu.select_groups(queries, index, ChunkRange(0, ends), Budget(12, 2))
    assert found is not None
    centre_scores = queries.double() @ index.summaries[:, None].double().mT
    rotated = queries.double() @ reference.hadamard(64, torch.float64)
    chunks = torch.arange(6)[None, None]
    top = {
        int(reference.score_groups(row, of_row, index.codes, index.scales, chunks, 2).argmax())
        for row, of_row in zip(rotated.split(1, 2), centre_scores.split(1, 2), strict=True)
    }
    assert bool(found[1].isfinite().all())
    assert 1 <= float(found[1].min()) <= float(found[1].max()) <= reference.MAX_IMPORTANCE
    assert top <= set(found[0][0, 0].tolist())


# Attention


@compiled
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([16, 32, 48, 64, 80, 96, 128, 256]),
    st.integers(1, 3),
    ratios,
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(5, 40),
    st.integers(17, 150),
    st.booleans(),
    st.sampled_from([0.3, 1.0, 4.0]),
    seeds,
)
def test_attend_pages(
    dim: int,
    heads: int,
    ratio: int,
    blocks: int,
    rows: int,
    pages: int,
    tokens: int,
    with_mass: bool,
    size: float,
    seed: int,
) -> None:
    case = page_case(dim, heads, ratio, blocks, rows, pages, tokens, seed, size, 2)
    scale = 1 / math.sqrt(dim)
    importance = importance_for(case, seed)
    found = cpu.attend_pages(*case, scale, with_mass, importance)
    assert found is not None
    expected = reference.attend_pages(*exact(case), scale, with_mass, importance)
    # Weights may be rounded to bf16 as well as the result.
    assert_near(found[0], expected[0], 2.1 * BF16_STEP, size)
    if not with_mass:
        assert found[1] is None
        return
    assert found[1] is not None
    assert expected[1] is not None
    assert_near(found[1], expected[1].double(), 1e-3, 1e-1)
    if importance is not None:
        return
    total = torch.full((blocks, heads), float(rows * ratio), dtype=torch.float64)
    assert_near(found[1].sum(-1), total, 1e-4, 1)


@compiled
@pytest.mark.parametrize("seed", [2, 3])
def test_attend_pages_in_parts(seed: int) -> None:
    case = page_case(64, 3, 3, 1, 1, 1400, 3000, seed, 1.0, 2)
    importance = importance_for(case, seed)
    found = cpu.attend_pages(*case, 0.125, True, importance)
    assert found is not None
    expected = reference.attend_pages(*exact(case), 0.125, True, importance)
    assert_near(found[0], expected[0], 2.1 * BF16_STEP, 1.0)
    assert found[1] is not None
    assert expected[1] is not None
    assert_near(found[1], expected[1].double(), 1e-3, 1e-2)


@compiled
@pytest.mark.parametrize(("dim", "ratio", "rows"), [(64, 3, 16), (128, 8, 16), (64, 3, 13)])
def test_attend_many_pages_in_prefill(dim: int, ratio: int, rows: int) -> None:
    """AMX, where the CPU has it, takes blocks of 16 rows and more."""
    case = page_case(dim, 2, ratio, 3, rows, 700, 3000, seed=5, size=2.0, group_size=2)
    scale, importance = 1 / math.sqrt(dim), importance_for(case, 5)
    found = cpu.attend_pages(*case, scale, True, importance)
    expected = reference.attend_pages(*exact(case), scale, True, importance)
    assert found is not None
    assert_near(found[0], expected[0], 2.1 * BF16_STEP, 2.0)
    assert found[1] is not None
    assert expected[1] is not None
    assert_near(found[1], expected[1].double(), 1e-3, 1e-1)
    lse = cpu.attention_lse(*case, scale)
    assert lse is not None
    expected_lse = reference.attention_lse(*exact(case), scale)
    torch.testing.assert_close(lse, expected_lse.float(), rtol=1e-5, atol=1e-4)


@compiled
@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([16, 48, 64, 128]),
    st.integers(1, 3),
    ratios,
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(5, 40),
    st.integers(17, 150),
    st.sampled_from([0.3, 4.0]),
    seeds,
)
def test_attention_lse(
    dim: int,
    heads: int,
    ratio: int,
    blocks: int,
    rows: int,
    pages: int,
    tokens: int,
    size: float,
    seed: int,
) -> None:
    case = page_case(dim, heads, ratio, blocks, rows, pages, tokens, seed, size, 2)
    scale = 1 / math.sqrt(dim)
    found = cpu.attention_lse(*case, scale)
    assert found is not None
    expected = reference.attention_lse(*exact(case), scale)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-4)


@compiled
def test_attend_pages_with_weights_far_apart() -> None:
    """Scores in the hundreds: nearly one-hot weights, and a maximum that rises between tiles."""
    case = page_case(64, 2, 3, 2, 5, 40, 180, seed=11, size=8, group_size=2)
    found = cpu.attend_pages(*case, 1.0, True)
    expected = reference.attend_pages(*exact(case), 1.0, True)
    assert found is not None
    assert_near(found[0], expected[0], 2.1 * BF16_STEP, 8)
    assert found[1] is not None
    assert expected[1] is not None
    assert_near(found[1], expected[1].double(), 1e-2, 1e-2)
