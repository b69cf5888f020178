"""Attention of one token over its window and chosen pages.

The pages of each KV head are split over programs. A second launch, one program per query head,
combines their partial results.
"""

import math

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hga_kernels.arguments import CHUNK, LayerPages
from hga_kernels.gpu.build import GROUP_SIZES, Build, Launch, capability, overlap, pick
from hga_kernels.gpu.launch import Kernel, cdiv, next_power_of_2
from hga_kernels.reference.pages import MISSING

LOG2_E = tl.constexpr(1.4426950408889634)
_CHUNK = tl.constexpr(CHUNK)
_MISSING = tl.constexpr(MISSING)
_NO_MAXIMUM = tl.constexpr(-1e30)
"""Below every score, and finite, so that the difference of two is a number."""
_TENSOR_CORE_ROWS = 16
"""Fewest rows of a product on tensor cores."""

ATTEND = {90: Launch({"TOKENS": 64}, warps=4, stages=1)}
COMBINE = {90: Launch({}, warps=4, stages=1)}
CANDIDATES = {
    "attend_resident": tuple(
        Launch({"TOKENS": tokens}, warps=warps, stages=1)
        for tokens, warps in (
            (16, 1),
            (16, 2),
            (32, 2),
            (32, 4),
            (64, 2),
            (64, 4),
            (64, 8),
            (128, 4),
            (128, 8),
        )
    ),
    "combine": tuple(Launch({}, warps=warps, stages=1) for warps in (1, 2, 4, 8)),
}


