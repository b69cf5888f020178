"""Products of many rows with packed weights in C, in integers of 16 bits."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hga_kernels.cpu.library import call

_GROUP, _TILE, _HALF_SUB_BLOCK = 16, 256, 16
"""Rows of a group, columns that share a scale, and what the columns of a tile are padded to."""

Part = tuple[int, int, int]
"""Rows of a weight: their address, the number of their format in GGUF files, and how many."""


class _Product(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("column", ctypes.c_int32),
        ("first_group", ctypes.c_int32),
        ("groups", ctypes.c_int32),
        ("first_item", ctypes.c_int32),
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """Quantised rows, in groups of 16."""

    values: torch.Tensor
    """[columns * rows of all groups] int16, ordered as the product reads them."""
    scales: torch.Tensor
    """[tiles, groups, 16] float32."""
    count: int
    columns: int

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return self.scales.shape[1]


def quantize(
    inputs: torch.Tensor,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    is_gated: bool = False,
    order: torch.Tensor | None = None,
) -> Rows:
    """Quantise rows; ``rms_norm`` or ``gated_silu`` may go first.

    Args:
        inputs: [rows, in], or [rows, 2 * in] if they are gated; float32.
        norm: [in] float32; None: no norm.
        eps: of the norm.
        is_gated: whether ``gated_silu`` goes first.
        order: [a multiple of 16] int32: which rows to take, negative for a row of zeros; None: all.
    """
    inputs = inputs.contiguous()
    columns = inputs.shape[1] // 2 if is_gated else inputs.shape[1]
    count = inputs.shape[0] if order is None else len(order)
    groups, tiles = -(-count // _GROUP), -(-columns // _TILE)
    padded = -(-columns // _HALF_SUB_BLOCK) * _HALF_SUB_BLOCK
    values = torch.empty(groups * padded * _GROUP, dtype=torch.int16)
    scales = torch.empty(tiles, groups, _GROUP, dtype=torch.float32)
    sizes = inputs.shape[0], groups, columns, int(is_gated)
    call("hga_quantize_rows", inputs, norm, order, values, scales, *sizes, eps)
    return Rows(values, scales, count, columns)


def multiply(
    rows: Rows, parts: Sequence[Part], residual: torch.Tensor | None = None
) -> torch.Tensor:
    """Multiply quantised rows and the parts of a weight [out, in].

    Args:
        rows: the rows.
        parts: all rows of the weight.
        residual: [rows, out] float32 to add.

    Returns:
        [rows, out] float32.
    """
    products, column = (_Product * len(parts))(), 0
    for (address, kind, outputs), product in zip(parts, products, strict=True):
        product.weight, product.type, product.outputs = address, kind, outputs
        product.column, product.groups = column, rows.groups
        column += outputs
    out = torch.empty(rows.count, column, dtype=torch.float32)
    residual = None if residual is None else residual.contiguous()
    address, sizes = ctypes.addressof(products), (rows.count, rows.groups, rows.columns, column)
    call("hga_packed_many", rows.values, rows.scales, address, residual, out, len(parts), *sizes)
    return out
