"""Attention of one token over the resident pages, in one launch.

Every KV head's pages (sinks, recent, chosen) are split over programs; the last program of a head to
finish adds up the parts of all.
"""

import functools
import math

import torch
import triton
import triton.language as tl

from hga_kernels.gpu.build import Build, Launch, capability, pick
from hga_kernels.reference_pages import CHUNK_GROUPS, GROUP, MISSING, WINDOW, Window

_GROUP = tl.constexpr(GROUP)
_CHUNK_GROUPS = tl.constexpr(CHUNK_GROUPS)
_MISSING = tl.constexpr(MISSING)
_NO_MAXIMUM = tl.constexpr(-1e30)
"""Below every score, and finite: a difference of two is a number."""
_MAX_KV_HEADS = 1024
_TENSOR_CORE_ROWS = 16

ATTEND = {90: Launch({"PAGES": 4, "COLUMNS": 32}, warps=4, stages=1)}
CANDIDATES = {
    "attend_resident": tuple(
        Launch({"PAGES": pages, "COLUMNS": columns}, warps=warps, stages=1)
        for pages, columns, warps in (
            (2, 16, 4), (4, 16, 4), (4, 32, 4), (4, 32, 8), (4, 64, 8), (8, 32, 8), (8, 64, 8)
        )
    )
}  # fmt: skip


