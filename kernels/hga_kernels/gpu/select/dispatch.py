"""Which groups a block of query rows reads: see ``reference.select_groups``."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton

from hga_kernels.gpu.build import GROUP_SIZES, capability, launches_for, pick
from hga_kernels.gpu.select.block import (
    CENTRE_TILE,
    choose_kernel,
    score_chunks_kernel,
    score_groups_kernel,
    turn_rows_kernel,
    weigh_kernel,
)
from hga_kernels.gpu.select.launches import (
    CENTRE_LAUNCHES,
    CHOOSE_LAUNCHES,
    LEAST_BYTES,
    SCORE_LAUNCHES,
    TURN_LAUNCHES,
    WEIGH_LAUNCHES,
    unit_rows_for,
)
from hga_kernels.gpu.select.step import MAX_ROWS, select_few
from hga_kernels.memory import SELECTION_BYTES
from hga_kernels.reference.index import packing_of
from hga_kernels.reference.selection import STRATA

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
    always: torch.Tensor | None  # [pairs, rows]; None: it does not count
    masses: torch.Tensor  # [pairs, groups]

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
    budget: int,
    group_size: int,
    last_chunk: int | None = None,
    scale: float = 1.0,
    always: torch.Tensor | None = None,
    layer: int = 0,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """8-bit queries by 2-bit codes on tensor cores; always ``budget`` places.

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
    if blocks == 1 and rows <= MAX_ROWS:
        return select_few(
            *(queries, summaries, codes, scales, first_chunk, end_chunks, budget),
            *(group_size, last, scale, queries.is_cuda, None, always, layer),
        )
    unit_rows = unit_rows_for(rows)
    pairs, units = blocks * kv_heads, blocks * kv_heads * -(-rows // unit_rows)
    groups_held = last * (_CHUNK // group_size)

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
        always=None if always is None else always.transpose(0, 1).flatten(0, 1),
        masses=empty(torch.float32, pairs, groups_held),
    )
    _turn_rows(work)
    unit_bytes = unit_rows * (4 * work.runs * CENTRE_TILE + 2 * groups_held)
    step = max(1, SELECTION_BYTES // (unit_bytes * kv_heads * work.tiles))
    for first in range(0, blocks, step):
        _weigh_groups(work.blocks(first, first + step))
    groups = empty(torch.int32, blocks, kv_heads, budget)
    importance = empty(torch.float32, blocks, kv_heads, budget)
    _choose(work, groups, importance, layer)
    return groups, importance


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
    """Fill ``masses`` of a part."""
    centres, peaks = _score_chunks(work)
    _weigh(work, *_score_groups(work, centres, peaks))


def _score_chunks(work: _Work) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre scores [units, chunks, rows], and their peaks [units, runs, rows]."""
    centres = work.empty(work.units, work.runs * CENTRE_TILE, work.unit_rows)
    peaks = work.empty(work.units, work.runs, work.unit_rows)
    score_chunks_kernel[(work.runs, work.units)](
        work.queries,
        work.summaries,
        work.end_chunks,
        centres,
        peaks,
        *work.query_arguments(),
        work.first_chunk,
        work.summaries.shape[1],
        work.runs,
        ROWS=work.unit_rows,
        DIM=work.queries.shape[3],
        TILE=CENTRE_TILE,
        **pick(CENTRE_LAUNCHES, capability()).options(),
    )
    return centres, peaks


def _score_groups(
    work: _Work, centres: torch.Tensor, peaks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of groups [units, groups, rows] bf16, and their sums [units, spans, rows]."""
    launch = pick(SCORE_LAUNCHES[work.unit_rows], capability())
    spans = -(-work.last_chunk // launch.sizes["SPAN"])
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
        sums,
        totals,
        sums if work.always is None else work.always,
        work.heads,
        work.tiles,
        work.rows,
        work.first_chunk,
        work.codes.shape[1],
        work.runs,
        work.last_chunk,
        spans,
        ROWS=work.unit_rows,
        GROUP=work.group_size,
        QUARTER=work.queries.shape[3] // 4,
        WIDTH=work.ints.shape[3],
        TILE=CENTRE_TILE,
        RUNS=work.most_runs,
        PACKED=work.queries.is_cuda,
        ALWAYS=work.always is not None,
        **launch.options(),
    )
    return sums, totals


def _weigh(work: _Work, weights: torch.Tensor, totals: torch.Tensor) -> None:
    """Fill ``masses`` with the shares of groups, added over rows."""
    launch = pick(WEIGH_LAUNCHES, capability())
    places, runs = work.masses.shape[1], totals.shape[1]
    weigh_kernel[(-(-places // launch.sizes["BLOCK"]), work.pairs)](
        weights,
        totals,
        work.end_chunks,
        work.masses,
        work.heads,
        work.tiles,
        work.rows,
        work.first_chunk,
        runs,
        places,
        ROWS=work.unit_rows,
        RUNS=max(work.most_runs, triton.next_power_of_2(runs)),
        PER_CHUNK=work.per_chunk,
        **launch.options(),
    )


def _choose(work: _Work, groups: torch.Tensor, importance: torch.Tensor, layer: int) -> None:
    """Draw the groups of each pair, as many as ``groups`` has places for."""
    places, budget = work.masses.shape[1], groups.shape[-1]
    of_stratum = -(-places // (work.per_chunk * STRATA)) * work.per_chunk
    padded = max(int(triton.next_power_of_2(of_stratum)), _LEAST_PLACES)
    choose_kernel[(work.pairs, STRATA)](
        work.masses,
        work.end_chunks,
        groups,
        importance,
        work.heads,
        work.first_chunk,
        places,
        budget,
        layer * work.heads,
        PLACES=padded,
        BUDGET=triton.next_power_of_2(budget),
        PER_CHUNK=work.per_chunk,
        **pick(launches_for(CHOOSE_LAUNCHES, padded), capability()).options(),
    )
