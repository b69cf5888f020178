"""Assignment of rows to experts: top-k experts per row, and tiles of rows sorted by expert."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from hga_kernels.gpu.build import Build, Launch, capability, pick
from hga_kernels.gpu.launch import Kernel, cdiv, next_power_of_2
from hga_kernels.gpu.linear.expert_gemv import ranks, shares_of

LAUNCHES = {
    "route": {90: Launch({}, 4), 120: Launch({}, 4)},
    "order": {90: Launch({"BLOCK": 64}, 4), 120: Launch({"BLOCK": 64}, 4)},
}


@dataclass(frozen=True)
class Assignments:
    """Pairs of a row and one of its experts, sorted by expert and cut into tiles of one expert.

    The order within an expert depends on timing on the GPU; no result depends on it.
    """

    order: torch.Tensor  # [assignments] int32: row * experts_per_row + slot, sorted by expert
    tiles: torch.Tensor  # [max tiles, 3] int32: expert or -1, first index in order, end of expert
    block: int
    """Rows of a tile."""


@Kernel
@triton.jit
def route_kernel(
    logits_ptr,  # [rows, EXPERTS] float32
    experts_ptr,  # [rows, CHOSEN] int32
    shares_ptr,  # [rows, CHOSEN] float32
    ranks_ptr,  # [rows, CHOSEN] int32: the row's rank among the rows of its expert
    counts_ptr,  # [EXPERTS] int32, zero at first
    EXPERTS: tl.constexpr,
    CHOSEN: tl.constexpr,
    NORMALIZE: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Find the experts of a row and their shares, best first, and its rank among their rows."""
    row = tl.program_id(0)
    expert, logits, rank = ranks(logits_ptr + row * EXPERTS, EXPERTS, BLOCK_E)
    chosen = rank < CHOSEN
    nth = tl.atomic_add(counts_ptr + expert, 1, mask=chosen, sem="relaxed")
    target = row * CHOSEN + rank
    tl.store(experts_ptr + target, expert, mask=chosen)
    tl.store(
        shares_ptr + target,
        shares_of(logits, rank, EXPERTS, CHOSEN, NORMALIZE, BLOCK_E),
        mask=chosen,
    )
    tl.store(ranks_ptr + target, nth, mask=chosen)


@Kernel
@triton.jit
def order_kernel(
    experts_ptr,  # [assignments] int32
    ranks_ptr,  # [assignments] int32
    counts_ptr,  # [EXPERTS] int32
    order_ptr,  # [assignments] int32
    tiles_ptr,  # [max_tiles, 3] int32
    assignments,
    max_tiles,
    rows,
    EXPERTS: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sort BLOCK assignments, and describe BLOCK tiles of ``rows`` rows."""
    number = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    expert = tl.arange(0, BLOCK_E)[None, :]
    counts = tl.load(
        counts_ptr + tl.arange(0, BLOCK_E), mask=tl.arange(0, BLOCK_E) < EXPERTS, other=0
    )
    tiles = (counts + rows - 1) // rows
    ends, tile_ends = tl.cumsum(counts, 0), tl.cumsum(tiles, 0)
    starts, tile_starts = (ends - counts)[None, :], (tile_ends - tiles)[None, :]

    inside = number < assignments
    own = tl.load(experts_ptr + number, mask=inside, other=0)[:, None] == expert
    target = tl.load(ranks_ptr + number, mask=inside, other=0)
    target += tl.sum(tl.where(own, starts, 0), 1)
    tl.store(order_ptr + target, number, mask=inside)

    tile = number[:, None]
    own = (tile_starts <= tile) & (tile < tile_ends[None, :])
    found = tl.sum(tl.where(own, expert + 1, 0), 1) - 1
    first = tl.sum(tl.where(own, starts + (tile - tile_starts) * rows, 0), 1)
    end = tl.sum(tl.where(own, ends[None, :], 0), 1)
    inside = number < max_tiles
    tl.store(tiles_ptr + number * 3, found, mask=inside)
    tl.store(tiles_ptr + number * 3 + 1, first, mask=inside)
    tl.store(tiles_ptr + number * 3 + 2, end, mask=inside)


def assign(
    logits: torch.Tensor, experts_per_row: int, normalize: bool, block: int
) -> tuple[Assignments, torch.Tensor]:
    """Choose the top-k experts of rows and sort the rows by expert.

    Args:
        logits: [rows, experts] float32 of the gate.
        experts_per_row: experts of each row.
        normalize: whether the shares of a row are scaled to sum to one.
        block: rows of a tile.

    Returns:
        The assignments, and the experts' shares [rows, experts_per_row] float32, best first.
    """
    rows, experts = logits.shape
    total = rows * experts_per_row
    # Each expert has at most one tile that is not full.
    max_tiles = cdiv(total, block) + min(experts, total)
    chosen, within, order = (
        torch.empty(total, dtype=torch.int32, device=logits.device) for _ in range(3)
    )
    shares = torch.empty(rows, experts_per_row, dtype=torch.float32, device=logits.device)
    tiles = torch.empty(max_tiles, 3, dtype=torch.int32, device=logits.device)
    counts = torch.zeros(experts, dtype=torch.int32, device=logits.device)
    sizes = {"EXPERTS": experts, "BLOCK_E": next_power_of_2(experts)}
    target = capability(logits.device)
    route_kernel[(rows,)](
        logits,
        chosen,
        shares,
        within,
        counts,
        CHOSEN=experts_per_row,
        NORMALIZE=normalize,
        **sizes,
        **pick(LAUNCHES["route"], target).options(),
    )
    launch = pick(LAUNCHES["order"], target)
    order_kernel[(cdiv(max(total, max_tiles), launch.sizes["BLOCK"]),)](
        chosen,
        within,
        counts,
        order,
        tiles,
        total,
        max_tiles,
        block,
        **sizes,
        **launch.options(),
    )
    return Assignments(order, tiles, block), shares


_SIZES = {"EXPERTS": 128, "BLOCK_E": 128}

BUILDS = (
    Build(
        "route",
        route_kernel,
        {
            "logits_ptr": "*fp32",
            "experts_ptr": "*i32",
            "shares_ptr": "*fp32",
            "ranks_ptr": "*i32",
            "counts_ptr": "*i32",
        },
        LAUNCHES["route"],
        _SIZES | {"CHOSEN": 8, "NORMALIZE": True},
    ),
    Build(
        "order",
        order_kernel,
        {
            "experts_ptr": "*i32",
            "ranks_ptr": "*i32",
            "counts_ptr": "*i32",
            "order_ptr": "*i32",
            "tiles_ptr": "*i32",
            "assignments": "i32",
            "max_tiles": "i32",
            "rows": "i32",
        },
        LAUNCHES["order"],
        _SIZES,
    ),
)
