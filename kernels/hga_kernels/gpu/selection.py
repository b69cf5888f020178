"""Which groups a block of query rows reads: see ``reference.select_groups``."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton

from hga_kernels.gpu.build import Build, Launch, Launches, capability, pick
from hga_kernels.gpu.selection_block import (
    CENTRE_TILE,
    choose_kernel,
    score_chunks_kernel,
    score_groups_kernel,
    turn_rows_kernel,
    weigh_kernel,
)
from hga_kernels.gpu.selection_step import MAX_ROWS, select_few

WORKSPACE_BYTES = 64 * 2**20
"""Blocks are taken in parts that need about as much."""
_MAX_CHUNKS = 4096
_CHUNK, _GROUP = 64, 16
_PER_CHUNK = _CHUNK // _GROUP


def _score_launches(tokens: int, warps: int) -> Launch:
    return Launch({"TOKENS": tokens, "SPAN": 64, "WARPS": warps}, warps=warps, stages=3)


TURN_LAUNCHES = {90: Launch({}, warps=4), 120: Launch({}, warps=4)}
CENTRE_LAUNCHES = {90: Launch({}, warps=4), 120: Launch({}, warps=4)}
WEIGH_LAUNCHES = {90: Launch({"BLOCK": 64}, warps=8), 120: Launch({"BLOCK": 64}, warps=8)}
CHOOSE_LAUNCHES = {90: Launch({}, warps=8), 120: Launch({}, warps=8)}
SCORE_LAUNCHES: dict[int, Launches] = {
    16: {90: _score_launches(512, 4), 120: _score_launches(512, 4)},
    32: {90: _score_launches(256, 4), 120: _score_launches(256, 4)},
    64: {90: _score_launches(128, 4), 120: _score_launches(128, 4)},
    128: {90: _score_launches(128, 4), 120: _score_launches(128, 4)},
}
"""By rows of a unit."""

CANDIDATES = {
    "score_groups 128": tuple(
        Launch({"TOKENS": tokens, "SPAN": span, "WARPS": warps}, warps=warps, stages=stages)
        for tokens, span, warps, stages in (
            (64, 64, 4, 3),
            (128, 64, 4, 2),
            (128, 64, 4, 3),
            (128, 128, 4, 3),
            (128, 64, 8, 3),
            (256, 64, 8, 2),
            (256, 64, 8, 3),
        )
    ),
    "weigh": tuple(
        Launch({"BLOCK": block}, warps=warps)
        for block, warps in ((32, 4), (64, 4), (128, 4), (128, 8))
    ),
    "choose": tuple(Launch({}, warps=warps) for warps in (4, 8, 16)),
}


@dataclass(frozen=True)
class _Work:
    """One part of the blocks, and the sizes that its kernels share."""

    queries: torch.Tensor  # [kv_heads, blocks, rows, dim]
    summaries: torch.Tensor
    codes: torch.Tensor
    scales: torch.Tensor
    end_chunks: torch.Tensor  # [blocks]
    first_chunk: int
    last_chunk: int
    log_scale: float
    packed: bool

    @property
    def dim(self) -> int:
        return self.queries.shape[3]

    @property
    def pairs(self) -> int:
        return self.queries.shape[0] * self.queries.shape[1]

    @property
    def unit_rows(self) -> int:
        return _unit_rows(self.queries.shape[2])

    @property
    def tiles(self) -> int:
        return -(-self.queries.shape[2] // self.unit_rows)

    @property
    def units(self) -> int:
        return self.pairs * self.tiles

    @property
    def runs(self) -> int:
        return -(-self.last_chunk // CENTRE_TILE)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self.queries.device)

    def query_arguments(self) -> tuple[Any, ...]:
        """Scale, counts and strides of the queries, as two kernels take them."""
        queries = self.queries
        return (
            self.log_scale,
            queries.shape[1],
            self.tiles,
            queries.shape[2],
            *queries.stride()[:3],
        )


def _unit_rows(rows: int) -> int:
    return min(max(triton.next_power_of_2(rows), 16), 128)


def select_groups(
    queries: torch.Tensor,
    summaries: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    first_chunk: int,
    end_chunks: torch.Tensor,
    kept: int,
    budget: int,
    last_chunk: int | None = None,
    scale: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """8-bit queries by 2-bit codes on tensor cores; always ``budget`` places, in ascending order.

    Unless ``last_chunk`` is None it can be captured in a CUDA graph.
    """
    kv_heads, blocks, rows, dim = queries.shape
    if codes.dim() != 5 or codes.shape[2:4] != (_PER_CHUNK, _GROUP) or scales.shape[2] != _CHUNK:
        return None
    if dim & (dim - 1) or not 16 <= dim <= 256 or codes.shape[1] > _MAX_CHUNKS:
        return None
    if queries.dtype not in (torch.bfloat16, torch.float32) or summaries.dtype != torch.bfloat16:
        return None
    last = int(end_chunks.max()) if last_chunk is None else last_chunk
    last = min(last, codes.shape[1])
    span = last - first_chunk
    if span <= 0:
        groups = end_chunks.new_full((blocks, kv_heads, budget), -1, dtype=torch.int32)
        return groups, torch.zeros_like(groups, dtype=torch.float32)
    queries = queries.contiguous()
    end_chunks = end_chunks.to(torch.int32)
    packed = queries.is_cuda
    if blocks == 1 and rows <= MAX_ROWS and kept >= span:
        return select_few(
            *(queries, summaries, codes, scales, first_chunk, end_chunks, budget),
            *(last, scale, packed),
        )
    groups = torch.empty((blocks, kv_heads, budget), dtype=torch.int32, device=queries.device)
    masses = torch.empty((blocks, kv_heads, budget), dtype=torch.float32, device=queries.device)
    places = min(kept, span) if kept < span else last
    padded = -(-rows // _unit_rows(rows)) * _unit_rows(rows)
    block_bytes = kv_heads * padded * (4 * (last + CENTRE_TILE) + 2 * _PER_CHUNK * places)
    step = max(1, WORKSPACE_BYTES // block_bytes)
    for first in range(0, blocks, step):
        part = slice(first, first + step)
        work = _Work(
            queries[:, part],
            summaries,
            codes,
            scales,
            end_chunks[part],
            first_chunk,
            last,
            scale * math.log2(math.e),
            packed,
        )
        _select_part(work, kept, groups[part], masses[part])
    return groups, masses


def _select_part(work: _Work, kept: int, groups: torch.Tensor, masses: torch.Tensor) -> None:
    """Choose for one part of the blocks."""
    centres, peaks, totals = _score_chunks(work)
    listed, places = None, work.last_chunk
    if kept < work.last_chunk - work.first_chunk:
        mass = _weigh(work, centres, peaks, totals, work.last_chunk, 1, None)
        listed = work.empty(work.pairs, kept, dtype=torch.int32)
        strides = (work.queries.shape[1] * kept, kept)
        _choose(work, mass, None, 1, listed, None, kept, strides)
        places = kept
    sums, totals = _score_groups(work, centres, peaks, listed, places)
    mass = _weigh(work, sums, peaks, totals, places * _PER_CHUNK, _PER_CHUNK, listed)
    budget = groups.shape[2]
    _choose(work, mass, listed, _PER_CHUNK, groups, masses, budget, (budget, groups.stride(0)))


def _score_chunks(work: _Work) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centre scores [units, chunks, rows], and their peaks and sums [units, runs, rows]."""
    rows = work.unit_rows
    centres = work.empty(work.units, work.runs * CENTRE_TILE, rows)
    peaks = work.empty(work.units, work.runs, rows)
    totals = torch.empty_like(peaks)
    score_chunks_kernel[(work.runs, work.units)](
        work.queries,
        work.summaries,
        work.end_chunks,
        centres,
        peaks,
        totals,
        *work.query_arguments(),
        work.first_chunk,
        work.summaries.shape[1],
        work.runs,
        ROWS=rows,
        DIM=work.dim,
        TILE=CENTRE_TILE,
        **pick(CENTRE_LAUNCHES, capability()).options(),
    )
    return centres, peaks, totals


