"""Which rows go to which expert: the best experts of each, and tiles of rows sorted by expert."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from hga_kernels.gpu.build import Build, Launch, capability, pick
from hga_kernels.gpu.linear.expert_gemv import ranks, shares_of

LAUNCHES = {
    "route": {90: Launch({}, 4), 120: Launch({}, 4)},
    "order": {90: Launch({"BLOCK": 64}, 4), 120: Launch({"BLOCK": 64}, 4)},
}


@dataclass(frozen=True)
class Assignments:
    """Rows times the experts of each, sorted by expert and cut into tiles of one expert.

    The order within an expert is that in which the GPU came to them; no result depends on it.
    """

    order: torch.Tensor  # [assignments] int32: row * experts_per_row + slot, sorted by expert
    tiles: torch.Tensor  # [most tiles, 3] int32: expert or -1, first place in order, end of expert
    block: int
    """Rows of a tile."""


@triton.jit
def route_kernel(
    logits_ptr,  # [rows, EXPERTS] float32
    experts_ptr,  # [rows, CHOSEN] int32
    shares_ptr,  # [rows, CHOSEN] float32
    places_ptr,  # [rows, CHOSEN] int32
    counts_ptr,  # [EXPERTS] int32, zero at first
    EXPERTS: tl.constexpr,
    CHOSEN: tl.constexpr,
    NORMALIZE: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """The experts of a row and their shares, best first, and its places among their rows."""
    row = tl.program_id(0)
    expert, logits, rank = ranks(logits_ptr + row * EXPERTS, EXPERTS, BLOCK_E)
    chosen = rank < CHOSEN
    place = tl.atomic_add(counts_ptr + expert, 1, mask=chosen, sem="relaxed")
    target = row * CHOSEN + rank
    tl.store(experts_ptr + target, expert, mask=chosen)
    tl.store(shares_ptr + target, shares_of(logits, rank, EXPERTS, CHOSEN, NORMALIZE, BLOCK_E),
             mask=chosen)  # fmt: skip
    tl.store(places_ptr + target, place, mask=chosen)


@triton.jit
def order_kernel(
    experts_ptr,  # [assignments] int32
    places_ptr,  # [assignments] int32
    counts_ptr,  # [EXPERTS] int32
    order_ptr,  # [assignments] int32
    tiles_ptr,  # [most_tiles, 3] int32
    assignments,
    most_tiles,
    rows,
    EXPERTS: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK assignments put in order, and BLOCK tiles of ``rows`` rows described."""
    number = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    expert = tl.arange(0, BLOCK_E)[None, :]
    counts = tl.load(counts_ptr + tl.arange(0, BLOCK_E), mask=tl.arange(0, BLOCK_E) < EXPERTS,
                     other=0)  # fmt: skip
    tiles = (counts + rows - 1) // rows
    ends, tile_ends = tl.cumsum(counts, 0), tl.cumsum(tiles, 0)
    starts, tile_starts = (ends - counts)[None, :], (tile_ends - tiles)[None, :]

    inside = number < assignments
    own = tl.load(experts_ptr + number, mask=inside, other=0)[:, None] == expert
    place = tl.load(places_ptr + number, mask=inside, other=0)
    place += tl.sum(tl.where(own, starts, 0), 1)
    tl.store(order_ptr + place, number, mask=inside)

    tile = number[:, None]
    own = (tile_starts <= tile) & (tile < tile_ends[None, :])
    found = tl.sum(tl.where(own, expert + 1, 0), 1) - 1
    first = tl.sum(tl.where(own, starts + (tile - tile_starts) * rows, 0), 1)
    end = tl.sum(tl.where(own, ends[None, :], 0), 1)
    inside = number < most_tiles
    tl.store(tiles_ptr + number * 3, found, mask=inside)
    tl.store(tiles_ptr + number * 3 + 1, first, mask=inside)
    tl.store(tiles_ptr + number * 3 + 2, end, mask=inside)


def assign(
    logits: torch.Tensor, experts_per_row: int, normalize: bool, block: int
) -> tuple[Assignments, torch.Tensor]:
    """Choose the experts of rows.

    Args:
        logits: [rows, experts] float32 of the gate.
        experts_per_row: how many a row goes through.
        normalize: whether a row's shares are scaled to sum to one.
        block: rows of a tile.

    Returns:
        The assignments, and the experts' shares [rows, experts_per_row] float32, best first.
    """
    rows, experts = logits.shape
    total = rows * experts_per_row
    # At most one tile an expert that is not full.
    most_tiles = triton.cdiv(total, block) + min(experts, total)
    chosen, places, order = (
        torch.empty(total, dtype=torch.int32, device=logits.device) for _ in range(3)
    )
    shares = torch.empty(rows, experts_per_row, dtype=torch.float32, device=logits.device)
    tiles = torch.empty(most_tiles, 3, dtype=torch.int32, device=logits.device)
    counts = torch.zeros(experts, dtype=torch.int32, device=logits.device)
    sizes = {"EXPERTS": experts, "BLOCK_E": triton.next_power_of_2(experts)}
    target = capability(logits.device)
    route_kernel[(rows,)](
        *(logits, chosen, shares, places, counts),
        CHOSEN=experts_per_row,
        NORMALIZE=normalize,
        **sizes,
        **pick(LAUNCHES["route"], target).options(),
    )
    launch = pick(LAUNCHES["order"], target)
    order_kernel[(triton.cdiv(max(total, most_tiles), launch.sizes["BLOCK"]),)](
        *(chosen, places, counts, order, tiles, total, most_tiles, block),
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
            "logits_ptr": "*fp32", "experts_ptr": "*i32", "shares_ptr": "*fp32",
            "places_ptr": "*i32", "counts_ptr": "*i32",
        },
        LAUNCHES["route"],
        _SIZES | {"CHOSEN": 8, "NORMALIZE": True},
    ),
    Build(
        "order",
        order_kernel,
        {
            "experts_ptr": "*i32", "places_ptr": "*i32", "counts_ptr": "*i32", "order_ptr": "*i32",
            "tiles_ptr": "*i32", "assignments": "i32", "most_tiles": "i32", "rows": "i32",
        },
        LAUNCHES["order"],
        _SIZES,
    ),
)  # fmt: skip
