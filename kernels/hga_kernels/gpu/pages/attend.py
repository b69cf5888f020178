"""Attention of one token over the resident pages.

Every KV head's pages (sinks, recent, chosen) are split over programs; a second launch adds up their
parts, one query head a program.
"""

import math

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.gpu.build import GROUP_SIZES, Build, Launch, capability, overlap, pick
from hga_kernels.gpu.select.scores import LOG2_E
from hga_kernels.reference.pages import CHUNK, MISSING, WINDOW, Window

_CHUNK = tl.constexpr(CHUNK)
_MISSING = tl.constexpr(MISSING)
_NO_MAXIMUM = tl.constexpr(-1e30)
"""Below every score, and finite: a difference of two is a number."""
_TENSOR_CORE_ROWS = 16

ATTEND = {90: Launch({"TOKENS": 64}, warps=4, stages=1)}
ADD_UP = {90: Launch({}, warps=4, stages=1)}
CANDIDATES = {
    "attend_resident": tuple(
        Launch({"TOKENS": tokens}, warps=warps, stages=1)
        for tokens, warps in (
            (16, 1), (16, 2), (32, 2), (32, 4), (64, 2), (64, 4), (64, 8), (128, 4), (128, 8)
        )
    ),
    "add_up": tuple(Launch({}, warps=warps, stages=1) for warps in (1, 2, 4, 8)),
}  # fmt: skip


