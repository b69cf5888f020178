"""Exact attention over listed pages: flash attention with tiles gathered page by page."""

import math
from collections.abc import Mapping

import torch
import triton
import triton.language as tl

from hga_kernels.gpu.build import GROUP_SIZES, Build, Launch, Launches, capability, pick
from hga_kernels.gpu.launch import Kernel, cdiv, next_power_of_2

_NO_MAXIMUM = tl.constexpr(-1e30)
"""Below every score, and finite, so that the difference of two is a number."""
_NEVER = tl.constexpr(2**31 - 1)
"""A position after every query."""
_MAX_ELEMENTS = 2**31
"""Offsets into a pool are 32-bit."""

LIST = {90: Launch({"LANES": 512}, warps=4, stages=1)}
ORDER = {90: Launch({"LANES": 256}, warps=4, stages=1)}
ATTEND: Mapping[int, Launches] = {
    16: {
        90: Launch({"M": 16, "TOKENS": 64}, warps=4, stages=3),
        120: Launch({"M": 16, "TOKENS": 32}, warps=2, stages=3),
    },
    64: {
        90: Launch({"M": 64, "TOKENS": 64}, warps=4, stages=3),
        120: Launch({"M": 64, "TOKENS": 32}, warps=4, stages=3),
    },
    128: {
        90: Launch({"M": 128, "TOKENS": 64}, warps=8, stages=4),
        120: Launch({"M": 128, "TOKENS": 32}, warps=8, stages=3),
    },
}
"""By query rows of a program; a row is one head of one token."""
WEIGH = {90: Launch({"M": 64, "TOKENS": 64}, warps=4, stages=2)}
CANDIDATES = {
    "attend_pages/128": tuple(
        Launch({"M": m, "TOKENS": tokens}, warps=warps, stages=stages, registers=registers)
        for m, tokens, warps, stages, registers in (
            (128, 128, 8, 3, 0),
            (128, 128, 8, 2, 0),
            (128, 64, 8, 3, 0),
            (128, 64, 8, 2, 0),
            # Two programs per multiprocessor: one multiplies while the other takes exponentials.
            (128, 64, 8, 2, 128),
            (128, 32, 8, 3, 128),
            (64, 64, 4, 2, 0),
            (64, 64, 4, 2, 168),
        )
    ),
    "attend_pages/16": tuple(
        Launch({"M": 16, "TOKENS": tokens}, warps=warps, stages=stages)
        for tokens, warps, stages in (
            (32, 2, 4),
            (64, 2, 3),
            (64, 4, 2),
            (64, 4, 3),
            (128, 4, 2),
            (128, 8, 2),
        )
    ),
}


