"""Times of the routing index and of selection, at the geometry of Qwen3-30B-A3B.

In a decode step, as many tokens are chosen with groups of any size.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import torch

from hga_kernels import Budget, ChunkIndex, ChunkRange, Window, reference
from hga_kernels.gpu import index
from hga_kernels.gpu.build import launches_for
from hga_kernels.gpu.select import dispatch as selection
from hga_kernels.gpu.select import launches as selection_launches
from hga_kernels.gpu.select import step as selection_step
from tools.measure.gpu_times import Case, changed, with_launch

HEADS, DIM, RATIO, CHUNK = 4, 128, 8, 64
LAYERS, CHUNKS, SINKS = 48, 1024, 2
BUDGET, PREFILL_GROUP = 4096, 16
"""Tokens that may be chosen; those of a group in prefill."""
NOT_CHOSEN = 8
"""Chunks before a query that may not be chosen, as the cases were first timed."""
SCALE = 1 / math.sqrt(DIM)
COPIES = 8
"""Layers that are used in turn, so that they do not stay in the L2 cache."""


def entries(layers: int, device: torch.device) -> ChunkIndex:
    """Make an index of several layers: random keys around random centres."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    summaries = (draw(layers, HEADS, CHUNKS, DIM) * 0.5).bfloat16()
    codes = torch.randint(
        0,
        256,
        (layers, HEADS, CHUNKS, CHUNK, DIM // 4),
        dtype=torch.uint8,
        generator=generator,
        device=device,
    )
    scales = (draw(layers, HEADS, CHUNKS, CHUNK).abs() * 0.1 + 0.9).bfloat16()
    return ChunkIndex(summaries, codes, scales)


def layer_of(index: ChunkIndex, layer: int) -> ChunkIndex:
    """Return one layer of an index of several."""
    return ChunkIndex(index.summaries[layer], index.codes[layer], index.scales[layer])


def first_chunks(index: ChunkIndex, count: int) -> ChunkIndex:
    """Return the first chunks of an index of one layer."""
    return ChunkIndex(index.summaries[:, :count], index.codes[:, :count], index.scales[:, :count])


def angles_of(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return any rotation to the middle of a chunk; which one does not matter to the time."""
    angles = torch.linspace(-1, 1, CHUNK, device=device)[:, None] * torch.linspace(
        0, 0.5, DIM // 2, device=device
    )
    return angles.cos().contiguous(), angles.sin().contiguous()


def groups_lost(
    queries: torch.Tensor, index: ChunkIndex, chunks: ChunkRange, budget: Budget
) -> float:
    """Return the share of the groups that the reference draws and the kernels do not.

    The first and the last block are compared.
    """
    found = selection.select_groups(queries, index, chunks, budget, SCALE)
    assert found is not None
    blocks = [0, queries.shape[1] - 1]
    rows = queries[:, blocks].float() * SCALE
    centre_scores = rows @ index.summaries[:, None].float().transpose(2, 3)
    few = ChunkRange(chunks.first, chunks.ends[blocks], CHUNKS)
    listed = reference.candidate_chunks(HEADS, few)
    rotated = rows @ reference.hadamard(DIM, torch.float32, rows.device)
    shares = reference.score_groups(
        rotated, centre_scores, index.codes, index.scales, listed, budget.group_size
    )
    drawn, _ = reference.draw_groups(shares, listed, budget, 0)
    shared = (found[0][blocks][..., None] == drawn[..., None, :]) & (drawn >= 0)[..., None, :]
    return float(1 - shared.sum() / (drawn >= 0).sum())


def selecting(
    name: str,
    device: torch.device,
    layers: ChunkIndex,
    shape: tuple[int, int],
    ends: list[int],
    budget: Budget,
) -> Case:
    """Make a case of selection for ``shape`` (blocks, rows), from the chunks before ``ends``."""
    blocks, rows = shape
    generator = torch.Generator(device).manual_seed(1)
    queries = torch.randn(HEADS, blocks, rows, DIM, generator=generator, device=device) * 2
    queries = queries.bfloat16()
    end_chunks = torch.tensor(ends, dtype=torch.int32, device=device)
    chunks = ChunkRange(SINKS, end_chunks, CHUNKS if blocks == 1 else max(ends))
    numbers = itertools.cycle(range(COPIES))

    def run() -> object:
        index = layer_of(layers, next(numbers))
        return selection.select_groups(queries, index, chunks, budget, SCALE)

    spans = [max(end - SINKS, 0) for end in ends]
    read = HEADS * max(spans) * (CHUNK * (DIM // 4 + 2) + DIM * 2)
    scored = sum(spans) * (CHUNK + 1)
    return Case(
        name,
        run,
        bytes=read,
        # Products in 8 bits run at twice the rate of bf16.
        flops=HEADS * rows * scored * DIM,
        check=lambda: groups_lost(queries, layer_of(layers, 0), chunks, budget),
    )


def indexing(device: torch.device, layers: ChunkIndex, group: int) -> list[Case]:
    """Make cases of a slice of 4,096 tokens, and of decode steps that close a chunk or none."""
    cos, sin = angles_of(device)
    keys = torch.randn(COPIES, HEADS, 4096, DIM, device=device).bfloat16()
    count = 4096 // CHUNK
    numbers = itertools.cycle(range(COPIES))

    def build() -> object:
        layer = next(numbers)
        own = first_chunks(layer_of(layers, layer), count)
        return index.index_chunks(keys[layer], cos, sin, own)

    def check() -> float:
        own = first_chunks(layer_of(layers, 0), count)
        found, plain = (
            ChunkIndex(
                torch.empty_like(own.summaries),
                torch.empty_like(own.codes),
                torch.empty_like(own.scales),
            )
            for _ in range(2)
        )
        index.index_chunks(keys[0], cos, sin, found)
        reference.index_chunks(keys[0], cos, sin, plain)
        return float((found.codes != plain.codes).float().mean())

    slots = 44 * 16 // group
    resident = torch.randn(LAYERS, HEADS, slots, 2, group, DIM, device=device).bfloat16()
    window = Window(CHUNK // group, group)
    whole = ChunkIndex(
        *(
            torch.empty((LAYERS, *entry.shape[1:]), dtype=entry.dtype, device=device)
            for entry in (layers.summaries, layers.codes, layers.scales)
        )
    )

    def step(position: int) -> Callable[[], object]:
        here = torch.tensor([position], dtype=torch.int32, device=device)
        return lambda: index.index_closed_chunk(here, resident, window, cos, sin, whole)

    read = HEADS * 4096 * (DIM * 2 + DIM // 4 + 2)
    return [
        Case("index_chunks, slice of 4,096 (check: codes)", build, bytes=read, check=check),
        Case("index_closed_chunk, idle step", step(60_001)),
        Case(
            "index_closed_chunk, chunk closed",
            step(60_032),
            bytes=LAYERS * HEADS * CHUNK * (DIM * 2 + DIM // 4 + 2),
        ),
    ]


def cases(device: torch.device, group: int) -> list[Case]:
    """Return all cases of this part."""
    layers = entries(COPIES, device)
    few, many = Budget(BUDGET // group, group), Budget(BUDGET // PREFILL_GROUP, PREFILL_GROUP)
    found = [
        selecting(f"decode selection at {name}", device, layers, (1, RATIO), [end], few)
        for name, end in (("4K", 56), ("32K", 504), ("64K", 1016))
    ]
    starts = {"0": 0, "28K": 28 * 1024, "60K": 60 * 1024}
    found += [
        selecting(
            f"prefill selection at {name}",
            device,
            layers,
            (64, 16 * RATIO),
            [(start + 64 * block) // CHUNK - NOT_CHOSEN for block in range(64)],
            many,
        )
        for name, start in starts.items()
    ]
    ends = [1016 - (block < 32) for block in range(64)]
    found.append(selecting("append of 64 tokens", device, layers, (64, RATIO), ends, few))
    return [*found, *indexing(device, layers, group)]


def candidates(device: torch.device, group: int) -> Iterator[Case]:
    """Return a case per launch to choose from, and per size of the workspace."""
    layers = entries(COPIES, device)
    few, many = Budget(BUDGET // group, group), Budget(BUDGET // PREFILL_GROUP, PREFILL_GROUP)
    step = selecting("decode selection", device, layers, (1, RATIO), [1016], few)
    ends = [(60 * 1024 + 64 * block) // CHUNK - NOT_CHOSEN for block in range(64)]
    shape = 64, 16 * RATIO
    block = selecting("prefill selection", device, layers, shape, ends, many)
    for launch in selection_step.CANDIDATES["score_step"]:
        yield with_launch(step, selection_step.SCORE_LAUNCHES, launch)
    for launch in selection_step.CANDIDATES["choose_step"]:
        launches = launches_for(
            selection_step.CHOOSE_LAUNCHES, CHUNKS * CHUNK // group // reference.STRATA
        )
        yield with_launch(step, launches, launch)
    for launch in selection_launches.CANDIDATES["score_groups 128"]:
        yield with_launch(block, selection_launches.SCORE_LAUNCHES[128], launch)
    ends = [1016 - (token < 32) for token in range(64)]
    append = selecting("append selection", device, layers, (64, RATIO), ends, few)
    for launch in selection_launches.CANDIDATES["score_groups 16"]:
        yield with_launch(append, selection_launches.SCORE_LAUNCHES[16], launch)
    for launch in selection_launches.CANDIDATES["weigh"]:
        yield with_launch(block, selection_launches.WEIGH_LAUNCHES, launch)
    choose = launches_for(
        selection_launches.CHOOSE_LAUNCHES, CHUNKS * CHUNK // PREFILL_GROUP // reference.STRATA
    )
    for launch in selection_launches.CANDIDATES["choose"]:
        yield with_launch(block, choose, launch)
    for mebibytes in (24, 48, 96):
        change = partial(patch.object, selection, "SELECTION_BYTES", mebibytes * 2**20)
        yield changed(block, f"{block.name}: workspace of {mebibytes} MiB", change)
    keys = indexing(device, layers, group)[0]
    for launch in index.CANDIDATES["index_chunks"]:
        yield with_launch(keys, index.INDEX_LAUNCHES, launch)
