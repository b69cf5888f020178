"""Attention over listed pages against its definition in float64 on the same bf16 numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hga_kernels import reference
from tests.support.kernel_cases import (
    BF16_STEP,
    GROUP_SIZES,
    PageCase,
    assert_near,
    exact,
    group_sizes,
    importance_for,
    page_case,
    random,
    ratios,
    seeds,
)

gpu_attention = pytest.importorskip("hga_kernels.gpu.attention")
pytestmark = pytest.mark.usefixtures("poisoned")


def check(
    case: PageCase,
    device: torch.device,
    with_mass: bool,
    size: float = 1.0,
    importance: torch.Tensor | None = None,
) -> None:
    """Compare the kernels' result for a case with the definition's."""
    scale = 1 / math.sqrt(case[0].shape[-1])
    moved = [tensor.to(device) for tensor in case]
    weights = None if importance is None else importance.to(device)
    found = gpu_attention.attend_pages(*moved, scale, with_mass, weights)
    assert found is not None
    out, mass = reference.attend_pages(*exact(case), scale, with_mass, importance)
    # Weights are rounded to bf16, and so is the result.
    assert_near(found[0].cpu(), out, 2.1 * BF16_STEP, size)
    if mass is None:
        assert found[1] is None
        return
    assert_near(found[1].cpu(), mass.double(), 1e-3, 1e-1)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 700),
    st.integers(0, 5),
    st.integers(0, 40),
    st.sampled_from([1, 2, 3, 4]),
    st.booleans(),
    seeds,
)
def test_lists_pages(
    device: torch.device,
    blocks: int,
    heads: int,
    count: int,
    sinks: int,
    open_chunk: int,
    pages: int,
    with_importance: bool,
    seed: int,
) -> None:
    """Pages and importance weights stand where the definition puts them."""
    draw = torch.Generator().manual_seed(seed)
    window = torch.randint(-1, 99, (blocks, heads, sinks + open_chunk), generator=draw).int()
    chosen = torch.randint(-1, 99, (blocks, heads, count), generator=draw).int()
    importance = torch.rand(blocks, heads, count, generator=draw) if with_importance else None
    right, right_weights = reference.list_pages(chosen, importance, window, sinks, pages)
    moved = None if importance is None else importance.to(device)
    found = gpu_attention.list_pages(chosen.to(device), moved, window.to(device), sinks, pages)
    assert found is not None
    assert torch.equal(found[0].cpu(), right)
    if right_weights is None:
        assert found[1] is None
    else:
        assert torch.equal(found[1].cpu(), right_weights)


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from([16, 64, 128]),
    st.integers(1, 2),
    ratios,
    st.integers(1, 2),
    st.integers(1, 9),
    st.integers(3, 11),
    st.integers(17, 150),
    st.booleans(),
    st.sampled_from([0.3, 1.0, 4.0]),
    group_sizes,
    seeds,
)
def test_attend_pages_as_defined(
    device: torch.device,
    dim: int,
    heads: int,
    ratio: int,
    blocks: int,
    rows: int,
    pages: int,
    tokens: int,
    with_mass: bool,
    size: float,
    group_size: int,
    seed: int,
) -> None:
    # Pages for at least the same number of tokens.
    pages += (16 // group_size - 1) * 3
    case = page_case(dim, heads, ratio, blocks, rows, pages, tokens, seed, size, group_size)
    check(case, device, with_mass, size, importance_for(case, seed))
    moved = [tensor.to(device) for tensor in case]
    lse = gpu_attention.attention_lse(*moved, 1 / math.sqrt(dim))
    expected = reference.attention_lse(*exact(case), 1 / math.sqrt(dim))
    torch.testing.assert_close(lse.cpu(), expected.float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("ratio", "group_size"), [(3, 16), (8, 16), (8, 8), (3, 2), (8, 2)])
def test_whole_blocks(device: torch.device, ratio: int, group_size: int) -> None:
    """64 query tokens: several programs share the pages, and each has several tiles."""
    case = page_case(64, 1, ratio, 1, 64, 640 // group_size, 900, seed=5, group_size=group_size)
    check(case, device, with_mass=True, importance=importance_for(case, 1))


@pytest.mark.parametrize("size", GROUP_SIZES)
def test_all_pages_of_a_text(device: torch.device, size: int) -> None:
    """Dense attention: every page in order, without those after a block."""
    tokens, rows, dim = 200, 40, 64
    pages = -(-tokens // size)
    pool = random(pages, 2, size, dim, seed=1)
    positions = torch.arange(tokens, dtype=torch.int32).view(-1, rows)
    numbers = torch.arange(pages, dtype=torch.int32)
    groups = numbers.expand(len(positions), 1, pages)
    groups = groups.masked_fill(groups > positions[:, -1:, None] // size, -1)
    queries = random(len(positions), rows, 2, dim, seed=2)
    check((queries, positions, groups, groups.clamp_min(0), pool), device, with_mass=True)
    listed = groups, groups.clamp_min(0), pool
    moved = [x.to(device) for x in (queries, positions, *listed)]
    out, _ = gpu_attention.attend_pages(*moved, 0.125)
    flat = queries.flatten(0, 1).transpose(0, 1).double()
    keys, values = (pool[:, i].flatten(0, 1)[None, :tokens].double() for i in (0, 1))
    dense = torch.nn.functional.scaled_dot_product_attention(
        flat, keys.expand(2, -1, -1), values.expand(2, -1, -1), is_causal=True, scale=0.125
    )
    assert_near(out.cpu().flatten(0, 1), dense.transpose(0, 1), 2.1 * BF16_STEP, 1)


def test_what_is_not_taken() -> None:
    queries, positions, groups, slots, pool = page_case(64, 1, 1, 1, 2, 3, 40, seed=0)
    rest = positions, groups, slots
    odd = pool[..., :48].contiguous()
    assert gpu_attention.attend_pages(queries.float(), *rest, pool.float(), 0.1) is None
    assert gpu_attention.attend_pages(queries[..., :48], *rest, odd, 0.1) is None
    assert gpu_attention.attend_pages(queries, *rest, pool, -0.1) is None
    large = random(4, 2, 32, 64)
    assert gpu_attention.attend_pages(queries, *rest, large, 0.1) is None