@Kernel
@triton.jit
def _list_pages(
    chosen,
    importance,
    window,
    listed,
    listed_importance,
    count,
    sinks,
    open_chunk,
    PAGES: tl.constexpr,
    WITH_IMPORTANCE: tl.constexpr,
    LANES: tl.constexpr,
):
    # One program per block and KV head, and per LANES entries.
    row = tl.program_id(0)
    size = sinks + count * PAGES + open_chunk
    i = tl.program_id(1) * LANES + tl.arange(0, LANES)
    nth = i - sinks
    is_chosen = (nth >= 0) & (nth < count * PAGES)
    in_window = tl.where(nth < 0, i, i - count * PAGES)
    group = tl.load(chosen + row * count + nth // PAGES, mask=is_chosen, other=-1)
    of_window = window + row * (sinks + open_chunk) + in_window
    page = tl.load(of_window, mask=(i < size) & ~is_chosen, other=-1)
    page = tl.where(group < 0, page, group * PAGES + nth % PAGES)
    tl.store(listed + row * size + i, page, mask=i < size)
    if WITH_IMPORTANCE:
        weight = tl.load(importance + row * count + nth // PAGES, mask=is_chosen, other=1.0)
        tl.store(listed_importance + row * size + i, weight, mask=i < size)


@Kernel
@triton.jit
def _order_pages(
    positions,
    groups,
    slots,
    importance,
    ordered_groups,
    ordered_slots,
    ordered_importance,
    counts,
    rows,
    pages,
    ROWS: tl.constexpr,
    WITH_IMPORTANCE: tl.constexpr,
    GROUP: tl.constexpr,
    LANES: tl.constexpr,
):
    # Pages that all rows see whole go to the front of the list, those that need a mask to its end.
    # Empty entries and pages that no row sees are left out.
    head, block = tl.program_id(0), tl.program_id(1)
    listed = (block * tl.num_programs(0) + head) * pages
    row = tl.arange(0, ROWS)
    here = tl.load(positions + block * rows + row, mask=row < rows, other=0)
    last = tl.max(here, 0)
    first = tl.min(tl.where(row < rows, here, last), 0)
    lane = tl.arange(0, LANES)
    whole = 0
    partial = 0
    for start in range(0, pages, LANES):
        inside = start + lane < pages
        group = tl.load(groups + listed + start + lane, mask=inside, other=-1)
        slot = tl.load(slots + listed + start + lane, mask=inside, other=0)
        seen = (group >= 0) & (group * GROUP <= last)
        full = seen & (group * GROUP + (GROUP - 1) <= first)
        masked = seen & (group * GROUP + (GROUP - 1) > first)
        nth_full = whole + tl.cumsum(full.to(tl.int32), 0) - 1
        nth_masked = partial + tl.cumsum(masked.to(tl.int32), 0) - 1
        target = listed + tl.where(full, nth_full, pages - 1 - nth_masked)
        tl.store(ordered_groups + target, group, mask=seen)
        tl.store(ordered_slots + target, slot, mask=seen)
        if WITH_IMPORTANCE:
            factor = tl.load(importance + listed + start + lane, mask=inside, other=1.0)
            tl.store(ordered_importance + target, factor, mask=seen)
        whole += tl.sum(full.to(tl.int32), 0)
        partial += tl.sum(masked.to(tl.int32), 0)
    tl.store(counts + (block * tl.num_programs(0) + head) * 2, whole)
    tl.store(counts + (block * tl.num_programs(0) + head) * 2 + 1, partial)


@triton.jit
def _add_tile(
    scores,
    scale,
    value,
    importance,
    at,
    there,
    maximum,
    total,
    attended,
    WITH_IMPORTANCE: tl.constexpr,
    WITH_OUT: tl.constexpr,
):
    # Online softmax in base 2. A score is scaled and its maximum subtracted in one instruction.
    larger = tl.maximum(maximum, tl.max(scores, 1) * scale)
    shrink = tl.exp2(maximum - larger)
    weights = tl.exp2(scores * scale - larger[:, None])
    if WITH_IMPORTANCE:
        weights *= tl.load(importance + at, mask=there, other=1.0)[None, :]
    total = total * shrink + tl.sum(weights, 1)
    if WITH_OUT:
        attended = tl.dot(weights.to(value.dtype), value, attended * shrink[:, None])
    return larger, total, attended


@Kernel
@triton.jit
def _attend_pages(
    queries,
    positions,
    groups,
    slots,
    importance,
    counts,
    pool,
    out,
    lse,
    scale,
    rows,
    pages,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    WITH_OUT: tl.constexpr,
    WITH_LSE: tl.constexpr,
    WITH_IMPORTANCE: tl.constexpr,
    GROUP: tl.constexpr,
    M: tl.constexpr,
    TOKENS: tl.constexpr,
):
    # Query row m is head m % HEADS of token m // HEADS. Programs that share pages have neighbouring
    # numbers.
    PAGES: tl.constexpr = TOKENS // GROUP
    kv_head, block = tl.program_id(1), tl.program_id(2)
    kv_heads = tl.num_programs(1)
    listed = block * kv_heads + kv_head
    m = tl.program_id(0) * M + tl.arange(0, M)
    token = m // HEADS
    inside = token < rows
    dim = tl.arange(0, DIM)
    head = ((block * rows + token) * kv_heads + kv_head) * HEADS + m % HEADS
    at = head.to(tl.int64)[:, None] * DIM + dim[None, :]
    query = tl.load(queries + at, mask=inside[:, None], other=0.0)

    maximum = tl.full([M], _NO_MAXIMUM, tl.float32)
    total = tl.zeros([M], tl.float32)
    attended = tl.zeros([M, DIM], tl.float32)
    whole = tl.load(counts + listed * 2)
    seen = whole + tl.load(counts + listed * 2 + 1)
    first = listed * pages
    n = tl.arange(0, TOKENS)
    in_page = (n % GROUP)[:, None] * DIM + dim[None, :]
    tiles = whole // PAGES
    # Slots are loaded a tile ahead, so that pages can be prefetched several tiles ahead.
    slot = tl.load(slots + first + n // GROUP, mask=n // GROUP < whole, other=0)
    for tile in range(tiles):
        offset = slot[:, None] * (2 * GROUP * DIM) + in_page
        after = (tile + 1) * PAGES + n // GROUP
        slot = tl.load(slots + first + after, mask=after < whole, other=0)
        key = tl.load(pool + offset)
        scores = tl.dot(query, tl.trans(key))
        value = tl.load(pool + GROUP * DIM + offset) if WITH_OUT else key
        nth = tile * PAGES + n // GROUP
        maximum, total, attended = _add_tile(
            scores,
            scale,
            value,
            importance,
            first + nth,
            nth < whole,
            maximum,
            total,
            attended,
            WITH_IMPORTANCE,
            WITH_OUT,
        )

    here = tl.load(positions + block * rows + token, mask=inside, other=-1)
    last = tl.max(here, 0)
    for start in range(tiles * PAGES, seen, PAGES):
        nth = start + n // GROUP
        listed_at = first + tl.where(nth < whole, nth, pages - 1 - (nth - whole))
        group = tl.load(groups + listed_at, mask=nth < seen, other=0)
        slot = tl.load(slots + listed_at, mask=nth < seen, other=0)
        position = tl.where(nth < seen, group * GROUP + n % GROUP, _NEVER)
        offset = slot[:, None] * (2 * GROUP * DIM) + in_page
        # What no row sees may hold anything, even NaN.
        there = (position <= last)[:, None]
        key = tl.load(pool + offset, mask=there, other=0.0)
        scores = tl.dot(query, tl.trans(key))
        scores = tl.where(position[None, :] <= here[:, None], scores, float("-inf"))
        value = tl.load(pool + GROUP * DIM + offset, mask=there, other=0.0) if WITH_OUT else key
        maximum, total, attended = _add_tile(
            scores,
            scale,
            value,
            importance,
            listed_at,
            nth < seen,
            maximum,
            total,
            attended,
            WITH_IMPORTANCE,
            WITH_OUT,
        )

    if WITH_OUT:
        attended = attended / total[:, None]
        tl.store(out + at, attended.to(out.dtype.element_ty), mask=inside[:, None])
    if WITH_LSE:
        tl.store(lse + head, maximum + tl.log2(total), mask=inside)


@Kernel
@triton.jit
def _weigh_pages(
    queries,
    positions,
    groups,
    slots,
    pool,
    lse,
    mass,
    scale,
    rows,
    pages,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    GROUP: tl.constexpr,
    M: tl.constexpr,
    TOKENS: tl.constexpr,
):
    # Computes the weights once more, now that their sums are known.
    PAGES: tl.constexpr = TOKENS // GROUP
    kv_head, block = tl.program_id(1), tl.program_id(2)
    kv_heads = tl.num_programs(1)
    dim = tl.arange(0, DIM)
    n = tl.arange(0, TOKENS)
    page = tl.program_id(0) * PAGES + n // GROUP
    listed = (block * kv_heads + kv_head) * pages
    group = tl.load(groups + listed + page, mask=page < pages, other=-1)
    slot = tl.load(slots + listed + page, mask=group >= 0, other=0)
    position = tl.where(group >= 0, group * GROUP + n % GROUP, _NEVER)
    offset = slot[:, None] * (2 * GROUP * DIM) + (n % GROUP)[:, None] * DIM + dim[None, :]
    key = tl.load(pool + offset, mask=(group >= 0)[:, None], other=0.0)
    sums = tl.zeros([TOKENS], tl.float32)
    for start in range(0, rows * HEADS, M):
        m = start + tl.arange(0, M)
        token = m // HEADS
        inside = token < rows
        head = ((block * rows + token) * kv_heads + kv_head) * HEADS + m % HEADS
        at = head.to(tl.int64)[:, None] * DIM + dim[None, :]
        query = tl.load(queries + at, mask=inside[:, None], other=0.0)
        here = tl.load(positions + block * rows + token, mask=inside, other=-1)
        total = tl.load(lse + head, mask=inside, other=0.0)
        scores = tl.dot(query, tl.trans(key)) * scale - total[:, None]
        weights = tl.exp2(tl.where(position[None, :] <= here[:, None], scores, float("-inf")))
        sums += tl.sum(weights, 0)
    of_pages = tl.sum(tl.reshape(sums, (PAGES, GROUP)), 1)
    page = tl.program_id(0) * PAGES + tl.arange(0, PAGES)
    tl.store(mass + listed + page, of_pages, mask=page < pages)


def list_pages(
    chosen: torch.Tensor,
    importance: torch.Tensor | None,
    window: torch.Tensor,
    sinks: int,
    pages: int,
) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """See ``reference.list_pages``; None for tensors that the kernel does not take."""
    if importance is not None and importance.dtype != torch.float32:
        return None
    rows, count = chosen.shape[:-1], chosen.shape[-1]
    size = window.shape[-1] + count * pages
    listed = torch.empty(*rows, size, dtype=torch.int32, device=chosen.device)
    weights = None if importance is None else torch.empty_like(listed, dtype=torch.float32)
    launch = pick(LIST, capability(chosen.device))
    if listed.numel():
        _list_pages[(rows.numel(), cdiv(size, launch.sizes["LANES"]))](
            chosen.contiguous(),
            None if importance is None else importance.contiguous(),
            window.contiguous(),
            listed,
            weights,
            count,
            sinks,
            window.shape[-1] - sinks,
            PAGES=pages,
            WITH_IMPORTANCE=importance is not None,
            **launch.options(),
        )
    return listed, weights


def attend_pages(
    queries: torch.Tensor,
    positions: torch.Tensor,
    groups: torch.Tensor,
    slots: torch.Tensor,
    pool: torch.Tensor,
    scale: float,
    with_mass: bool = False,
    importance: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """See ``reference.attend_pages``; None for tensors that the kernels do not take."""
    if not _takes(queries, pool, scale):
        return None
    queries, positions = queries.contiguous(), positions.contiguous()
    groups, slots = groups.contiguous(), slots.contiguous()
    out = torch.empty_like(queries)
    lse = queries.new_empty(queries.shape[:-1], dtype=torch.float32) if with_mass else None
    _attend(queries, positions, groups, slots, pool, scale, importance, out, lse)
    if lse is None:
        return out, None
    mass = queries.new_empty(groups.shape, dtype=torch.float32)
    kv_heads, pages = groups.shape[1:]
    blocks, rows, heads, dim = queries.shape
    weigh = pick(WEIGH, capability(queries.device))
    if queries.numel():
        group = pool.shape[2]
        tiles = cdiv(pages * group, weigh.sizes["TOKENS"])
        _weigh_pages[(tiles, kv_heads, blocks)](
            queries,
            positions,
            groups,
            slots,
            pool,
            lse,
            mass,
            scale / math.log(2),
            rows,
            pages,
            HEADS=heads // kv_heads,
            DIM=dim,
            GROUP=group,
            **weigh.options(),
        )
    return out, mass


def attention_lse(
    queries: torch.Tensor,
    positions: torch.Tensor,
    groups: torch.Tensor,
    slots: torch.Tensor,
    pool: torch.Tensor,
    scale: float,
) -> torch.Tensor | None:
    """See ``reference.attention_lse``: ``attend_pages`` without values."""
    if not _takes(queries, pool, scale):
        return None
    queries, positions = queries.contiguous(), positions.contiguous()
    groups, slots = groups.contiguous(), slots.contiguous()
    lse = queries.new_empty(queries.shape[:-1], dtype=torch.float32)
    _attend(queries, positions, groups, slots, pool, scale, None, None, lse)
    return lse * math.log(2)


def _attend(
    queries: torch.Tensor,
    positions: torch.Tensor,
    groups: torch.Tensor,
    slots: torch.Tensor,
    pool: torch.Tensor,
    scale: float,
    importance: torch.Tensor | None,
    out: torch.Tensor | None,
    lse: torch.Tensor | None,
) -> None:
    """Fill ``out``, and ``lse`` [blocks, rows, query_heads] in base 2, unless they are None."""
    blocks, rows, heads, dim = queries.shape
    kv_heads, pages = groups.shape[1:]
    per_kv = heads // kv_heads
    if queries.numel() == 0:
        return
    known = capability(queries.device)
    ordered = torch.empty(2, *groups.shape, dtype=torch.int32, device=groups.device)
    counts = torch.empty(blocks, kv_heads, 2, dtype=torch.int32, device=groups.device)
    weights = None if importance is None else importance.float().contiguous()
    ordered_weights = None if weights is None else torch.empty_like(weights)
    _order_pages[(kv_heads, blocks)](
        positions,
        groups,
        slots,
        weights,
        ordered[0],
        ordered[1],
        ordered_weights,
        counts,
        rows,
        pages,
        ROWS=next_power_of_2(rows),
        WITH_IMPORTANCE=weights is not None,
        GROUP=pool.shape[2],
        **pick(ORDER, known).options(),
    )
    launch = pick(ATTEND[_program_rows(rows * per_kv)], known)
    grid = (cdiv(rows * per_kv, launch.sizes["M"]), kv_heads, blocks)
    _attend_pages[grid](
        queries,
        positions,
        ordered[0],
        ordered[1],
        ordered_weights,
        counts,
        pool,
        out,
        lse,
        scale / math.log(2),
        rows,
        pages,
        HEADS=per_kv,
        DIM=dim,
        WITH_OUT=out is not None,
        WITH_LSE=lse is not None,
        WITH_IMPORTANCE=weights is not None,
        GROUP=pool.shape[2],
        **launch.options(),
    )


def _takes(queries: torch.Tensor, pool: torch.Tensor, scale: float) -> bool:
    dim = pool.shape[-1]
    return (
        queries.dtype == pool.dtype == torch.bfloat16
        and pool.shape[2] in GROUP_SIZES
        and dim & (dim - 1) == 0
        and 16 <= dim <= 256
        and pool.is_contiguous()
        and pool.numel() < _MAX_ELEMENTS
        and scale > 0
    )


def _program_rows(rows: int) -> int:
    """Return the query rows of a program, given the rows that share their pages."""
    return 16 if rows <= 16 else 64 if rows <= 64 else 128


_TYPES = {
    **dict.fromkeys(("queries", "pool", "out"), "*bf16"),
    **dict.fromkeys(("positions", "groups", "slots", "counts"), "*i32"),
    **dict.fromkeys(("ordered_groups", "ordered_slots"), "*i32"),
    **dict.fromkeys(("chosen", "window", "listed"), "*i32"),
    **dict.fromkeys(("lse", "mass", "importance", "ordered_importance"), "*fp32"),
    "listed_importance": "*fp32",
    "scale": "fp32",
    **dict.fromkeys(("rows", "pages", "count", "sinks", "open_chunk"), "i32"),
}
_QWEN3 = {"HEADS": 8, "DIM": 128}
_SMOLLM2 = {"HEADS": 3, "DIM": 64}
_WEIGHTED = {"WITH_IMPORTANCE": True}
_UNWEIGHTED = {"WITH_IMPORTANCE": False, "importance": None}
_OUT = {"WITH_OUT": True, "WITH_LSE": False, "lse": None}
_MASS = {"WITH_OUT": True, "WITH_LSE": True, **_WEIGHTED}
_LSE = {"WITH_OUT": False, "out": None, "WITH_LSE": True, **_UNWEIGHTED}


def _builds(group: int) -> tuple[Build, ...]:
    qwen3, smollm2 = {**_QWEN3, "GROUP": group}, {**_SMOLLM2, "GROUP": group}
    order = {"ROWS": 64, "GROUP": group, **_WEIGHTED}
    return (
        Build(f"order_pages/{group}", _order_pages, _TYPES, ORDER, order),
        *(
            _attend_build(f"{name}/{rows}/{group}", rows, {**model, **_OUT, **_WEIGHTED})
            for name, model in (("qwen3", qwen3), ("smollm2", smollm2))
            for rows in ATTEND
        ),
        _attend_build(f"qwen3/mass/{group}", 128, {**qwen3, **_MASS}),
        _attend_build(f"qwen3/lse/{group}", 128, {**qwen3, **_LSE}),
        Build(f"weigh_pages/qwen3/{group}", _weigh_pages, _TYPES, WEIGH, qwen3),
    )


def _attend_build(name: str, rows: int, constants: dict[str, object]) -> Build:
    return Build(f"attend_pages/{name}", _attend_pages, _TYPES, ATTEND[rows], constants)


BUILDS = (
    Build("list_pages", _list_pages, _TYPES, LIST, {"PAGES": 4, **_WEIGHTED}),
    *_builds(4),
    *_builds(2),
    Build(
        "order_pages/unweighted",
        _order_pages,
        _TYPES,
        ORDER,
        {"ROWS": 64, "GROUP": 16, **_UNWEIGHTED, "ordered_importance": None},
    ),
    _attend_build("qwen3/unweighted", 128, {**_QWEN3, **_OUT, **_UNWEIGHTED, "GROUP": 16}),
    _attend_build("smollm2/lse", 64, {**_SMOLLM2, **_LSE, "GROUP": 16}),
)
"""For groups of 4 and of 2 tokens."""
