"""Choosing a token's pages in one go, against selection and look-up one after the other."""

import math

import pytest
import torch
from hga_kernels import reference, reference_pages, select_groups
from kernel_cases import CHUNK, GROUP, random

choice = pytest.importorskip("hga_kernels.gpu.choice")
selection = pytest.importorskip("hga_kernels.gpu.selection")
pytestmark = pytest.mark.usefixtures("poisoned")

MAX_ROWS = 16
HEADS, CHUNKS, BUDGET, SLOTS = 2, 9, 6, 13


def empty_cache(device: torch.device) -> list[torch.Tensor]:
    """Table, owner, stamps, step and counts."""
    shapes = (HEADS, CHUNKS * CHUNK // GROUP), (HEADS, SLOTS), (HEADS, SLOTS)
    cache = [torch.full(shape, -1, dtype=torch.int32, device=device) for shape in shapes]
    step = torch.zeros(1, dtype=torch.int32, device=device)
    return [*cache, step, torch.zeros(2, dtype=torch.int64, device=device)]


@pytest.mark.parametrize("with_always", [False, True])
@pytest.mark.parametrize("rows", [3, 20])
def test_choose_pages(device: torch.device, rows: int, with_always: bool) -> None:
    """Over several steps; 20 rows are too many for one go."""
    dim, scale = 64, 1 / 8
    centres = random(HEADS, CHUNKS, dim, seed=2, size=0.5)
    keys = random(HEADS, CHUNKS * CHUNK, dim, seed=3)
    codes, scales = reference.encode_tokens(keys, centres, GROUP, "tokens")
    scales[:, -1], centres[:, -1] = math.nan, math.nan
    index = [part.to(device) for part in (centres, codes, scales)]
    cache, expected = empty_cache(device), empty_cache(device)
    for step, end in enumerate((1, 2, 5, 5, 8, 7)):
        queries = random(HEADS, 1, rows, dim, seed=step // 2, size=2).to(device)
        ends = torch.tensor([end], dtype=torch.int32, device=device)
        for state in (cache, expected):
            state[3].fill_(step)
        parts = random(HEADS, 3, rows, seed=step).float().to(device) if with_always else None
        groups, multiples, places = choice.choose_pages(
            queries, *index, 1, ends, BUDGET, scale, *cache, parts, 5
        )
        whole = None if parts is None else parts.logsumexp(1, keepdim=True)
        select = selection.select_groups if rows <= MAX_ROWS else select_groups
        chosen, expected_multiples = select(
            queries, *index, 1, ends, CHUNKS, BUDGET, CHUNKS, scale, whole, 5
        )
        assert torch.equal(groups, chosen[0])
        torch.testing.assert_close(multiples, expected_multiples[0], rtol=1e-4, atol=0)
        assert torch.equal(places, reference_pages.resolve_pages(chosen[0], *expected))
        for found, right in zip(cache, expected, strict=True):
            assert torch.equal(found, right)
    hits, misses = cache[4].tolist()
    assert hits > 0
    assert misses > SLOTS * HEADS / 2
    # The second step has one chunk to choose from, the others a budget and more.
    assert hits + misses == HEADS * (4 + 4 * BUDGET)
