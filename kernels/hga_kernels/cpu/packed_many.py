"""Products of many rows with packed weights in C, in integers of 16 bits."""

import ctypes
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from hga_kernels import reference
from hga_kernels.cpu import library
from hga_kernels.cpu.library import call
from hga_kernels.memory import empty_on_huge_pages

_GROUP, _TILE, _HALF_SUB_BLOCK = 16, 256, 16
"""Rows of a group, columns that share a scale, and what the columns of a tile are padded to."""

_scratch = threading.local()

Part = tuple[int, int, int]
"""Rows of a weight: their address, the number of their format in GGUF files, and how many."""


Stack = tuple[int, int, int, int]
"""The same rows of every expert: the first expert's ``Part``, and the bytes to the next expert."""

_EXPERT_ROWS = 4096
"""Experts are computed together until they have so many rows, which bounds the memory of a call."""


_MATRIX_UNIT_ROWS, _PANEL_ROWS = 64, 1024
"""Rows from which AMX is faster, and rows of a weight that are unpacked for it at a time."""


class _Product(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("up", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("up_type", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("column", ctypes.c_int32),
        ("first_group", ctypes.c_int32),
        ("groups", ctypes.c_int32),
        ("first_item", ctypes.c_int32),
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """Quantised rows, in groups of 16. The next call of ``_quantize`` reuses their memory."""

    values: torch.Tensor
    """[columns * rows of all groups] int16, ordered as the product reads them."""
    scales: torch.Tensor
    """[tiles * groups * 16] float32."""
    count: int
    groups: int
    columns: int


def linear(
    inputs: torch.Tensor,
    parts: Sequence[Part],
    residual: torch.Tensor | None = None,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    is_gated: bool = False,
) -> torch.Tensor:
    """Return ``inputs @ weight.T + residual``; ``rms_norm`` or ``gated_silu`` may go first.

    Args:
        inputs: [rows, in], or [rows, 2 * in] if they are gated; float32.
        parts: all rows of a weight [out, in].
        residual: [rows, out] float32.
        norm: [in] float32; None: no norm.
        eps: of the norm.
        is_gated: whether ``gated_silu`` goes first.

    Returns:
        [rows, out] float32.
    """
    if by_matrix_unit(inputs.shape[0]):
        return _linear_in_bf16(inputs, parts, residual, norm, eps, is_gated)
    rows = _quantize(inputs, norm, eps, is_gated)
    products, column = (_Product * len(parts))(), 0
    for (address, kind, outputs), product in zip(parts, products, strict=True):
        product.weight, product.type, product.outputs = address, kind, outputs
        product.column, product.groups = column, rows.groups
        column += outputs
    return _multiply(rows, products, torch.empty(rows.count, column), residual)


def by_matrix_unit(rows: int) -> bool:
    """Return whether a product of so many rows is torch's, of bf16, on a CPU with AMX.

    There oneDNN multiplies bf16 several times faster than the C kernel its integers.
    """
    return rows >= _MATRIX_UNIT_ROWS and library.has_amx()


def _linear_in_bf16(
    inputs: torch.Tensor,
    parts: Sequence[Part],
    residual: torch.Tensor | None,
    norm: torch.Tensor | None,
    eps: float,
    is_gated: bool,
) -> torch.Tensor:
    """Do as ``linear``, unpacking some rows of the weight at a time to bf16."""
    if norm is not None:
        inputs = reference.rms_norm(inputs, norm, eps)
    if is_gated:
        inputs = reference.gated_silu(inputs)
    inputs = inputs.bfloat16()
    columns = inputs.shape[1]
    out = torch.empty(len(inputs), sum(part[2] for part in parts))
    column = 0
    for address, kind, outputs in parts:
        for first in range(0, outputs, _PANEL_ROWS):
            count = min(_PANEL_ROWS, outputs - first)
            panel = _memory("panel", count * columns, torch.bfloat16).view(count, columns)
            call("hga_packed_to_bf16", address, panel, kind, first, count, columns)
            out[:, column : column + count] = inputs @ panel.T
            column += count
    return out if residual is None else out.add_(residual)


def mlp(
    hidden: torch.Tensor, norm: torch.Tensor, eps: float, gate: Part, up: Part, down: Sequence[Part]
) -> torch.Tensor:
    """Do as ``reference.mlp``, without memory for gates and ups.

    Args:
        hidden: [rows, hidden] float32.
        norm: [hidden] float32.
        eps: of the norm.
        gate: [width, hidden].
        up: [width, hidden].
        down: all rows of [hidden, width].

    Returns:
        [rows, hidden] float32.
    """
    rows = _quantize(hidden, norm, eps)
    products = (_Product * 1)()
    product, width = products[0], gate[2]
    product.weight, product.type, product.outputs = gate
    product.up, product.up_type, _ = up
    product.groups = rows.groups
    gated = _memory("gated", rows.count * width, torch.float32).view(rows.count, width)
    return linear(_multiply(rows, products, gated), down, hidden)


def experts(
    hidden: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    chosen: torch.Tensor,
    shares: torch.Tensor,
    gate: Stack,
    up: Stack,
    down: Stack,
) -> torch.Tensor:
    """Return ``hidden`` plus the chosen experts' gated MLPs of its norm.

    Args:
        hidden: [rows, hidden] float32.
        norm: [hidden] float32.
        eps: of the norm.
        chosen: [rows, experts per row], an expert once per row at most.
        shares: [rows, experts per row] float32: what the experts' outputs are multiplied by.
        gate: [experts, width, hidden].
        up: [experts, width, hidden].
        down: [experts, hidden, width].

    Returns:
        [rows, hidden] float32.
    """
    out, width = hidden.clone(memory_format=torch.contiguous_format), gate[2]
    # Assignments by expert. Each expert's begin with a new group of rows.
    order = chosen.flatten().argsort(stable=True)
    counts = chosen.flatten().bincount()
    groups = (counts + _GROUP - 1) // _GROUP
    skipped = (groups * _GROUP - counts).cumsum(0) - (groups * _GROUP - counts)
    places = torch.arange(len(order)) + skipped.repeat_interleave(counts)
    targets = torch.full((int(groups.sum()) * _GROUP,), -1, dtype=torch.int32)
    targets[places] = (order // chosen.shape[1]).int()
    factors = torch.zeros(len(targets))
    factors[places] = shares.flatten()[order]
    first = 0
    for numbers, sizes in _calls(groups.tolist()):
        last = first + sum(sizes) * _GROUP
        rows = _quantize(hidden, norm, eps, order=targets[first:last])
        gated = _memory("gated", rows.count * width, torch.float32).view(rows.count, width)
        rows = _quantize(_multiply(rows, _products(numbers, sizes, gate, up), gated))
        products = _products(numbers, sizes, down)
        call(
            "hga_packed_add",
            rows.values,
            rows.scales,
            ctypes.addressof(products),
            targets[first:last],
            factors[first:last],
            out,
            len(numbers),
            rows.count,
            rows.groups,
            rows.columns,
            out.shape[1],
        )
        first = last
    return out


def _calls(groups: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the experts of each call, and how many groups of rows they have."""
    numbers: list[int] = []
    sizes: list[int] = []
    for number, size in enumerate(groups):
        if sizes and (sum(sizes) + size) * _GROUP > _EXPERT_ROWS:
            yield numbers, sizes
            numbers, sizes = [], []
        if size:
            numbers.append(number)
            sizes.append(size)
    yield numbers, sizes


def _products(
    numbers: list[int], sizes: list[int], weight: Stack, up: Stack | None = None
) -> "ctypes.Array[_Product]":
    """Return the products of experts, whose groups of rows follow each other."""
    products, group = (_Product * len(numbers))(), 0
    for number, size, product in zip(numbers, sizes, products, strict=True):
        product.weight, product.type = weight[0] + number * weight[3], weight[1]
        product.outputs = weight[2]
        if up is not None:
            product.up, product.up_type = up[0] + number * up[3], up[1]
        product.first_group, product.groups = group, size
        group += size
    return products


def _memory(name: str, size: int, dtype: torch.dtype) -> torch.Tensor:
    """Return [size] of this thread's memory of that name.

    Memory that is new to the process takes as long to get as a product with it.
    """
    held: torch.Tensor | None = getattr(_scratch, name, None)
    if held is None or len(held) < size:
        held = empty_on_huge_pages((size,), dtype)
        setattr(_scratch, name, held)
    return held[:size]


def _quantize(
    inputs: torch.Tensor,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    is_gated: bool = False,
    order: torch.Tensor | None = None,
) -> _Rows:
    """Quantise rows, or those that ``order`` [a multiple of 16] int32 names, -1 for zeros."""
    inputs = inputs.contiguous()
    columns = inputs.shape[1] // 2 if is_gated else inputs.shape[1]
    count = inputs.shape[0] if order is None else len(order)
    groups, tiles = -(-count // _GROUP), -(-columns // _TILE)
    padded = -(-columns // _HALF_SUB_BLOCK) * _HALF_SUB_BLOCK
    values = _memory("values", groups * padded * _GROUP, torch.int16)
    scales = _memory("scales", tiles * groups * _GROUP, torch.float32)
    sizes = inputs.shape[0], groups, columns, int(is_gated)
    call("hga_quantize_rows", inputs, norm, order, values, scales, *sizes, eps)
    return _Rows(values, scales, count, groups, columns)


def _multiply(
    rows: _Rows,
    products: "ctypes.Array[_Product]",
    out: torch.Tensor,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """Write the products of rows, plus ``residual``, to ``out`` [rows, columns] and return it."""
    residual = None if residual is None else residual.contiguous()
    call(
        "hga_packed_many",
        rows.values,
        rows.scales,
        ctypes.addressof(products),
        residual,
        out,
        len(products),
        rows.count,
        rows.groups,
        rows.columns,
        out.shape[1],
    )
    return out
