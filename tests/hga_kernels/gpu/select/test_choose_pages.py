"""Choosing a token's pages in two kernels, against selection and look-up one after the other."""

import math

import pytest
import torch

from hga_kernels import (
    Budget,
    ChunkIndex,
    ChunkRange,
    LayerPages,
    PageTable,
    TokenWindow,
    Window,
    reference,
    select_groups,
)
from hga_kernels.reference.selection import STRATA
from tests.support.kernel_cases import CHUNK, random

choice = pytest.importorskip("hga_kernels.gpu.select.choose_pages")
selection = pytest.importorskip("hga_kernels.gpu.select.dispatch")
pytestmark = pytest.mark.usefixtures("poisoned")

MAX_ROWS = 16
HEADS, CHUNKS, BUDGET = 2, 25, 40


def window_of(group_size: int) -> Window:
    """Return a window of two chunks of sinks and the open chunk: more than one program's pages."""
    return Window(2 * CHUNK // group_size, group_size)


def empty_cache(device: torch.device, group_size: int) -> PageTable:
    def empty(columns: int) -> torch.Tensor:
        return torch.full((HEADS, columns), -1, dtype=torch.int32, device=device)

    step = torch.zeros(1, dtype=torch.int32, device=device)
    counts = torch.zeros(2, dtype=torch.int64, device=device)
    per_chunk = CHUNK // group_size
    # Where there is only one chunk, its stratum has the whole budget.
    slots = STRATA * min(per_chunk, BUDGET)
    return PageTable(empty(CHUNKS * per_chunk), empty(slots), empty(slots), step, counts)


def window_lse(
    queries: torch.Tensor, resident: torch.Tensor, position: int, scale: float
) -> torch.Tensor:
    """[kv_heads, 1, rows]: log-sum-exp of the scores of sinks and open chunk."""
    size = resident.shape[3]
    window = window_of(size)
    sinks = window.sinks * size
    tokens = [*range(sinks), *range(max(sinks, position // CHUNK * CHUNK), position + 1)]
    slots = [t // size if t < sinks else window.slot(t // size) for t in tokens]
    keys = resident[:, slots, 0, [t % size for t in tokens]].double()
    return (queries.double() @ keys[:, None].mT * scale).logsumexp(-1).float()


@pytest.mark.parametrize(
    ("rows", "with_window", "size"),
    [
        (3, True, 16),
        (3, True, 2),
        (3, True, 4),
        (20, False, 16),
        (20, True, 16),
        pytest.param(3, False, 16, marks=pytest.mark.exhaustive),
        pytest.param(3, True, 8, marks=pytest.mark.exhaustive),
    ],
)
def test_choosing_pages_is_selecting_groups_and_resolving_them(
    device: torch.device,
    rows: int,
    with_window: bool,
    size: int,
) -> None:
    """Over several steps; 20 rows are too many for the two kernels."""
    dim, scale, sizes = 64, 1 / 8, window_of(size)
    centres = random(HEADS, CHUNKS, dim, seed=2, size=0.5)
    keys = random(HEADS, CHUNKS * CHUNK, dim, seed=3)
    codes, scales = reference.encode_tokens(keys, centres, "tokens")
    scales[:, -1], centres[:, -1] = math.nan, math.nan
    index = ChunkIndex(centres.to(device), codes.to(device), scales.to(device))
    budget = Budget(BUDGET, size)
    cache, expected = empty_cache(device, size), empty_cache(device, size)
    drawn = 0
    for step, end in enumerate((1, 2, 5, 5, *(24, 9, 22, 15) * 2)):
        queries = random(HEADS, 1, rows, dim, seed=step - step % 3 // 2, size=8).to(device)
        ends = torch.tensor([end], dtype=torch.int32, device=device)
        for table in (cache, expected):
            table.step.fill_(step)
        window, lse = None, None
        if with_window:
            position = (end + 2) * CHUNK + 5 + 9 * step
            resident = random(HEADS, sizes.slots, 2, size, dim, seed=step).to(device)
            # What comes after the token may hold anything.
            group = position // size
            resident[:, sizes.slot(group), :, position % size + 1 :] = math.nan
            for later in range(group + 1, sizes.first_open(position) + sizes.open):
                resident[:, sizes.slot(later)] = math.nan
            at = torch.tensor([position], dtype=torch.int32, device=device)
            window = TokenWindow(at, LayerPages(resident, resident.new_empty(0), sizes))
            lse = window_lse(queries, resident, position, scale)
        groups, importance, slots = choice.choose_pages(
            queries, index, ChunkRange(1, ends), budget, scale, cache, window, 5
        )
        select = selection.select_groups if rows <= MAX_ROWS else select_groups
        chosen, expected_importance = select(
            queries, index, ChunkRange(1, ends, CHUNKS), budget, scale, lse, 5
        )
        assert torch.equal(groups, chosen[0])
        drawn += int((groups >= 0).sum())
        torch.testing.assert_close(importance, expected_importance[0], rtol=3e-3, atol=0)
        assert torch.equal(slots, reference.resolve_pages(chosen[0], expected, CHUNK // size))
        for name in ("table", "owner", "stamps", "step", "counts"):
            assert torch.equal(getattr(cache, name), getattr(expected, name)), name
    hits, misses = cache.counts.tolist()
    assert hits > 0
    assert hits + misses == drawn > 100
    if size == 16:
        # Many pages had to make room for others.
        assert misses - int((cache.owner >= 0).sum()) > 4