@triton.jit
def _listed_page(
    page, position, groups, places, kv_head, budget, SINKS: tl.constexpr, RECENT: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    # Group (-1 for none), slot in the resident pages, and whether it has yet to be fetched.
    last = position // GROUP
    recent = (position // _CHUNK + 1) * (_CHUNK // GROUP) - RECENT + page - SINKS
    chosen = page - SINKS - RECENT
    is_chosen = (chosen >= 0) & (chosen < budget)
    row = kv_head * budget
    # Neither waits for the other.
    place = tl.load(places + row + chosen, mask=is_chosen, other=-1)
    group = tl.load(groups + row + chosen, mask=is_chosen, other=-1)
    group = tl.where(place >= 0, group, -1)
    # A sink that is recent counts once.
    group = tl.where(chosen < 0, tl.where(recent >= SINKS, recent, -1), group)
    group = tl.where(page < SINKS, page, group)
    slot = tl.where(chosen < 0, SINKS + recent % RECENT, SINKS + RECENT + (place & (_MISSING - 1)))
    slot = tl.where(page < SINKS, page, slot)
    group = tl.where(group <= last, group, -1)
    return group, slot, (place >= _MISSING) & (group >= 0)


@triton.jit
def _attend_resident(
    queries, groups, importance, places, position_at, resident, host, maxima, sums, page_sums,
    parts, scale, resident_slots, max_groups, budget,
    HEADS: tl.constexpr, DIM: tl.constexpr, WITH_MASS: tl.constexpr, COUNTED: tl.constexpr,
    SINKS: tl.constexpr, RECENT: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr,
    OVERLAPS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    PAGES: tl.constexpr = TOKENS // GROUP
    if OVERLAPS:
        gdc_launch_dependents()
        gdc_wait()
    piece, kv_head = tl.program_id(0), tl.program_id(1)
    position = tl.load(position_at)
    n = tl.arange(0, TOKENS)
    group, slot, missing = _listed_page(
        *(piece * PAGES + n // GROUP, position, groups, places, kv_head, budget),
        *(SINKS, RECENT, GROUP),
    )
    if COUNTED:
        chosen = piece * PAGES + n // GROUP - SINKS - RECENT
        multiple = tl.load(
            importance + kv_head * budget + chosen, (chosen >= 0) & (chosen < budget), 1.0
        )
    here = group * GROUP + n % GROUP
    visible = (group >= 0) & (here <= position)
    dim = tl.arange(0, DIM)
    inside = (n % GROUP)[:, None] * DIM + dim[None, :]
    page_size = 2 * GROUP * DIM
    cached = (kv_head * resident_slots + slot).to(tl.int64)[:, None] * page_size + inside
    stored = (kv_head * max_groups + group).to(tl.int64)[:, None] * page_size + inside
    source = tl.where(missing[:, None], host + stored, resident + cached)
    row = tl.arange(0, ROWS)
    at = (kv_head * HEADS + row)[:, None] * DIM + dim[None, :]
    # Values first: the compiler lets what is loaded after the keys wait for them.
    # Places after the token may hold anything, NaN too.
    value = tl.load(source + GROUP * DIM, mask=visible[:, None], other=0.0)
    query = tl.load(queries + at, mask=(row < HEADS)[:, None], other=0.0)
    key = tl.load(source, mask=visible[:, None], other=0.0)
    scores = tl.dot(query, tl.trans(key)) * scale
    scores = tl.where(visible[None, :], scores, float("-inf"))
    maximum = tl.maximum(tl.max(scores, 1), _NO_MAXIMUM)
    weights = tl.exp2(scores - maximum[:, None])
    counted = weights * multiple[None, :] if COUNTED else weights
    part = tl.dot(counted.to(value.dtype), value)
    # [query_heads, pieces, ...]
    own = (kv_head * HEADS + row) * tl.num_programs(0) + piece
    used = row < HEADS
    tl.store(parts + own[:, None] * DIM + dim[None, :], part, mask=used[:, None])
    tl.store(maxima + own, maximum, mask=used)
    tl.store(sums + own, tl.sum(counted, 1), mask=used)
    if WITH_MASS:
        of_pages = tl.sum(tl.reshape(weights, (ROWS, PAGES, GROUP)), 2)
        page = tl.arange(0, PAGES)
        tl.store(page_sums + own[:, None] * PAGES + page[None, :], of_pages, mask=used[:, None])
    tl.store(resident + cached, key, mask=missing[:, None])
    tl.store(resident + cached + GROUP * DIM, value, mask=missing[:, None])


@triton.jit
def _add_up(
    groups, places, position_at, maxima, sums, page_sums, parts, out, mass, pieces, budget,
    HEADS: tl.constexpr, DIM: tl.constexpr, PIECES: tl.constexpr, WITH_MASS: tl.constexpr,
    SINKS: tl.constexpr, RECENT: tl.constexpr, GROUP: tl.constexpr, OVERLAPS: tl.constexpr,
    TOKENS: tl.constexpr,
):  # fmt: skip
    PAGES: tl.constexpr = TOKENS // GROUP
    if OVERLAPS:
        # The product that follows asks for its weights while pages are on their way.
        gdc_launch_dependents()
        gdc_wait()
    head = tl.program_id(0)
    piece = tl.arange(0, PIECES)
    there = piece < pieces
    own = head * pieces + piece
    dim = tl.arange(0, DIM)
    part = tl.load(parts + own[:, None] * DIM + dim[None, :], mask=there[:, None], other=0.0)
    maximum = tl.load(maxima + own, mask=there, other=_NO_MAXIMUM)
    total = tl.load(sums + own, mask=there, other=0.0)
    if WITH_MASS:
        page = tl.arange(0, PIECES * PAGES)
        listed = page < pieces * PAGES
        weight = tl.load(page_sums + head * pieces * PAGES + page, mask=listed, other=0.0)
        of_piece = tl.load(maxima + head * pieces + page // PAGES, mask=listed, other=_NO_MAXIMUM)
        group, _, _ = _listed_page(
            *(page, tl.load(position_at), groups, places, head // HEADS, budget),
            *(SINKS, RECENT, GROUP),
        )
    # Everything has been asked for before the compiler waits for any of it.
    tl.debug_barrier()
    most = tl.max(maximum, 0)
    factor = tl.exp2(maximum - most)
    whole = tl.sum(total * factor, 0)
    attended = tl.sum(part * factor[:, None], 0) / whole
    tl.store(out + head * DIM + dim, attended.to(out.dtype.element_ty))
    if WITH_MASS:
        weight *= tl.exp2(of_piece - most) / whole
        tl.atomic_add(mass + group, weight, mask=listed & (group >= 0), sem="relaxed")


@triton.jit
def store_lse(
    queries, position_at, resident, logs, scale, resident_slots, piece, pieces, kv_head,
    HEADS: tl.constexpr, DIM: tl.constexpr, SINKS: tl.constexpr, RECENT: tl.constexpr,
    GROUP: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Of TOKENS places of the window, the logarithm of a token's weights, not normalised.

    Args: ``queries`` [HEADS, DIM] of the KV head, ``logs`` [kv_heads, pieces, HEADS].
    """
    position = tl.load(position_at)
    n = tl.arange(0, TOKENS)
    # No group is chosen yet.
    group, slot, _ = _listed_page(
        *(piece * (TOKENS // GROUP) + n // GROUP, position, position_at, position_at, kv_head, 0),
        *(SINKS, RECENT, GROUP),
    )
    visible = (group >= 0) & (group * GROUP + n % GROUP <= position)
    dim, row = tl.arange(0, DIM), tl.arange(0, ROWS)
    inside = (n % GROUP)[:, None] * DIM + dim[None, :]
    cached = (kv_head * resident_slots + slot).to(tl.int64)[:, None] * (2 * GROUP * DIM) + inside
    query = tl.load(queries + row[:, None] * DIM + dim[None, :], (row < HEADS)[:, None], 0.0)
    key = tl.load(resident + cached, mask=visible[:, None], other=0.0)
    scores = tl.dot(key, tl.trans(query)) * scale
    scores = tl.where(visible[:, None], scores, float("-inf"))
    maximum = tl.maximum(tl.max(scores, 0), _NO_MAXIMUM)
    total = tl.sum(tl.exp2(scores - maximum[None, :]), 0)
    log = tl.where(total > 0, maximum + tl.log2(total), float("-inf")) / LOG2_E
    tl.store(logs + (kv_head * pieces + piece) * HEADS + row, log, mask=row < HEADS)


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
    importance: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """See ``reference.attend_resident``."""
    heads, dim = queries.shape
    kv_heads, slots, _, group, _ = resident.shape
    if not _takes(queries, resident):
        return None
    known = capability(queries.device)
    launch, add_up = pick(ATTEND, known), pick(ADD_UP, known)
    budget, per_kv = groups.shape[1], heads // kv_heads
    pages = launch.sizes["TOKENS"] // group
    pieces = triton.cdiv(window.slots + budget, pages)
    out = torch.empty_like(queries)
    maxima, sums = queries.new_empty(2, heads, pieces, dtype=torch.float32)
    page_sums = maxima.new_empty(heads, pieces, pages) if mass is not None else None
    parts = maxima.new_empty(heads, pieces, dim)
    shared = {"HEADS": per_kv, "DIM": dim, "WITH_MASS": mass is not None}
    shared |= {"SINKS": window.sinks, "RECENT": window.recent, "GROUP": group}
    shared |= overlap(queries.device)
    _attend_resident[(pieces, kv_heads)](
        queries, groups, importance, places, position, resident, host, maxima, sums, page_sums,
        parts, scale / math.log(2), slots, host.shape[0] // kv_heads, budget,
        COUNTED=importance is not None, ROWS=max(triton.next_power_of_2(per_kv), _TENSOR_CORE_ROWS),
        **shared, **launch.options(),
    )  # fmt: skip
    _add_up[(heads,)](
        groups, places, position, maxima, sums, page_sums, parts, out, mass, pieces, budget,
        PIECES=triton.next_power_of_2(pieces), TOKENS=launch.sizes["TOKENS"], **shared,
        **add_up.options(),
    )  # fmt: skip
    return out


def _takes(queries: torch.Tensor, resident: torch.Tensor) -> bool:
    dim = resident.shape[-1]
    return (
        queries.dtype == resident.dtype == torch.bfloat16
        and resident.shape[-2] in GROUP_SIZES
        and dim & (dim - 1) == 0
        and 16 <= dim <= 256
    )


_TYPES = {
    **dict.fromkeys(("queries", "resident", "host", "out"), "*bf16"),
    **dict.fromkeys(("groups", "places", "position_at"), "*i32"),
    **dict.fromkeys(("mass", "maxima", "sums", "page_sums", "parts", "importance"), "*fp32"),
    "scale": "fp32",
    **dict.fromkeys(("pieces", "resident_slots", "max_groups", "budget"), "i32"),
}
_ADDED = {"PIECES": 32, **ATTEND[90].sizes}
_NO_MASS = {"WITH_MASS": False, "page_sums": None}
_MASS = {"WITH_MASS": True}
_COUNTED = {"ROWS": 16, "COUNTED": True}


def _builds(group: int) -> tuple[Build, ...]:
    window = {"SINKS": 64 // group, "RECENT": 64 // group, "GROUP": group, "OVERLAPS": True}
    qwen3, smollm2 = {"HEADS": 8, "DIM": 128, **window}, {"HEADS": 3, "DIM": 64, **window}
    return (
        Build(f"attend_resident/qwen3/{group}", _attend_resident, _TYPES, ATTEND,
              {**qwen3, **_COUNTED, **_NO_MASS}),
        Build(f"attend_resident/qwen3/mass/{group}", _attend_resident, _TYPES, ATTEND,
              {**qwen3, **_COUNTED, **_MASS}),
        Build(f"attend_resident/smollm2/mass/{group}", _attend_resident, _TYPES, ATTEND,
              {**smollm2, **_COUNTED, **_MASS}),
        Build(f"add_up/qwen3/{group}", _add_up, _TYPES, ADD_UP,
              {**qwen3, **_ADDED, **_NO_MASS, "mass": None}),
        Build(f"add_up/qwen3/mass/{group}", _add_up, _TYPES, ADD_UP, {**qwen3, **_ADDED, **_MASS}),
        Build(f"add_up/smollm2/mass/{group}", _add_up, _TYPES, ADD_UP,
              {**smollm2, **_ADDED, **_MASS}),
    )  # fmt: skip


BUILDS = (*_builds(16), *_builds(2))
"""In groups of 16 and of 2 tokens."""
