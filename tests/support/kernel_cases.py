"""Inputs for the compiled kernels, and how close their results must be."""

import math

import torch
from hypothesis import strategies as st

from hga_kernels import ChunkIndex, reference

GROUP, CHUNK = 16, 64
GROUP_SIZES = (2, 4, 8, 16)
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
    """Return the draw number of a group, from 1/1024 to 1; KV heads are numbered over all layers.

    Multiples of the inverse golden ratio for groups, and of the inverse plastic number for heads.
    """
    golden, plastic = (math.sqrt(5) - 1) / 2, 0.7548776662466927
    steps = group * int(golden * 2**24) + head * int(plastic * 2**24)
    return max(1 / 1024, steps % 2**24 / 2**24)


def drawn_of_strata(
    shares: dict[int, float], budget: int, per_chunk: int
) -> list[tuple[list[int], int]]:
    """Return the groups of each of the 16 strata, and how many may be drawn from it.

    Chunk c is in stratum c % 16, and the budget is split in proportion to the strata's chunks.
    """
    chunks = {group // per_chunk for group in shares}
    filled, before, strata = min(budget, len(shares)), 0, []
    for stratum in range(16):
        after = before + sum(chunk % 16 == stratum for chunk in chunks)
        room = filled * after // max(len(chunks), 1) - filled * before // max(len(chunks), 1)
        own = [group for group in shares if group // per_chunk % 16 == stratum]
        strata.append((own, room))
        before = after
    return strata


def odds_of(shares: dict[int, float], room: int, budget: int, head: int) -> dict[int, float]:
    """Return the odds of the groups of a stratum where not all are taken.

    Args:
        shares: of the attention, by group.
        room: groups that may be drawn.
        budget: of all strata.
        head: KV head, numbered over all layers.
    """
    odds = {group: budget * share for group, share in shares.items()}
    while _drawn_by(odds, head) > room:
        odds = {group: of / 2 for group, of in odds.items()}
    return odds


def _drawn_by(odds: dict[int, float], head: int, factor: float = 1.0, more: float = 0.0) -> int:
    return sum(of * factor + more >= draw_number(group, head) for group, of in odds.items())


def assert_drawn(
    chosen: dict[int, float],
    shares: dict[int, float],
    head: int,
    budget: int,
    per_chunk: int,
    relative: float,
    least: float = 0.0,
    factor: float = 1.0,
) -> None:
    """Assert that groups and their importance weights are drawn by the shares of all groups.

    The shares that they were drawn by may differ from these by ``relative`` and by ``least``.
    Odds are ``factor`` times the budget times the share.
    """
    assert set(chosen) <= set(shares)
    if 2 * len(shares) <= budget:
        assert chosen == dict.fromkeys(shares, 1.0)
        return
    for stratum, room in drawn_of_strata(shares, budget, per_chunk):
        own = {group: weight for group, weight in chosen.items() if group in stratum}
        assert len(own) <= room
        odds = {group: factor * budget * shares[group] for group in stratum}
        # Where the odds are halved can hang on one group whose odds are nearly its draw number.
        while _drawn_by(odds, head, 1 - relative, -factor * budget * least) > room:
            odds = {group: of / 2 for group, of in odds.items()}
        while not _are_drawn(own, odds, head, relative, factor * budget * least):
            assert _drawn_by(odds, head, 1 + relative, factor * budget * least) > room
            odds = {group: of / 2 for group, of in odds.items()}


def _are_drawn(
    chosen: dict[int, float], odds: dict[int, float], head: int, relative: float, least: float
) -> bool:
    for group, of in odds.items():
        number, error = draw_number(group, head), of * relative + least
        if group not in chosen:
            if of - error >= number:
                return False
            continue
        lowest, highest = 1 / (of + error), 1 / max(of - error, 1 / 1024)
        if (
            of + error < number
            or not max(lowest, 1) * 0.999 <= chosen[group] <= max(highest, 1) * 1.001
        ):
            return False
    return True


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
