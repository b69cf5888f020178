"""Inputs for the compiled kernels, and how near their results have to be."""

import math

import torch
from hga_kernels import reference
from hypothesis import strategies as st

GROUP, CHUNK = 16, 64
BF16_STEP = 2**-8
"""Largest relative rounding error of bf16."""

Index = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
PageCase = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

seeds = st.integers(0, 2**16)
ratios = st.sampled_from([1, 3, 8])


def random(*shape: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    """bf16 normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * size).bfloat16()


def assert_near(found: torch.Tensor, expected: torch.Tensor, relative: float, of: float) -> None:
    """Within ``relative`` of the number itself, and of ``of`` times as much near zero."""
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=relative, atol=relative * of)


def index_of(heads: int, chunks: int, dim: int, seed: int) -> Index:
    centres = random(heads, chunks, dim, seed=seed, size=0.5)
    keys = random(heads, chunks * CHUNK, dim, seed=seed + 1)
    return centres, *reference.encode_tokens(keys, centres, GROUP)


def page_case(
    dim: int, heads: int, ratio: int, blocks: int, rows: int, pages: int, tokens: int,
    seed: int, size: float = 1.0,
) -> PageCase:  # fmt: skip
    """Arguments of ``attend_pages`` up to the pool: a random choice of pages in random order.

    Every query sees its own group; places without a token are NaN.
    """
    generator = torch.Generator().manual_seed(seed)
    total = -(-tokens // GROUP)
    pool = random(heads * total + 2, 2, GROUP, dim, seed=seed, size=size)
    slots_of = torch.randperm(len(pool), generator=generator)[: heads * total].view(heads, total)
    if tokens % GROUP:
        pool[slots_of[:, -1], :, tokens % GROUP :] = math.nan
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
        needed = {start // GROUP, *(p // GROUP for p in range(start, start + rows))}
        for head in range(heads):
            order = torch.randperm(total, generator=generator).tolist()
            chosen = [*sorted(needed), *(g for g in order if g not in needed)]
            places = torch.randperm(pages, generator=generator)
            filled = max(len(needed), int(torch.randint(1, pages + 1, (), generator=generator)))
            for place, group in zip(places[:filled].tolist(), chosen, strict=False):
                groups[block, head, place] = group
    places = groups.clamp_min(0).long()
    slots = slots_of[torch.arange(heads)[None, :, None], places].to(torch.int32)
    return queries, positions, groups, slots.masked_fill(groups < 0, -1), pool


def exact(case: PageCase) -> PageCase:
    queries, positions, groups, slots, pool = case
    return queries.double(), positions, groups, slots, pool.double()
