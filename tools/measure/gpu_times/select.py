"""Times of the routing index and of selection, at the geometry of Qwen3-30B-A3B.

As many tokens are chosen with groups of any size.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import torch

from hga_kernels import reference
from hga_kernels.gpu import index
from hga_kernels.gpu.build import launches_for
from hga_kernels.gpu.select import (
    dispatch as selection,
)
from hga_kernels.gpu.select import (
    launches as selection_launches,
)
from hga_kernels.gpu.select import (
    step as selection_step,
)
from hga_kernels.reference.pages import Window
from tools.measure.gpu_times import Case, changed, with_launch

HEADS, DIM, RATIO, CHUNK = 4, 128, 8, 64
LAYERS, CHUNKS, SINKS, RECENT = 48, 1024, 2, 8
SCALE = 1 / math.sqrt(DIM)
COPIES = 8
"""Layers that are used in turn, so that they do not stay in the L2 cache."""


def entries(layers: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Summaries, codes and scales of random keys around centres that differ."""
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
    return summaries, codes, scales


def turns(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Some turns; which ones does not matter to the time."""
    angles = torch.linspace(-1, 1, CHUNK, device=device)[:, None] * torch.linspace(
        0, 0.5, DIM // 2, device=device
    )
    return angles.cos().contiguous(), angles.sin().contiguous()


def groups_lost(queries: torch.Tensor, layer: list[torch.Tensor], *limits: object) -> float:
    """Share of the groups that the reference draws which are not drawn, over a few blocks.

    ``limits`` are first chunk, end chunks, budget, group size and last chunk.
    """
    first, ends, budget, group, last = limits
    assert isinstance(ends, torch.Tensor)
    assert isinstance(budget, int)
    assert isinstance(first, int)
    assert isinstance(group, int)
    summaries, codes, scales = layer
    found, _ = selection.select_groups(  # type: ignore[misc]
        queries, summaries, codes, scales, first, ends, budget, group, last, SCALE
    )
    blocks = [0, queries.shape[1] - 1]
    rows = queries[:, blocks].float() * SCALE
    ends = ends[blocks]
    centre_scores = rows @ summaries[:, None].float().transpose(2, 3)
    chunks = reference.candidate_chunks(HEADS, first, ends, CHUNKS)
    turned = rows @ reference.hadamard(DIM, torch.float32, rows.device)
    mass = reference.score_groups(turned, centre_scores, codes, scales, chunks, group)
    best, _ = reference.take_groups(mass, chunks, budget, 0)
    shared = (found[blocks][..., None] == best[..., None, :]) & (best >= 0)[..., None, :]
    return float(1 - shared.sum() / (best >= 0).sum())


def selecting(
    name: str,
    device: torch.device,
    layers: tuple[torch.Tensor, ...],
    shape: tuple[int, int],
    ends: list[int],
    budget: int,
    group: int,
) -> Case:
    """Selection of blocks of rows, ``shape``, with the chunks before ``ends`` to choose from."""
    blocks, rows = shape
    generator = torch.Generator(device).manual_seed(1)
    queries = torch.randn(HEADS, blocks, rows, DIM, generator=generator, device=device) * 2
    queries = queries.bfloat16()
    end_chunks = torch.tensor(ends, dtype=torch.int32, device=device)
    last = CHUNKS if blocks == 1 else max(ends)
    turn = itertools.cycle(range(COPIES))

    def run() -> object:
        layer = [
            entry[next_layer] for entry, next_layer in zip(layers, [next(turn)] * 3, strict=True)
        ]
        return selection.select_groups(
            queries, *layer, SINKS, end_chunks, budget, group, last, SCALE
        )

    spans = [max(end - SINKS, 0) for end in ends]
    read = HEADS * max(spans) * (CHUNK * (DIM // 4 + 2) + DIM * 2)
    scored = sum(spans) * (CHUNK + 1)
    return Case(
        name,
        run,
        bytes=read,
        # Products in 8 bits run at twice the rate of bf16.
        flops=HEADS * rows * scored * DIM,
        check=lambda: groups_lost(
            queries, [entry[0] for entry in layers], SINKS, end_chunks, budget, group, last
        ),
    )


def indexing(device: torch.device, layers: tuple[torch.Tensor, ...], group: int) -> list[Case]:
    """A slice of 4,096 tokens, and a decode step that closes no chunk, and one that does."""
    cos, sin = turns(device)
    keys = torch.randn(COPIES, HEADS, 4096, DIM, device=device).bfloat16()
    count = 4096 // CHUNK
    turn = itertools.cycle(range(COPIES))

    def build() -> object:
        layer = next(turn)
        places = [entry[layer][:, :count] for entry in layers]
        return index.index_chunks(keys[layer], cos, sin, *places)

    def check() -> float:
        places = [torch.empty_like(entry[0][:, :count]) for entry in layers]
        plain = [torch.empty_like(place) for place in places]
        index.index_chunks(keys[0], cos, sin, *places)
        reference.index_chunks(keys[0], cos, sin, *plain)
        return float((places[1] != plain[1]).float().mean())

    slots = 44 * 16 // group
    resident = torch.randn(LAYERS, HEADS, slots, 2, group, DIM, device=device).bfloat16()
    window = Window(64 // group, 64 // group, group)
    shapes = [(LAYERS, *entry.shape[1:]) for entry in layers]
    whole = [
        torch.empty(shape, dtype=entry.dtype, device=device)
        for shape, entry in zip(shapes, layers, strict=True)
    ]

    def step(position: int) -> Callable[[], object]:
        here = torch.tensor([position], dtype=torch.int32, device=device)
        return lambda: index.index_closed_chunk(here, resident, cos, sin, *whole, window)

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
    """All of this part."""
    layers = entries(COPIES, device)
    few, many = 64 * 16 // group, 128 * 16 // group
    found = [
        selecting(
            *(f"decode selection at {name}", device, layers, (1, RATIO), [end], few),
            group,
        )
        for name, end in (("4K", 56), ("32K", 504), ("64K", 1016))
    ]
    starts = {"0": 0, "28K": 28 * 1024, "60K": 60 * 1024}
    found += [
        selecting(
            f"prefill selection at {name}",
            *(device, layers, (64, 16 * RATIO)),
            [(start + 64 * block) // CHUNK - RECENT for block in range(64)],
            *(many, group),
        )
        for name, start in starts.items()
    ]
    ends = [1016 - (block < 32) for block in range(64)]
    found.append(selecting("append of 64 tokens", device, layers, (64, RATIO), ends, few, group))
    return [*found, *indexing(device, layers, group)]


def candidates(device: torch.device, group: int) -> Iterator[Case]:
    """The launches to choose from, and sizes of the workspace."""
    layers = entries(COPIES, device)
    few, many = 64 * 16 // group, 128 * 16 // group
    step = selecting("decode selection", device, layers, (1, RATIO), [1016], few, group)
    ends = [(60 * 1024 + 64 * block) // CHUNK - RECENT for block in range(64)]
    shape = 64, 16 * RATIO
    block = selecting("prefill selection", device, layers, shape, ends, many, group)
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
    append = selecting("append selection", device, layers, (64, RATIO), ends, few, group)
    for launch in selection_launches.CANDIDATES["score_groups 16"]:
        yield with_launch(append, selection_launches.SCORE_LAUNCHES[16], launch)
    for launch in selection_launches.CANDIDATES["weigh"]:
        yield with_launch(block, selection_launches.WEIGH_LAUNCHES, launch)
    choose = launches_for(
        selection_launches.CHOOSE_LAUNCHES, CHUNKS * CHUNK // group // reference.STRATA
    )
    for launch in selection_launches.CANDIDATES["choose"]:
        yield with_launch(block, choose, launch)
    for mebibytes in (24, 48, 96):
        change = partial(patch.object, selection, "SELECTION_BYTES", mebibytes * 2**20)
        yield changed(block, f"{block.name}: workspace of {mebibytes} MiB", change)
    keys = indexing(device, layers, group)[0]
    for launch in index.CANDIDATES["index_chunks"]:
        yield with_launch(keys, index.INDEX_LAUNCHES, launch)
