"""Which groups a block of query rows reads: see ``reference.select_groups``."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton

from hga_kernels.gpu.build import GROUP_SIZES, capability, pick
from hga_kernels.gpu.selection_block import (
    CENTRE_TILE,
    choose_kernel,
    score_chunks_kernel,
    score_groups_kernel,
    turn_rows_kernel,
    weigh_kernel,
)
from hga_kernels.gpu.selection_launches import (
    CENTRE_LAUNCHES,
    LEAST_BYTES,
    SCORE_LAUNCHES,
    TURN_LAUNCHES,
    WEIGH_LAUNCHES,
    choose_launches,
    unit_rows_for,
)
from hga_kernels.gpu.selection_step import MAX_ROWS, select_few
from hga_kernels.reference import packing_of

WORKSPACE_BYTES = 64 * 2**20
"""Blocks are taken in parts that need about as much."""
_MAX_CHUNKS = 4096
_LEAST_PLACES = 1024
"""To choose from at a time, so that fewer kernels are compiled."""
_CHUNK = 64


@dataclass(frozen=True)
class _Work:
    """A selection of several blocks, or of a part of them, and what all its kernels share."""

    queries: torch.Tensor  # [kv_heads, blocks, rows, dim]
    end_chunks: torch.Tensor  # [blocks]
    summaries: torch.Tensor
    codes: torch.Tensor
    scales: torch.Tensor
    group_size: int
    first_chunk: int
    last_chunk: int
    log_scale: float
    ints: torch.Tensor  # [units, unit_rows, 4, bytes] int8
    starts: torch.Tensor  # [units, unit_rows] int32
    steps: torch.Tensor  # [units, unit_rows]
    listed: torch.Tensor | None  # [pairs, kept] int32; None: every chunk is scored
    always: torch.Tensor | None  # [pairs, rows]; None: it does not count
    masses: torch.Tensor  # [pairs, places * per_chunk]

    @property
    def heads(self) -> int:
        return self.queries.shape[0]

    @property
    def rows(self) -> int:
        return self.queries.shape[2]

    @property
    def pairs(self) -> int:
        return self.masses.shape[0]

    @property
    def units(self) -> int:
        return self.ints.shape[0]

    @property
    def unit_rows(self) -> int:
        return self.ints.shape[1]

    @property
    def tiles(self) -> int:
        return self.units // self.pairs

    @property
    def per_chunk(self) -> int:
        return _CHUNK // self.group_size

    @property
    def places(self) -> int:
        """For chunks whose tokens are scored."""
        return self.masses.shape[1] // self.per_chunk

    @property
    def runs(self) -> int:
        return -(-self.last_chunk // CENTRE_TILE)

    @property
    def most_runs(self) -> int:
        """A power of two that holds for the whole index, so that fewer kernels are compiled."""
        return int(triton.next_power_of_2(-(-self.codes.shape[1] // CENTRE_TILE)))

    def blocks(self, first: int, last: int) -> "_Work":
        """The part from one block to another."""
        pairs = slice(first * self.heads, last * self.heads)
        units = slice(pairs.start * self.tiles, pairs.stop * self.tiles)
        return replace(
            self,
            queries=self.queries[:, first:last],
            end_chunks=self.end_chunks[first:last],
            ints=self.ints[units],
            starts=self.starts[units],
            steps=self.steps[units],
            listed=None if self.listed is None else self.listed[pairs],
            always=None if self.always is None else self.always[pairs],
            masses=self.masses[pairs],
        )

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self.queries.device)

    def query_arguments(self) -> tuple[Any, ...]:
        """Scale, counts and strides of the queries, as two kernels take them."""
        head, block, row, _ = self.queries.stride()
        return (self.log_scale, self.heads, self.tiles, self.rows, head // row, block // row)


def select_groups(
    queries: torch.Tensor,
    summaries: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    first_chunk: int,
    end_chunks: torch.Tensor,
    kept: int,
    budget: int,
    group_size: int,
    last_chunk: int | None = None,
    scale: float = 1.0,
    always: torch.Tensor | None = None,
    layer: int = 0,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """8-bit queries by 2-bit codes on tensor cores; always ``budget`` places, in ascending order.

    Unless ``last_chunk`` is None it can be captured in a CUDA graph.
    """
    kv_heads, blocks, rows, dim = queries.shape
    if not takes(queries, summaries, codes, scales, group_size):
        return None
    last = int(end_chunks.max()) if last_chunk is None else last_chunk
    last = min(last, codes.shape[1])
    span = last - first_chunk
    if span <= 0:
        groups = end_chunks.new_full((blocks, kv_heads, budget), -1, dtype=torch.int32)
        return groups, torch.ones_like(groups, dtype=torch.float32)
    queries = queries.contiguous()
    always = None if always is None else always.float().contiguous()
    end_chunks = end_chunks.to(torch.int32)
    if blocks == 1 and rows <= MAX_ROWS and kept >= span:
        return select_few(
            *(queries, summaries, codes, scales, first_chunk, end_chunks, budget),
            *(group_size, last, scale, queries.is_cuda, None, always, layer),
        )
    unit_rows = unit_rows_for(rows)
    pairs, units = blocks * kv_heads, blocks * kv_heads * -(-rows // unit_rows)
    places, per_chunk = kept if kept < span else last, _CHUNK // group_size

    def empty(dtype: torch.dtype, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=queries.device)

    work = _Work(
        queries,
        end_chunks,
        summaries,
        codes,
        scales,
        group_size,
        first_chunk,
        last,
        scale * math.log2(math.e),
        ints=empty(torch.int8, units, unit_rows, 4, max(dim // 4, LEAST_BYTES)),
        starts=empty(torch.int32, units, unit_rows),
        steps=empty(torch.float32, units, unit_rows),
        listed=empty(torch.int32, pairs, kept) if kept < span else None,
        always=None if always is None else always.transpose(0, 1).flatten(0, 1),
        masses=empty(torch.float32, pairs, places * per_chunk),
    )
    _turn_rows(work)
    unit_bytes = unit_rows * (4 * work.runs * CENTRE_TILE + 2 * places * per_chunk)
    step = max(1, WORKSPACE_BYTES // (unit_bytes * kv_heads * work.tiles))
    for first in range(0, blocks, step):
        _weigh_groups(work.blocks(first, first + step))
    groups = empty(torch.int32, blocks, kv_heads, budget)
    multiples = empty(torch.float32, blocks, kv_heads, budget)
    _choose(work, work.masses, work.listed, per_chunk, groups, multiples, layer)
    return groups, multiples


def takes(
    queries: torch.Tensor,
    summaries: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    group_size: int,
) -> bool:
    """Whether these are a selection's tensors of a kind and size that the kernels take."""
    dim = queries.shape[3]
    return (
        packing_of(codes, scales) == "tokens"
        and group_size in GROUP_SIZES
        and scales.shape[2] == _CHUNK
        and dim & (dim - 1) == 0
        and 16 <= dim <= 256
        and codes.shape[1] <= _MAX_CHUNKS
        and queries.dtype in (torch.bfloat16, torch.float32)
        and summaries.dtype == torch.bfloat16
    )