@triton.jit
def _listed_page(
    page,
    position,
    groups,
    slots,
    kv_head,
    budget,
    SINKS: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Look up a page of the list: sinks, then the open chunk, then chosen pages.

    Returns: its group (-1 for none), its slot in the resident pages, and whether it has yet to be
    fetched.
    """
    OPEN: tl.constexpr = _CHUNK // GROUP
    last = position // GROUP
    opened = position // _CHUNK * OPEN + page - SINKS
    chosen = page - SINKS - OPEN
    is_chosen = (chosen >= 0) & (chosen < budget)
    row = kv_head * budget
    # Both loads are issued before either is waited for.
    cached = tl.load(slots + row + chosen, mask=is_chosen, other=-1)
    group = tl.load(groups + row + chosen, mask=is_chosen, other=-1)
    group = tl.where(cached >= 0, group, -1)
    # A sink in the open chunk counts once.
    group = tl.where(chosen < 0, tl.where(opened >= SINKS, opened, -1), group)
    group = tl.where(page < SINKS, page, group)
    # The sinks and the open chunk have the first slots, in the order of the list.
    slot = tl.where(chosen < 0, page, SINKS + OPEN + (cached & (_MISSING - 1)))
    group = tl.where(group <= last, group, -1)
    return group, slot, (cached >= _MISSING) & (group >= 0)


@Kernel
@triton.jit
def _attend_resident(
    queries,
    groups,
    importance,
    slots,
    position_at,
    resident,
    host,
    maxima,
    sums,
    page_sums,
    parts,
    scale,
    resident_slots,
    max_groups,
    budget,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    WITH_MASS: tl.constexpr,
    WITH_IMPORTANCE: tl.constexpr,
    SINKS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    OVERLAPS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    PAGES: tl.constexpr = TOKENS // GROUP
    OPEN: tl.constexpr = _CHUNK // GROUP
    if OVERLAPS:
        gdc_launch_dependents()
        gdc_wait()
    piece, kv_head = tl.program_id(0), tl.program_id(1)
    position = tl.load(position_at)
    n = tl.arange(0, TOKENS)
    page_number = piece * PAGES + n // GROUP
    group, slot, missing = _listed_page(
        page_number, position, groups, slots, kv_head, budget, SINKS, GROUP
    )
    if WITH_IMPORTANCE:
        chosen = piece * PAGES + n // GROUP - SINKS - OPEN
        factor = tl.load(
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
    # Values first: the compiler makes loads after the keys wait for the keys.
    # Tokens after the query may hold anything, even NaN.
    value = tl.load(source + GROUP * DIM, mask=visible[:, None], other=0.0)
    query = tl.load(queries + at, mask=(row < HEADS)[:, None], other=0.0)
    key = tl.load(source, mask=visible[:, None], other=0.0)
    scores = tl.dot(query, tl.trans(key)) * scale
    scores = tl.where(visible[None, :], scores, float("-inf"))
    maximum = tl.maximum(tl.max(scores, 1), _NO_MAXIMUM)
    weights = tl.exp2(scores - maximum[:, None])
    weighted = weights * factor[None, :] if WITH_IMPORTANCE else weights
    part = tl.dot(weighted.to(value.dtype), value)
    # [query_heads, pieces, ...]
    own = (kv_head * HEADS + row) * tl.num_programs(0) + piece
    used = row < HEADS
    tl.store(parts + own[:, None] * DIM + dim[None, :], part, mask=used[:, None])
    tl.store(maxima + own, maximum, mask=used)
    tl.store(sums + own, tl.sum(weighted, 1), mask=used)
    if WITH_MASS:
        of_pages = tl.sum(tl.reshape(weights, (ROWS, PAGES, GROUP)), 2)
        page = tl.arange(0, PAGES)
        tl.store(page_sums + own[:, None] * PAGES + page[None, :], of_pages, mask=used[:, None])
    tl.store(resident + cached, key, mask=missing[:, None])
    tl.store(resident + cached + GROUP * DIM, value, mask=missing[:, None])


@Kernel
@triton.jit
def _combine(
    groups,
    slots,
    position_at,
    maxima,
    sums,
    page_sums,
    parts,
    out,
    mass,
    pieces,
    budget,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    PIECES: tl.constexpr,
    WITH_MASS: tl.constexpr,
    SINKS: tl.constexpr,
    GROUP: tl.constexpr,
    OVERLAPS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    PAGES: tl.constexpr = TOKENS // GROUP
    if OVERLAPS:
        # The next product may load its weights while this kernel waits for pages.
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
        position = tl.load(position_at)
        group, _, _ = _listed_page(
            page, position, groups, slots, head // HEADS, budget, SINKS, GROUP
        )
    # Keeps the compiler from waiting for one load before it issues the others.
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
def store_window_lse(
    queries,
    position_at,
    resident,
    window_lse,
    scale,
    resident_slots,
    piece,
    pieces,
    kv_head,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    SINKS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Store the log-sum-exp (natural logarithm) of a token's scores in one piece of its window.

    Args: ``queries``: [HEADS, DIM] of the KV head; ``window_lse``: [kv_heads, pieces, HEADS];
    ``scale``: of scores in base 2. A piece has TOKENS tokens.
    """
    position = tl.load(position_at)
    n = tl.arange(0, TOKENS)
    page_number = piece * (TOKENS // GROUP) + n // GROUP
    # With a budget of zero, no pages are listed but those of the window.
    group, slot, _ = _listed_page(
        page_number, position, position_at, position_at, kv_head, 0, SINKS, GROUP
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
    lse = tl.where(total > 0, maximum + tl.log2(total), float("-inf")) / LOG2_E
    tl.store(window_lse + (kv_head * pieces + piece) * HEADS + row, lse, mask=row < HEADS)


def attend_resident(
    queries: torch.Tensor,
    position: torch.Tensor,
    pages: LayerPages,
    groups: torch.Tensor,
    slots: torch.Tensor,
    scale: float,
    mass: torch.Tensor | None = None,
    importance: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """See ``reference.attend_resident``; None for tensors that the kernels do not take."""
    resident, host, window = pages.resident, pages.host, pages.window
    heads, dim = queries.shape
    kv_heads, resident_slots, _, group, _ = resident.shape
    if not _takes(queries, resident):
        return None
    known = capability(queries.device)
    launch, combine = pick(ATTEND, known), pick(COMBINE, known)
    budget, per_kv = groups.shape[1], heads // kv_heads
    pages_of_piece = launch.sizes["TOKENS"] // group
    pieces = cdiv(window.slots + budget, pages_of_piece)
    out = torch.empty_like(queries)
    maxima, sums = queries.new_empty(2, heads, pieces, dtype=torch.float32)
    page_sums = maxima.new_empty(heads, pieces, pages_of_piece) if mass is not None else None
    parts = maxima.new_empty(heads, pieces, dim)
    shared = {"HEADS": per_kv, "DIM": dim, "WITH_MASS": mass is not None}
    shared |= {"SINKS": window.sinks, "GROUP": group, **overlap(queries.device)}
    _attend_resident[(pieces, kv_heads)](
        queries,
        groups,
        importance,
        slots,
        position,
        resident,
        host,
        maxima,
        sums,
        page_sums,
        parts,
        scale / math.log(2),
        resident_slots,
        host.shape[0] // kv_heads,
        budget,
        WITH_IMPORTANCE=importance is not None,
        ROWS=max(next_power_of_2(per_kv), _TENSOR_CORE_ROWS),
        **shared,
        **launch.options(),
    )
    _combine[(heads,)](
        groups,
        slots,
        position,
        maxima,
        sums,
        page_sums,
        parts,
        out,
        mass,
        pieces,
        budget,
        PIECES=next_power_of_2(pieces),
        TOKENS=launch.sizes["TOKENS"],
        **shared,
        **combine.options(),
    )
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
    **dict.fromkeys(("groups", "slots", "position_at"), "*i32"),
    **dict.fromkeys(("mass", "maxima", "sums", "page_sums", "parts", "importance"), "*fp32"),
    "scale": "fp32",
    **dict.fromkeys(("pieces", "resident_slots", "max_groups", "budget"), "i32"),
}
_COMBINED = {"PIECES": 128, **ATTEND[90].sizes}
_NO_MASS = {"WITH_MASS": False, "page_sums": None}
_MASS = {"WITH_MASS": True}
_WEIGHTED = {"ROWS": 16, "WITH_IMPORTANCE": True}


def _builds(group: int) -> tuple[Build, ...]:
    window = {"SINKS": CHUNK // group, "GROUP": group, "OVERLAPS": True}
    qwen3, smollm2 = {"HEADS": 8, "DIM": 128, **window}, {"HEADS": 3, "DIM": 64, **window}

    def attend(name: str, constants: dict[str, object]) -> Build:
        forms = {**constants, **_WEIGHTED}
        return Build(f"attend_resident/{name}/{group}", _attend_resident, _TYPES, ATTEND, forms)

    def combine(name: str, constants: dict[str, object]) -> Build:
        forms = {**constants, **_COMBINED}
        return Build(f"combine/{name}/{group}", _combine, _TYPES, COMBINE, forms)

    return (
        attend("qwen3", {**qwen3, **_NO_MASS}),
        attend("qwen3/mass", {**qwen3, **_MASS}),
        attend("smollm2/mass", {**smollm2, **_MASS}),
        combine("qwen3", {**qwen3, **_NO_MASS, "mass": None}),
        combine("qwen3/mass", {**qwen3, **_MASS}),
        combine("smollm2/mass", {**smollm2, **_MASS}),
    )


BUILDS = (*_builds(4), *_builds(2))
"""For groups of 4 and of 2 tokens."""
