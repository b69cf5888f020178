"""Rows of a table, such as the embeddings of tokens, which may be in pinned host memory."""

import torch
import triton
import triton.language as tl

from hga_kernels.gguf_blocks import FORMATS
from hga_kernels.gpu.build import Build, Launch, capability, pick
from hga_kernels.gpu.launch import Kernel, cdiv
from hga_kernels.gpu.linear.packed import KINDS, load_units, parts_of, size_of, unit_of
from hga_kernels.gpu.linear.unpack import store_units
from hga_kernels.weights import Packed

LAUNCHES = {
    "plain": {90: Launch({"COLUMNS": 2048}, warps=8, stages=1)},
    "packed": {90: Launch({"UNITS": 64}, warps=1, stages=1)},
}
CANDIDATES = {
    "plain": tuple(
        Launch({"COLUMNS": columns}, warps=warps, stages=1)
        for columns, warps in ((512, 2), (1024, 4), (2048, 4), (2048, 8))
    ),
}


@Kernel
@triton.jit
def gather_rows_kernel(table, ids, out, rows, size, COLUMNS: tl.constexpr):
    """Copy COLUMNS columns of a row; rows that do not exist are NaN."""
    target = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.load(ids + target)
    known = tl.where((row >= 0) & (row < rows), size, 0)
    values = tl.load(table + row * size + column, mask=column < known, other=float("nan"))
    tl.store(out + target * size + column, values, mask=column < size)


@Kernel
@triton.jit
def gather_packed_kernel(
    w_ptr,  # [rows, SIZE] packed
    ids_ptr,  # [ids] int64
    out_ptr,  # [ids, SIZE]
    rows,
    SIZE: tl.constexpr,
    BLOCKS: tl.constexpr,
    FORMAT: tl.constexpr,
    UNITS: tl.constexpr,
):
    """Unpack UNITS units of a row; BLOCKS as in ``load_units``. Rows that do not exist are NaN."""
    target = tl.program_id(0).to(tl.int64)
    IN_ROW: tl.constexpr = SIZE // size_of(FORMAT)
    EACH: tl.constexpr = size_of(FORMAT) // unit_of(FORMAT)
    unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    block, within = unit // EACH, unit % EACH
    row = tl.load(ids_ptr + target)
    known = (row >= 0) & (row < rows)
    inside = block < IN_ROW
    source = tl.where(known, row, 0) * IN_ROW + block
    units = load_units(w_ptr, source, within, inside, FORMAT, BLOCKS, True)
    out_ptr += target * SIZE
    if known:
        store_units(out_ptr, units, block, within, inside, parts_of(FORMAT), FORMAT)
    else:
        WEIGHTS: tl.constexpr = UNITS * unit_of(FORMAT)
        column = tl.program_id(1) * WEIGHTS + tl.arange(0, WEIGHTS)
        tl.store(out_ptr + column, float("nan"), mask=column < SIZE)


def gather_rows(
    ids: torch.Tensor,
    table: torch.Tensor | Packed,
    out: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor | None:
    """See ``reference.gather_rows``; ``out`` must be contiguous. None for a strided table."""
    if isinstance(table, Packed):
        return _gather_packed(ids, table, out, dtype or torch.float32)
    if dtype not in (None, table.dtype) or not table.is_contiguous():
        return None
    rows, size = table.shape
    if out is None:
        out = torch.empty(ids.shape[0], size, dtype=table.dtype, device=ids.device)
    launch = pick(LAUNCHES["plain"], capability(ids.device))
    if ids.shape[0]:
        gather_rows_kernel[(ids.shape[0], cdiv(size, launch.sizes["COLUMNS"]))](
            table, ids, out, rows, size, **launch.options()
        )
    return out


def _gather_packed(
    ids: torch.Tensor, table: Packed, out: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor | None:
    if table.format not in KINDS or not table.data.is_contiguous():
        return None
    rows, size = table.shape
    block = FORMATS[table.format]
    if out is None:
        out = torch.empty(ids.shape[0], size, dtype=dtype, device=ids.device)
    launch = pick(LAUNCHES["packed"], capability(ids.device))
    programs = cdiv(size // unit_of(table.format), launch.sizes["UNITS"])
    if ids.shape[0]:
        gather_packed_kernel[(ids.shape[0], programs)](
            table.data,
            ids,
            out,
            rows,
            SIZE=size,
            BLOCKS=rows * (size // block.size) if table.is_planar else 0,
            FORMAT=table.format,
            **launch.options(),
        )
    return out


BUILDS = (
    Build(
        "gather_rows",
        gather_rows_kernel,
        {**dict.fromkeys(("table", "out"), "*bf16"), "ids": "*i64", "rows": "i32", "size": "i32"},
        LAUNCHES["plain"],
    ),
    Build(
        "gather_packed_rows",
        gather_packed_kernel,
        {"w_ptr": "*u8", "ids_ptr": "*i64", "out_ptr": "*fp32", "rows": "i32"},
        LAUNCHES["packed"],
        {"SIZE": 2048, "BLOCKS": 0, "FORMAT": "Q4_K"},
    ),
)