def _turn_rows(work: _Work) -> None:
    """Fill ``ints``, ``starts`` and ``steps``."""
    turn_rows_kernel[(work.units,)](
        work.queries,
        work.ints,
        work.starts,
        work.steps,
        *work.query_arguments(),
        ROWS=work.unit_rows,
        QUARTER=work.queries.shape[3] // 4,
        WIDTH=work.ints.shape[3],
        **pick(TURN_LAUNCHES, capability()).options(),
    )


def _weigh_groups(work: _Work) -> None:
    """Fill ``listed`` and ``masses`` of a part."""
    centres, peaks, totals = _score_chunks(work)
    if work.listed is not None:
        mass = work.empty(work.pairs, work.last_chunk)
        _weigh(work, centres, peaks, totals, mass, 1)
        _choose(work, mass, None, 1, work.listed, None)
    sums, totals = _score_groups(work, centres, peaks)
    _weigh(work, sums, peaks, totals, work.masses, work.per_chunk)


def _score_chunks(work: _Work) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centre scores [units, chunks, rows], and their peaks and sums [units, runs, rows]."""
    centres = work.empty(work.units, work.runs * CENTRE_TILE, work.unit_rows)
    peaks = work.empty(work.units, work.runs, work.unit_rows)
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
        ROWS=work.unit_rows,
        DIM=work.queries.shape[3],
        TILE=CENTRE_TILE,
        **pick(CENTRE_LAUNCHES, capability()).options(),
    )
    return centres, peaks, totals


def _score_groups(
    work: _Work, centres: torch.Tensor, peaks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of groups [units, places * 4, rows] bf16, and their sums [units, spans, rows]."""
    launch = pick(SCORE_LAUNCHES[work.unit_rows], capability())
    spans = -(-work.places // launch.sizes["SPAN"])
    sums = work.empty(work.units, work.masses.shape[1], work.unit_rows, dtype=torch.bfloat16)
    totals = work.empty(work.units, spans, work.unit_rows)
    score_groups_kernel[(spans, work.units)](
        work.ints,
        work.starts,
        work.steps,
        centres,
        peaks,
        work.codes,
        work.scales,
        work.end_chunks,
        work.end_chunks if work.listed is None else work.listed,
        sums,
        totals,
        sums if work.always is None else work.always,
        work.heads,
        work.tiles,
        work.rows,
        work.first_chunk,
        work.codes.shape[1],
        work.runs,
        work.places,
        spans,
        ROWS=work.unit_rows,
        GROUP=work.group_size,
        QUARTER=work.queries.shape[3] // 4,
        WIDTH=work.ints.shape[3],
        TILE=CENTRE_TILE,
        RUNS=work.most_runs,
        LISTED=work.listed is not None,
        PACKED=work.queries.is_cuda,
        ALWAYS=work.always is not None,
        **launch.options(),
    )
    return sums, totals


def _weigh(
    work: _Work,
    values: torch.Tensor,
    peaks: torch.Tensor,
    totals: torch.Tensor,
    masses: torch.Tensor,
    per_chunk: int,
) -> None:
    """Fill masses [pairs, places], of chunks or of groups, added over rows."""
    launch = pick(WEIGH_LAUNCHES, capability())
    places, runs = masses.shape[1], totals.shape[1]
    weigh_kernel[(-(-places // launch.sizes["BLOCK"]), work.pairs)](
        values,
        peaks,
        totals,
        work.end_chunks,
        masses,
        work.heads,
        work.tiles,
        work.rows,
        work.first_chunk,
        runs,
        places,
        values.shape[1],
        ROWS=work.unit_rows,
        RUNS=max(work.most_runs, triton.next_power_of_2(runs)),
        PER_CHUNK=per_chunk,
        CENTRES=per_chunk == 1,
        LISTED=per_chunk > 1 and work.listed is not None,
        **launch.options(),
    )


def _choose(
    work: _Work,
    masses: torch.Tensor,
    listed: torch.Tensor | None,
    per_chunk: int,
    chosen: torch.Tensor,
    multiples: torch.Tensor | None,
    layer: int = 0,
) -> None:
    """Write the heaviest of each pair to ``chosen``, whose last dimension is their number.

    With ``multiples`` they are drawn, and it receives how many each stands for.
    """
    places, budget = masses.shape[1], chosen.shape[-1]
    padded = max(int(triton.next_power_of_2(places)), _LEAST_PLACES)
    choose_kernel[(work.pairs,)](
        masses,
        work.end_chunks,
        work.end_chunks if listed is None else listed,
        chosen,
        masses if multiples is None else multiples,
        work.heads,
        work.first_chunk,
        places,
        budget,
        layer * work.heads,
        PLACES=padded,
        BUDGET=triton.next_power_of_2(budget),
        PER_CHUNK=per_chunk,
        LISTED=listed is not None,
        DRAWN=multiples is not None,
        **pick(choose_launches(padded), capability()).options(),
    )