def _score_groups(
    work: _Work,
    centres: torch.Tensor,
    peaks: torch.Tensor,
    listed: torch.Tensor | None,
    places: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of groups [units, places * 4, rows] bf16, and their sums [units, spans, rows]."""
    rows, quarter = work.unit_rows, work.dim // 4
    held = max(quarter, 32)
    ints = work.empty(work.units, 4, rows, held, dtype=torch.int8)
    starts = work.empty(work.units, rows, dtype=torch.int32)
    steps = work.empty(work.units, rows)
    turn_rows_kernel[(work.units,)](
        work.queries,
        ints,
        starts,
        steps,
        *work.query_arguments(),
        ROWS=rows,
        QUARTER=quarter,
        WIDTH=max(quarter, 16),
        INTS=held,
        **pick(TURN_LAUNCHES, capability()).options(),
    )
    launch = pick(SCORE_LAUNCHES[rows], capability())
    spans = -(-places // launch.sizes["SPAN"])
    sums = work.empty(work.units, places * _PER_CHUNK, rows, dtype=torch.bfloat16)
    totals = work.empty(work.units, spans, rows)
    score_groups_kernel[(spans, work.units)](
        ints,
        starts,
        steps,
        centres,
        peaks,
        work.codes,
        work.scales,
        work.end_chunks,
        work.end_chunks if listed is None else listed,
        sums,
        totals,
        work.queries.shape[1],
        work.tiles,
        work.first_chunk,
        work.codes.shape[1],
        work.runs,
        places,
        spans,
        ROWS=rows,
        QUARTER=quarter,
        INTS=held,
        TILE=CENTRE_TILE,
        RUNS=triton.next_power_of_2(work.runs),
        LISTED=listed is not None,
        PACKED=work.packed,
        **launch.options(),
    )
    return sums, totals


def _weigh(
    work: _Work,
    values: torch.Tensor,
    peaks: torch.Tensor,
    totals: torch.Tensor,
    places: int,
    per_chunk: int,
    listed: torch.Tensor | None,
) -> torch.Tensor:
    """[pairs, places] mass of chunks or groups, added over rows."""
    launch = pick(WEIGH_LAUNCHES, capability())
    masses = work.empty(work.pairs, places)
    runs = totals.shape[1]
    weigh_kernel[(-(-places // launch.sizes["BLOCK"]), work.pairs)](
        values,
        peaks,
        totals,
        work.end_chunks,
        masses,
        work.queries.shape[1],
        work.tiles,
        work.queries.shape[2],
        work.first_chunk,
        runs,
        places,
        values.stride(0),
        ROWS=work.unit_rows,
        RUNS=triton.next_power_of_2(runs),
        PER_CHUNK=per_chunk,
        CENTRES=per_chunk == 1,
        LISTED=listed is not None,
        **launch.options(),
    )
    return masses


def _choose(
    work: _Work,
    mass: torch.Tensor,
    listed: torch.Tensor | None,
    per_chunk: int,
    chosen: torch.Tensor,
    chosen_masses: torch.Tensor | None,
    budget: int,
    strides: tuple[int, int],
) -> None:
    """Write the heaviest of each pair to ``chosen``; strides are those of KV heads and blocks."""
    places = mass.shape[1]
    choose_kernel[(work.pairs,)](
        mass,
        work.end_chunks,
        work.end_chunks if listed is None else listed,
        chosen,
        mass if chosen_masses is None else chosen_masses,
        work.queries.shape[1],
        work.first_chunk,
        places,
        budget,
        *strides,
        PLACES=triton.next_power_of_2(places),
        BUDGET=triton.next_power_of_2(budget),
        PER_CHUNK=per_chunk,
        LISTED=listed is not None,
        WITH_MASS=chosen_masses is not None,
        **pick(CHOOSE_LAUNCHES, capability()).options(),
    )


_COUNTS = ("blocks", "tiles", "rows", "head_stride", "block_stride", "row_stride")


def _builds(dim: int, rows: int, model: str) -> tuple[Build, ...]:
    quarter = dim // 4
    counts = dict.fromkeys(_COUNTS, "i32")
    scored = {"peaks": "*fp32", "totals": "*fp32", "end_chunks": "*i32"}
    unit = {"ROWS": _unit_rows(rows), "QUARTER": quarter}
    runs = {"TILE": CENTRE_TILE, "RUNS": 16}
    turn = Build(
        f"turn_rows {model}",
        turn_rows_kernel,
        {
            "queries": "*bf16",
            "ints": "*i8",
            "starts": "*i32",
            "steps": "*fp32",
            "scale": "fp32",
            **counts,
        },
        TURN_LAUNCHES,
        {**unit, "WIDTH": max(quarter, 16), "INTS": max(quarter, 32)},
    )
    centres = Build(
        f"score_chunks {model}",
        score_chunks_kernel,
        {
            "queries": "*bf16",
            "summaries": "*bf16",
            "centres": "*fp32",
            "scale": "fp32",
            **scored,
            **counts,
            **dict.fromkeys(("first_chunk", "capacity", "runs"), "i32"),
        },
        CENTRE_LAUNCHES,
        {"ROWS": _unit_rows(rows), "DIM": dim, "TILE": CENTRE_TILE},
    )
    scores = [
        Build(
            f"score_groups {kind} {model}",
            score_groups_kernel,
            {
                "ints": "*i8",
                "starts": "*i32",
                "steps": "*fp32",
                "centres": "*fp32",
                "codes": "*u8",
                "scales": "*bf16",
                "listed": "*i32",
                "sums": "*bf16",
                **scored,
                **dict.fromkeys(("blocks", "tiles", "first_chunk", "capacity"), "i32"),
                **dict.fromkeys(("runs", "places", "spans"), "i32"),
            },
            SCORE_LAUNCHES[_unit_rows(rows)],
            {**unit, **runs, "INTS": max(quarter, 32), "LISTED": kind == "kept", "PACKED": True},
        )
        for kind in ("all", "kept")
    ]
    weighing = [
        Build(
            f"weigh {kind} {model}",
            weigh_kernel,
            {
                "values": "*fp32" if kind == "chunks" else "*bf16",
                "masses": "*fp32",
                **scored,
                **dict.fromkeys(("blocks", "tiles", "rows", "first_chunk"), "i32"),
                **dict.fromkeys(("runs", "places", "stride"), "i32"),
            },
            WEIGH_LAUNCHES,
            {
                "ROWS": _unit_rows(rows),
                "RUNS": 16,
                "PER_CHUNK": 1 if kind == "chunks" else _PER_CHUNK,
                "CENTRES": kind == "chunks",
                "LISTED": kind == "groups",
            },
        )
        for kind in ("chunks", "groups")
    ]
    return (turn, centres, *scores, *weighing)


def _choose_build(kind: str, places: int, budget: int, per_chunk: int) -> Build:
    numbers = ("blocks", "first_chunk", "places", "budget", "head_stride", "block_stride")
    return Build(
        f"choose {kind}",
        choose_kernel,
        {
            "masses": "*fp32",
            "end_chunks": "*i32",
            "listed": "*i32",
            "chosen": "*i32",
            "chosen_masses": "*fp32",
            **dict.fromkeys(numbers, "i32"),
        },
        CHOOSE_LAUNCHES,
        {
            "PLACES": places,
            "BUDGET": budget,
            "PER_CHUNK": per_chunk,
            "LISTED": per_chunk > 1,
            "WITH_MASS": per_chunk > 1,
        },
    )


BUILDS = (
    *_builds(128, 128, "qwen3-30b-a3b"),
    *_builds(64, 48, "smollm2-64k"),
    *_builds(128, 8, "qwen3-30b-a3b by token"),
    _choose_build("chunks", 1024, 512, 1),
    _choose_build("groups", 2048, 128, _PER_CHUNK),
)