@triton.jit
def _listed_page(
    page, position, groups, places, kv_head, budget, SINKS: tl.constexpr, RECENT: tl.constexpr
):
    # Group (-1 for none), slot in the resident pages, and whether it has yet to be fetched.
    last = position // _GROUP
    recent = (last // _CHUNK_GROUPS + 1) * _CHUNK_GROUPS - RECENT + page - SINKS
    chosen = page - SINKS - RECENT
    is_chosen = (chosen >= 0) & (chosen < budget)
    row = kv_head * budget
    place = tl.load(places + row + chosen, mask=is_chosen, other=-1)
    group = tl.load(groups + row + chosen, mask=is_chosen & (place >= 0), other=-1)
    # A sink that is recent counts once.
    group = tl.where(chosen < 0, tl.where(recent >= SINKS, recent, -1), group)
    group = tl.where(page < SINKS, page, group)
    slot = tl.where(chosen < 0, SINKS + recent % RECENT, SINKS + RECENT + (place & (_MISSING - 1)))
    slot = tl.where(page < SINKS, page, slot)
    group = tl.where(group <= last, group, -1)
    return group, slot, (place >= _MISSING) & (group >= 0)


@triton.jit
def _attend_resident(
    queries, groups, places, position_at, resident, host, out, mass, arrived, maxima, sums,
    page_sums, parts, scale, pieces, resident_slots, max_groups, budget,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr, PIECES: tl.constexpr,
    WITH_MASS: tl.constexpr, SINKS: tl.constexpr, RECENT: tl.constexpr, ROWS: tl.constexpr,
    PAGES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    piece, kv_head = tl.program_id(0), tl.program_id(1)
    position = tl.load(position_at)
    n = tl.arange(0, PAGES * _GROUP)
    group, slot, missing = _listed_page(
        piece * PAGES + n // _GROUP, position, groups, places, kv_head, budget, SINKS, RECENT
    )
    here = group * _GROUP + n % _GROUP
    visible = (group >= 0) & (here <= position)
    dim = tl.arange(0, DIM)
    inside = (n % _GROUP)[:, None] * DIM + dim[None, :]
    page_size = 2 * _GROUP * DIM
    cached = (kv_head * resident_slots + slot).to(tl.int64)[:, None] * page_size + inside
    stored = (kv_head * max_groups + group).to(tl.int64)[:, None] * page_size + inside
    source = tl.where(missing[:, None], host + stored, resident + cached)
    # Places after the token may hold anything, NaN too.
    key = tl.load(source, mask=visible[:, None], other=0.0)
    value = tl.load(source + _GROUP * DIM, mask=visible[:, None], other=0.0)
    row = tl.arange(0, ROWS)
    at = (kv_head * HEADS + row)[:, None] * DIM + dim[None, :]
    query = tl.load(queries + at, mask=(row < HEADS)[:, None], other=0.0)
    scores = tl.dot(query, tl.trans(key)) * scale
    scores = tl.where(visible[None, :], scores, float("-inf"))
    maximum = tl.maximum(tl.max(scores, 1), _NO_MAXIMUM)
    weights = tl.exp2(scores - maximum[:, None])
    part = tl.dot(weights.to(value.dtype), value)
    tl.store(resident + cached, key, mask=missing[:, None])
    tl.store(resident + cached + _GROUP * DIM, value, mask=missing[:, None])

    # [kv_heads, pieces, WIDTH], of which HEADS are in use.
    own = (kv_head * pieces + piece) * WIDTH + row
    tl.store(maxima + own, maximum, mask=row < WIDTH)
    tl.store(sums + own, tl.sum(weights, 1), mask=row < WIDTH)
    tl.store(parts + own[:, None] * DIM + dim[None, :], part, mask=(row < WIDTH)[:, None])
    if WITH_MASS:
        of_pages = tl.sum(tl.reshape(weights, (ROWS, PAGES, _GROUP)), 2)
        page = tl.arange(0, PAGES)
        of_pages_at = page_sums + own[:, None] * PAGES + page[None, :]
        tl.store(of_pages_at, of_pages, mask=(row < WIDTH)[:, None])
    # All threads' parts have to be on their way before the program counts as finished.
    tl.debug_barrier()
    if tl.atomic_add(arrived + kv_head, 1) == pieces - 1:
        tl.store(arrived + kv_head, 0)
        _add_up(
            groups, places, position, out, mass, maxima, sums, page_sums, parts, kv_head, pieces,
            budget, HEADS, WIDTH, DIM, PIECES, WITH_MASS, SINKS, RECENT, PAGES, COLUMNS,
        )  # fmt: skip


@triton.jit
def _add_up(
    groups, places, position, out, mass, maxima, sums, page_sums, parts, kv_head, pieces, budget,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr, PIECES: tl.constexpr,
    WITH_MASS: tl.constexpr, SINKS: tl.constexpr, RECENT: tl.constexpr, PAGES: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    # What other programs wrote is read past the first cache, which does not see it.
    piece = tl.arange(0, PIECES)
    head = tl.arange(0, WIDTH)
    at = (kv_head * pieces + piece)[:, None] * WIDTH + head[None, :]
    there = (piece < pieces)[:, None]
    maximum = tl.load(maxima + at, mask=there, other=_NO_MAXIMUM, cache_modifier=".cg")
    total = tl.load(sums + at, mask=there, other=0.0, cache_modifier=".cg")
    factor = tl.exp2(maximum - tl.max(maximum, 0)[None, :])
    factor = tl.where(there, factor, 0.0)
    factor = factor / tl.sum(total * factor, 0)[None, :]
    STEP: tl.constexpr = COLUMNS if COLUMNS < DIM else DIM
    for start in tl.static_range(0, DIM, STEP):
        column = start + tl.arange(0, STEP)
        part_at = parts + at[:, :, None] * DIM + column[None, None, :]
        part = tl.load(part_at, mask=there[:, :, None], other=0.0, cache_modifier=".cg")
        attended = tl.sum(part * factor[:, :, None], 0)
        out_at = out + (kv_head * HEADS + head)[:, None] * DIM + column[None, :]
        tl.store(out_at, attended.to(out.dtype.element_ty), mask=(head < HEADS)[:, None])
    if WITH_MASS:
        page = tl.arange(0, PAGES)
        weight_at = page_sums + at[:, :, None] * PAGES + page[None, None, :]
        known = there[:, :, None] & (head < HEADS)[None, :, None]
        weight = tl.load(weight_at, mask=known, other=0.0, cache_modifier=".cg")
        of_pages = tl.sum(weight * factor[:, :, None], 1)
        number = piece[:, None] * PAGES + page[None, :]
        group, _, _ = _listed_page(number, position, groups, places, kv_head, budget, SINKS, RECENT)
        tl.atomic_add(mass + group, of_pages, mask=there & (group >= 0), sem="relaxed")


def attend_resident(
    queries: torch.Tensor,
    groups: torch.Tensor,
    places: torch.Tensor,
    position: torch.Tensor,
    resident: torch.Tensor,
    host: torch.Tensor,
    scale: float,
    mass: torch.Tensor | None = None,
    window: Window = WINDOW,
) -> torch.Tensor | None:
    """See ``reference_pages.attend_resident``."""
    heads, dim = queries.shape
    kv_heads, slots = resident.shape[:2]
    if not _takes(queries, resident):
        return None
    launch = pick(ATTEND, capability(queries.device))
    budget, per_kv = groups.shape[1], heads // kv_heads
    pages = launch.sizes["PAGES"]
    pieces = triton.cdiv(window.slots + budget, pages)
    width = triton.next_power_of_2(per_kv)
    out = torch.empty_like(queries)
    maxima, sums = queries.new_empty(2, kv_heads, pieces, width, dtype=torch.float32)
    page_sums = maxima.new_empty(*maxima.shape, pages) if mass is not None else None
    _attend_resident[(pieces, kv_heads)](
        queries, groups, places, position, resident, host, out, mass, _arrived(queries.device),
        maxima, sums, page_sums, maxima.new_empty(*maxima.shape, dim), scale / math.log(2), pieces,
        slots, host.shape[0] // kv_heads, budget,
        HEADS=per_kv, WIDTH=width, DIM=dim, PIECES=triton.next_power_of_2(pieces),
        WITH_MASS=mass is not None, SINKS=window.sinks, RECENT=window.recent,
        ROWS=max(width, _TENSOR_CORE_ROWS), **launch.options(),
    )  # fmt: skip
    return out


def _takes(queries: torch.Tensor, resident: torch.Tensor) -> bool:
    dim = resident.shape[-1]
    return (
        queries.dtype == resident.dtype == torch.bfloat16
        and resident.shape[-2] == GROUP
        and resident.shape[0] <= _MAX_KV_HEADS
        and dim & (dim - 1) == 0
        and 16 <= dim <= 256
    )


@functools.cache
def _arrived(device: torch.device) -> torch.Tensor:
    """Programs of each KV head that have finished; every launch leaves zeros behind."""
    return torch.zeros(_MAX_KV_HEADS, dtype=torch.int32, device=device)


_TYPES = {
    **dict.fromkeys(("queries", "resident", "host", "out"), "*bf16"),
    **dict.fromkeys(("groups", "places", "position_at", "arrived"), "*i32"),
    **dict.fromkeys(("mass", "maxima", "sums", "page_sums", "parts"), "*fp32"),
    "scale": "fp32",
    **dict.fromkeys(("pieces", "resident_slots", "max_groups", "budget"), "i32"),
}
_QWEN3 = {"HEADS": 8, "WIDTH": 8, "DIM": 128}
_SMOLLM2 = {"HEADS": 3, "WIDTH": 4, "DIM": 64}
_COMMON = {"PIECES": 32, "ROWS": 16, "SINKS": WINDOW.sinks, "RECENT": WINDOW.recent}
_NO_MASS = {"WITH_MASS": False, "mass": None, "page_sums": None}
BUILDS = (
    Build("attend_resident/qwen3", _attend_resident, _TYPES, ATTEND,
          {**_QWEN3, **_COMMON, **_NO_MASS}),
    Build("attend_resident/qwen3/mass", _attend_resident, _TYPES, ATTEND,
          {**_QWEN3, **_COMMON, "WITH_MASS": True}),
    Build("attend_resident/smollm2/mass", _attend_resident, _TYPES, ATTEND,
          {**_SMOLLM2, **_COMMON, "WITH_MASS": True}),
)  # fmt: skip
