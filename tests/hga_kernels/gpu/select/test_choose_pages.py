"""Choosing a token's pages in one go, against selection and look-up one after the other."""

import math

import pytest
import torch

from hga_kernels import reference, select_groups
from tests.support.kernel_cases import CHUNK, random

choice = pytest.importorskip("hga_kernels.gpu.select.choose_pages")
selection = pytest.importorskip("hga_kernels.gpu.select.dispatch")
pytestmark = pytest.mark.usefixtures("poisoned")

MAX_ROWS = 16
HEADS, CHUNKS, BUDGET = 2, 25, 6
SLOTS = 4 * 7
"""Where there is one chunk only, its stratum has all of the budget."""


def window_of(group_size: int) -> reference.Window:
    """Of more pages than one program reads."""
    return reference.Window(64 // group_size, 192 // group_size, group_size)


def empty_cache(device: torch.device, group_size: int) -> list[torch.Tensor]:
    """Table, owner, stamps, step and counts."""
    shapes = (HEADS, CHUNKS * CHUNK // group_size), (HEADS, SLOTS), (HEADS, SLOTS)
    cache = [torch.full(shape, -1, dtype=torch.int32, device=device) for shape in shapes]
    step = torch.zeros(1, dtype=torch.int32, device=device)
    return [*cache, step, torch.zeros(2, dtype=torch.int64, device=device)]


def read_anyhow(
    queries: torch.Tensor, resident: torch.Tensor, position: int, scale: float
) -> torch.Tensor:
    """[kv_heads, 1, rows]: logarithm of the mass of sinks, two chunks and the open one."""
    tokens = [*range(64), *range(max(64, (position // 64 - 2) * 64), position + 1)]
    size = resident.shape[3]
    window = window_of(size)
    slots = [t // size if t < 64 else window.sinks + t // size % window.recent for t in tokens]
    keys = resident[:, slots, 0, [t % size for t in tokens]].double()
    return (queries.double() @ keys[:, None].mT * scale).logsumexp(-1).float()


@pytest.mark.parametrize(
    ("rows", "with_window", "size"),
    [
        (3, True, 16),
        (3, True, 2),
        (20, False, 16),
        (20, True, 16),
        pytest.param(3, False, 16, marks=pytest.mark.exhaustive),
        pytest.param(3, True, 8, marks=pytest.mark.exhaustive),
    ],
)
def test_choose_pages(
    device: torch.device,
    rows: int,
    with_window: bool,
    size: int,
) -> None:
    """Over several steps; 20 rows are too many for one go."""
    dim, scale, sizes = 64, 1 / 8, window_of(size)
    centres = random(HEADS, CHUNKS, dim, seed=2, size=0.5)
    keys = random(HEADS, CHUNKS * CHUNK, dim, seed=3)
    codes, scales = reference.encode_tokens(keys, centres, "tokens")
    scales[:, -1], centres[:, -1] = math.nan, math.nan
    index = [part.to(device) for part in (centres, codes, scales)]
    cache, expected = empty_cache(device, size), empty_cache(device, size)
    for step, end in enumerate((1, 2, 5, 5, *(24, 9, 22, 15) * 4)):
        queries = random(HEADS, 1, rows, dim, seed=step - step % 3 // 2, size=8).to(device)
        ends = torch.tensor([end], dtype=torch.int32, device=device)
        for state in (cache, expected):
            state[3].fill_(step)
        window, always = None, None
        if with_window:
            position = (end + 2) * CHUNK + 5 + 9 * step
            resident = random(HEADS, sizes.slots, 2, size, dim, seed=step).to(device)
            # What comes after the token may hold anything.
            group = position // size
            resident[:, sizes.sinks + group % sizes.recent, :, position % size + 1 :] = math.nan
            for later in range(group + 1, sizes.end(position)):
                resident[:, sizes.sinks + later % sizes.recent] = math.nan
            at = torch.tensor([position], dtype=torch.int32, device=device)
            window = choice.WindowPages(at, resident, sizes)
            always = read_anyhow(queries, resident, position, scale)
        groups, importance, places = choice.choose_pages(
            queries, *index, 1, ends, BUDGET, size, scale, *cache, window, 5
        )
        select = selection.select_groups if rows <= MAX_ROWS else select_groups
        chosen, expected_importance = select(
            queries, *index, 1, ends, BUDGET, size, CHUNKS, scale, always, 5
        )
        assert torch.equal(groups, chosen[0])
        torch.testing.assert_close(importance, expected_importance[0], rtol=3e-3, atol=0)
        assert torch.equal(places, reference.resolve_pages(chosen[0], *expected, CHUNK // size))
        for found, right in zip(cache, expected, strict=True):
            assert torch.equal(found, right)
    hits, misses = cache[4].tolist()
    assert hits > 0
    # So many pages had to make room for others.
    assert misses - int((cache[1] >= 0).sum()) > 4
    # The second step has one chunk to choose from, the others a budget and more.
    assert hits + misses == HEADS * (min(CHUNK // size, BUDGET) + 18 * BUDGET)
