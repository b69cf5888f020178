"""The selection of groups for blocks of query rows, see ``reference.select_groups``."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from hga_kernels.arguments import CHUNK, Budget, ChunkIndex, ChunkRange
from hga_kernels.gpu.build import GROUP_SIZES, capability, launches_for, pick
from hga_kernels.gpu.launch import next_power_of_2
from hga_kernels.gpu.select.block import (
    CENTRE_TILE,
    choose_kernel,
    quantise_rows_kernel,
    score_chunks_kernel,
    score_groups_kernel,
    weigh_kernel,
)
from hga_kernels.gpu.select.launches import (
    CENTRE_LAUNCHES,
    CHOOSE_LAUNCHES,
    MIN_BYTES,
    QUANTISE_LAUNCHES,
    SCORE_LAUNCHES,
    WEIGH_LAUNCHES,
    unit_rows_for,
)
from hga_kernels.gpu.select.step import MAX_ROWS, select_few
from hga_kernels.memory import SELECTION_BYTES
from hga_kernels.reference.index import packing_of
from hga_kernels.reference.selection import STRATA

_MAX_CHUNKS = 4096
"""Chunks of an index that the kernels take: 262,144 tokens."""
_MIN_STRATUM_GROUPS = 1024
"""Strata are padded to at least so many groups, so that fewer kernels are compiled."""


@dataclass(frozen=True)
class _Work:
    """A selection for several blocks, or a part of them: what all its kernels share."""

    queries: torch.Tensor  # [kv_heads, blocks, rows, dim]
    end_chunks: torch.Tensor  # [blocks] int32
    index: ChunkIndex
    group_size: int
    first_chunk: int
    last_chunk: int
    log_scale: float
    ints: torch.Tensor  # [units, unit_rows, 4, bytes] int8
    starts: torch.Tensor  # [units, unit_rows] int32
    steps: torch.Tensor  # [units, unit_rows] float32
    window_lse: torch.Tensor | None  # [pairs, rows] float32; None: it does not count
    shares: torch.Tensor  # [pairs, groups] float32

    @property
    def heads(self) -> int:
        return self.queries.shape[0]

    @property
    def rows(self) -> int:
        return self.queries.shape[2]

    @property
    def pairs(self) -> int:
        return self.shares.shape[0]

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
        return CHUNK // self.group_size

    @property
    def runs(self) -> int:
        return -(-self.last_chunk // CENTRE_TILE)

    @property
    def most_runs(self) -> int:
        """Runs of the whole index; a power of two, so that fewer kernels are compiled."""
        return int(next_power_of_2(-(-self.index.codes.shape[1] // CENTRE_TILE)))

    def blocks(self, first: int, last: int) -> "_Work":
        """Return the part of the blocks from ``first`` up to ``last``."""
        pairs = slice(first * self.heads, last * self.heads)
        units = slice(pairs.start * self.tiles, pairs.stop * self.tiles)
        return replace(
            self,
            queries=self.queries[:, first:last],
            end_chunks=self.end_chunks[first:last],
            ints=self.ints[units],
            starts=self.starts[units],
            steps=self.steps[units],
            window_lse=None if self.window_lse is None else self.window_lse[pairs],
            shares=self.shares[pairs],
        )

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self.queries.device)

    def query_arguments(self) -> tuple[Any, ...]:
        """Return scale, counts and strides of the queries, as two of the kernels take them."""
        head, block, row, _ = self.queries.stride()
        return (self.log_scale, self.heads, self.tiles, self.rows, head // row, block // row)


def select_groups(
    queries: torch.Tensor,
    index: ChunkIndex,
    chunks: ChunkRange,
    budget: Budget,
    scale: float = 1.0,
    window_lse: torch.Tensor | None = None,
    layer: int = 0,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """See ``reference.select_groups``: 8-bit queries by 2-bit codes on tensor cores.

    The result has ``budget.groups`` columns even where fewer groups may be chosen. It can be
    captured in a CUDA graph unless ``chunks.last`` is None.

    Returns:
        None for tensors that the kernels do not take.
    """
    kv_heads, blocks, rows, dim = queries.shape
    if not takes(queries, index, budget.group_size):
        return None
    last = min(chunks.bound(), index.codes.shape[1])
    if last <= chunks.first:
        shape = (blocks, kv_heads, budget.groups)
        groups = chunks.ends.new_full(shape, -1, dtype=torch.int32)
        return groups, torch.ones_like(groups, dtype=torch.float32)
    queries = queries.contiguous()
    window_lse = None if window_lse is None else window_lse.float().contiguous()
    chunks = ChunkRange(chunks.first, chunks.ends.to(torch.int32), last)
    if blocks == 1 and rows <= MAX_ROWS:
        return select_few(queries, index, chunks, budget, scale, window_lse, layer)
    unit_rows = unit_rows_for(rows)
    pairs, units = blocks * kv_heads, blocks * kv_heads * -(-rows // unit_rows)
    all_groups = last * (CHUNK // budget.group_size)

    def empty(dtype: torch.dtype, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=queries.device)

    work = _Work(
        queries,
        chunks.ends,
        index,
        budget.group_size,
        chunks.first,
        last,
        scale * math.log2(math.e),
        ints=empty(torch.int8, units, unit_rows, 4, max(dim // 4, MIN_BYTES)),
        starts=empty(torch.int32, units, unit_rows),
        steps=empty(torch.float32, units, unit_rows),
        window_lse=None if window_lse is None else window_lse.transpose(0, 1).flatten(0, 1),
        shares=empty(torch.float32, pairs, all_groups),
    )
    _quantise_rows(work)
    unit_bytes = unit_rows * (4 * work.runs * CENTRE_TILE + 2 * all_groups)
    step = max(1, SELECTION_BYTES // (unit_bytes * kv_heads * work.tiles))
    for first in range(0, blocks, step):
        _compute_shares(work.blocks(first, first + step))
    groups = empty(torch.int32, blocks, kv_heads, budget.groups)
    importance = empty(torch.float32, blocks, kv_heads, budget.groups)
    _choose(work, groups, importance, budget.expected, layer)
    return groups, importance


def takes(queries: torch.Tensor, index: ChunkIndex, group_size: int) -> bool:
    """Tell whether the kernels take tensors of these types and sizes."""
    dim = queries.shape[3]
    return (
        packing_of(index.codes, index.scales) == "tokens"
        and group_size in GROUP_SIZES
        and index.scales.shape[2] == CHUNK
        and dim & (dim - 1) == 0
        and 16 <= dim <= 256
        and index.codes.shape[1] <= _MAX_CHUNKS
        and queries.dtype in (torch.bfloat16, torch.float32)
        and index.summaries.dtype == torch.bfloat16
    )


def _quantise_rows(work: _Work) -> None:
    """Fill ``ints``, ``starts`` and ``steps``."""
    quantise_rows_kernel[(work.units,)](
        work.queries,
        work.ints,
        work.starts,
        work.steps,
        *work.query_arguments(),
        ROWS=work.unit_rows,
        QUARTER=work.queries.shape[3] // 4,
        WIDTH=work.ints.shape[3],
        **pick(QUANTISE_LAUNCHES, capability()).options(),
    )


def _compute_shares(work: _Work) -> None:
    """Fill ``shares`` of a part of the blocks."""
    centres, peaks = _score_chunks(work)
    _weigh(work, *_score_groups(work, centres, peaks))


def _score_chunks(work: _Work) -> tuple[torch.Tensor, torch.Tensor]:
    """Return centre scores [units, chunks, rows] and their peaks [units, runs, rows], float32."""
    centres = work.empty(work.units, work.runs * CENTRE_TILE, work.unit_rows)
    peaks = work.empty(work.units, work.runs, work.unit_rows)
    score_chunks_kernel[(work.runs, work.units)](
        work.queries,
        work.index.summaries,
        work.end_chunks,
        centres,
        peaks,
        *work.query_arguments(),
        work.first_chunk,
        work.index.summaries.shape[1],
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
    """Return weights of groups [units, groups, rows] bf16 and their sums [units, spans, rows]."""
    launch = pick(SCORE_LAUNCHES[work.unit_rows], capability())
    spans = -(-work.last_chunk // launch.sizes["SPAN"])
    sums = work.empty(work.units, work.shares.shape[1], work.unit_rows, dtype=torch.bfloat16)
    totals = work.empty(work.units, spans, work.unit_rows)
    score_groups_kernel[(spans, work.units)](
        work.ints,
        work.starts,
        work.steps,
        centres,
        peaks,
        work.index.codes,
        work.index.scales,
        work.end_chunks,
        sums,
        totals,
        sums if work.window_lse is None else work.window_lse,
        work.heads,
        work.tiles,
        work.rows,
        work.first_chunk,
        work.index.codes.shape[1],
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
        WITH_WINDOW=work.window_lse is not None,
        **launch.options(),
    )
    return sums, totals


def _weigh(work: _Work, weights: torch.Tensor, totals: torch.Tensor) -> None:
    """Fill ``shares``: normalise the weights of groups and add them up over rows."""
    launch = pick(WEIGH_LAUNCHES, capability())
    all_groups, runs = work.shares.shape[1], totals.shape[1]
    weigh_kernel[(-(-all_groups // launch.sizes["BLOCK"]), work.pairs)](
        weights,
        totals,
        work.end_chunks,
        work.shares,
        work.heads,
        work.tiles,
        work.rows,
        work.first_chunk,
        runs,
        all_groups,
        ROWS=work.unit_rows,
        RUNS=max(work.most_runs, next_power_of_2(runs)),
        PER_CHUNK=work.per_chunk,
        **launch.options(),
    )


def _choose(
    work: _Work, groups: torch.Tensor, importance: torch.Tensor, expected: float, layer: int
) -> None:
    """Draw the groups of each pair, as many as ``groups`` has columns."""
    all_groups, budget = work.shares.shape[1], groups.shape[-1]
    of_stratum = -(-all_groups // (work.per_chunk * STRATA)) * work.per_chunk
    padded = max(int(next_power_of_2(of_stratum)), _MIN_STRATUM_GROUPS)
    choose_kernel[(work.pairs, STRATA)](
        work.shares,
        work.end_chunks,
        groups,
        importance,
        work.heads,
        work.first_chunk,
        all_groups,
        budget,
        expected,
        layer * work.heads,
        COUNT=padded,
        BUDGET=next_power_of_2(budget),
        PER_CHUNK=work.per_chunk,
        **pick(launches_for(CHOOSE_LAUNCHES, padded), capability()).options(),
    )
