"""Inputs for the compiled kernels, and how close their results must be."""

import math

import torch
from hypothesis import strategies as st

from hga_kernels import ChunkIndex, reference

GROUP, CHUNK = 16, 64
GROUP_SIZES = (2, 8, 16)
BF16_STEP = 2**-8
"""Largest relative rounding error of bf16."""

PageCase = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

seeds = st.integers(0, 2**16)
ratios = st.sampled_from([1, 3, 8])
group_sizes = st.sampled_from(GROUP_SIZES)


def random(*shape: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    """bf16 normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * size).bfloat16()


def assert_near(found: torch.Tensor, expected: torch.Tensor, relative: float, of: float) -> None:
    """Assert an error within ``relative`` of each number, or of ``of`` for smaller numbers."""
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=relative, atol=relative * of)


def draw_number(group: int, head: int) -> float:
    """Return the draw number of a group, from 1 to 64; KV heads are numbered over all layers.

    Multiples of the inverse golden ratio for groups, and of the inverse plastic number for heads.
    """
    golden, plastic = (math.sqrt(5) - 1) / 2, 0.7548776662466927
    steps = group * int(golden * 2**24) + head * int(plastic * 2**24)
    return max(1.0, 64 * (steps % 2**24) / 2**24)


def drawn_of_strata(
    masses: dict[int, float], budget: int, per_chunk: int
) -> list[tuple[list[int], int]]:
    """Return the groups of each of the four strata, and how many are drawn from it.

    Chunk c is in stratum c % 4, and the budget is split in proportion to the strata's chunks.
    """
    chunks = {group // per_chunk for group in masses}
    filled, before, strata = min(budget, len(masses)), 0, []
    for stratum in range(4):
        after = before + sum(chunk % 4 == stratum for chunk in chunks)
        room = filled * after // max(len(chunks), 1) - filled * before // max(len(chunks), 1)
        own = [group for group in masses if group // per_chunk % 4 == stratum]
        strata.append((own, room))
        before = after
    return strata


def assert_drawn(
    chosen: dict[int, float],
    masses: dict[int, float],
    head: int,
    budget: int,
    per_chunk: int,
    relative: float,
    least: float = 0.0,
) -> None:
    """Assert that groups and their importance weights are drawn by the masses of all groups.

    The masses that they were drawn by may differ from these by ``relative`` and by ``least``.
    """
    assert len(chosen) == min(budget, len(masses))
    assert set(chosen) <= set(masses)
    for stratum, room in drawn_of_strata(masses, budget, per_chunk):
        own = {group: weight for group, weight in chosen.items() if group in stratum}
        mass = {group: masses[group] for group in stratum}
        assert len(own) == room
        _assert_drawn(own, mass, head, relative, least)


def _assert_drawn(
    chosen: dict[int, float], mass: dict[int, float], head: int, relative: float, least: float
) -> None:
    priority = {group: of / draw_number(group, head) for group, of in mass.items()}
    left_out = [priority[group] for group in set(mass) - set(chosen)]
    if not left_out:
        assert set(chosen.values()) <= {1.0}
        return
    threshold = max(left_out)
    lowest = min((priority[group] for group in chosen), default=threshold)
    assert threshold <= lowest * (1 + relative) + least
    for group, found in chosen.items():
        if mass[group] <= 10 * least:
            assert 1 <= found <= 64
            continue
        expected = min(max(64 * threshold / mass[group], 1), 64)
        assert abs(found - expected) <= relative * expected + 64 * least / mass[group]


def index_of(heads: int, chunks: int, dim: int, seed: int) -> ChunkIndex:
    """Return an index of random keys around random centres."""
    centres = random(heads, chunks, dim, seed=seed, size=0.5)
    keys = random(heads, chunks * CHUNK, dim, seed=seed + 1)
    return ChunkIndex(centres, *reference.encode_tokens(keys, centres))


def page_case(
    dim: int,
    heads: int,
    ratio: int,
    blocks: int,
    rows: int,
    pages: int,
    tokens: int,
    seed: int,
    size: float = 1.0,
    group_size: int = GROUP,
) -> PageCase:
    """Return the arguments of ``attend_pages`` up to the pool: random pages in random order.

    Every query sees its own group. What holds no token is NaN.
    """
    generator = torch.Generator().manual_seed(seed)
    total = -(-tokens // group_size)
    pool = random(heads * total + 2, 2, group_size, dim, seed=seed, size=size)
    slots_of = torch.randperm(len(pool), generator=generator)[: heads * total].view(heads, total)
    if tokens % group_size:
        pool[slots_of[:, -1], :, tokens % group_size :] = math.nan
    unused = torch.ones(len(pool), dtype=torch.bool)
    unused[slots_of] = False
    pool[unused] = math.nan
    queries = random(blocks, rows, heads * ratio, dim, seed=seed + 1, size=size)
    positions = torch.empty(blocks, rows, dtype=torch.int32)
    groups = torch.full((blocks, heads, pages), -1, dtype=torch.int32)
    for block in range(blocks):
        start = int(torch.randint(0, tokens - rows + 1, (), generator=generator))
        start = tokens - rows if block == 0 else start
        positions[block] = torch.arange(start, start + rows)
        needed = {p // group_size for p in range(start, start + rows)}
        for head in range(heads):
            order = torch.randperm(total, generator=generator).tolist()
            chosen = [*sorted(needed), *(g for g in order if g not in needed)]
            columns = torch.randperm(pages, generator=generator)
            filled = max(len(needed), int(torch.randint(1, pages + 1, (), generator=generator)))
            for column, group in zip(columns[:filled].tolist(), chosen, strict=False):
                groups[block, head, column] = group
    listed = groups.clamp_min(0).long()
    slots = slots_of[torch.arange(heads)[None, :, None], listed].to(torch.int32)
    return queries, positions, groups, slots.masked_fill(groups < 0, -1), pool


def exact(case: PageCase) -> PageCase:
    """Return the same case in float64."""
    queries, positions, groups, slots, pool = case
    return queries.double(), positions, groups, slots, pool.double()


def importance_for(case: PageCase, seed: int) -> torch.Tensor | None:
    """Return random importance weights for the pages of a case if the seed is odd."""
    generator = torch.Generator().manual_seed(seed)
    return 1 + 9 * torch.rand(case[2].shape, generator=generator) if seed % 2 else None
