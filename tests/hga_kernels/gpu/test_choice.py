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
SIZES = reference_pages.Window(sinks=4, recent=12)
"""Of more pages than one program reads."""


def empty_cache(device: torch.device) -> list[torch.Tensor]:
    """Table, owner, stamps, step and counts."""
    shapes = (HEADS, CHUNKS * CHUNK // GROUP), (HEADS, SLOTS), (HEADS, SLOTS)
    cache = [torch.full(shape, -1, dtype=torch.int32, device=device) for shape in shapes]
    step = torch.zeros(1, dtype=torch.int32, device=device)
    return [*cache, step, torch.zeros(2, dtype=torch.int64, device=device)]


def read_anyhow(
    queries: torch.Tensor, resident: torch.Tensor, position: int, scale: float
) -> torch.Tensor:
    """[kv_heads, 1, rows]: logarithm of the mass of sinks, two chunks and the open one."""
    tokens = [*range(64), *range(max(64, (position // 64 - 2) * 64), position + 1)]
    slots = [t // 16 if t < 64 else SIZES.sinks + t // 16 % SIZES.recent for t in tokens]
    keys = resident[:, slots, 0, [t % 16 for t in tokens]].double()
    return (queries.double() @ keys[:, None].mT * scale).logsumexp(-1).float()


@pytest.mark.parametrize("with_window", [False, True])
@pytest.mark.parametrize("rows", [3, 20])
def test_choose_pages(device: torch.device, rows: int, with_window: bool) -> None:
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
        window, always = None, None
        if with_window:
            position = (end + 2) * CHUNK + 5 + 9 * step
            resident = random(HEADS, SIZES.slots, 2, GROUP, dim, seed=step).to(device)
            # What comes after the token may hold anything.
            group = position // GROUP
            resident[:, SIZES.sinks + group % SIZES.recent, :, position % GROUP + 1 :] = math.nan
            for later in range(group + 1, (position // CHUNK + 1) * (CHUNK // GROUP)):
                resident[:, SIZES.sinks + later % SIZES.recent] = math.nan
            at = torch.tensor([position], dtype=torch.int32, device=device)
            window = choice.WindowPages(at, resident, SIZES)
            always = read_anyhow(queries, resident, position, scale)
        groups, multiples, places = choice.choose_pages(
            queries, *index, 1, ends, BUDGET, scale, *cache, window, 5
        )
        select = selection.select_groups if rows <= MAX_ROWS else select_groups
        chosen, expected_multiples = select(
            queries, *index, 1, ends, CHUNKS, BUDGET, CHUNKS, scale, always, 5
        )
        assert torch.equal(groups, chosen[0])
        torch.testing.assert_close(multiples, expected_multiples[0], rtol=3e-3, atol=0)
        assert torch.equal(places, reference_pages.resolve_pages(chosen[0], *expected))
        for found, right in zip(cache, expected, strict=True):
            assert torch.equal(found, right)
    hits, misses = cache[4].tolist()
    assert hits > 0
    assert misses > SLOTS * HEADS / 2
    # The second step has one chunk to choose from, the others a budget and more.
    assert hits + misses == HEADS * (4 + 4 * BUDGET)
