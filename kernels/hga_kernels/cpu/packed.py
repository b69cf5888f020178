"""Products with packed weights in C: weights stay as they are in the file, rows are float32."""

import ctypes

import torch

from hga_kernels.cpu import packed_many
from hga_kernels.cpu.library import call, takes
from hga_kernels.weights import Packed, RowParts, Weight

_FEW_ROWS = 10
"""With more rows, unpacking weights to 16 bits for whole blocks of rows is faster."""
_MAX_EXPERT_ROWS, _MAX_PARTS = 16, 8
SUB_BLOCK = 32
"""Rows are quantised in blocks of so many values, and have whole ones."""

_FORMATS = {
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q5_0": 6,
    "Q5_1": 7,
    "Q8_0": 8,
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 12,
    "Q5_K": 13,
    "Q6_K": 14,
    "IQ4_NL": 20,
    "IQ4_XS": 23,
}
_DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30}
"""Numbers of formats and dtypes in GGUF files (``ggml_type`` of llama.cpp)."""


class Part(ctypes.Structure):
    """``RowPart`` of the library: a weight, or rows of one."""

    _fields_ = (("data", ctypes.c_void_p), ("type", ctypes.c_int32), ("rows", ctypes.c_int32))


def linear(
    inputs: torch.Tensor,
    weight: Weight,
    out_dtype: torch.dtype | None = None,
    residual: torch.Tensor | None = None,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    is_gated: bool = False,
) -> torch.Tensor | None:
    """Do as ``reference.linear`` for a packed weight; ``rms_norm`` or ``gated_silu`` may go first.

    Inputs are quantised to 16 bits: per 32 values if rows are few, else per 256.

    Args:
        inputs: [rows, in], or [rows, 2 * in] if they are gated; float32 or bfloat16.
        weight: [out, in].
        out_dtype: dtype of the result; None: that of ``inputs``.
        residual: [rows, out] in the dtype of the result.
        norm: [in] float32; None: no norm.
        eps: of the norm.
        is_gated: whether ``gated_silu`` goes first.

    Returns:
        [rows, out], or None for tensors it does not take.
    """
    parts, rows = parts_of(weight), inputs.shape[0]
    out_dtype = out_dtype or inputs.dtype
    size_out, size_in = weight.shape
    if parts is None or size_in % SUB_BLOCK or rows == 0:
        return None
    if {inputs.dtype, out_dtype} - {torch.float32, torch.bfloat16}:
        return None
    if not takes(inputs.dtype, inputs) or (norm is not None and not takes(torch.float32, norm)):
        return None
    if residual is not None and not takes(out_dtype, residual):
        return None
    if rows > _FEW_ROWS:
        added = None if residual is None else residual.float()
        many = packed_many.linear(inputs.float(), _listed(parts), added, norm, eps, is_gated)
        return many.to(out_dtype)
    out = torch.empty(rows, size_out, dtype=out_dtype)
    call(
        "hga_packed_rows",
        inputs.contiguous(),
        norm,
        ctypes.addressof(parts),
        None if residual is None else residual.contiguous(),
        out,
        rows,
        size_in,
        len(parts),
        size_out,
        int(inputs.dtype == torch.bfloat16),
        int(is_gated),
        int(out_dtype == torch.bfloat16),
        eps,
    )
    return out


def mlp(
    hidden: torch.Tensor, norm: torch.Tensor, eps: float, gate_up: Weight, down: Weight
) -> torch.Tensor | None:
    """Gate the rows while they are multiplied, which saves memory if they are many.

    Takes float32 alone, and no few rows.
    """
    if hidden.shape[0] <= _FEW_ROWS or packed_many.by_matrix_unit(hidden.shape[0]):
        return None
    gate_and_up, parts = parts_of(_halves(gate_up)), parts_of(down)
    if gate_and_up is None or parts is None:
        return None
    sizes = (*gate_up.shape, down.shape[1])
    if [part.rows * 2 for part in gate_and_up] != 2 * [sizes[0]]:
        return None
    if any(size % SUB_BLOCK for size in sizes[1:]) or not takes(torch.float32, hidden, norm):
        return None
    gate, up = _listed(gate_and_up)
    return packed_many.mlp(hidden, norm, eps, gate, up, _listed(parts))


def _halves(weight: Weight) -> Weight:
    """Return a weight as two parts, if it is one."""
    if not isinstance(weight, Packed):
        return weight
    halves = weight.data.chunk(2, -2)
    return RowParts(tuple(Packed(half, weight.format) for half in halves))


def _listed(parts: "ctypes.Array[Part] | list[Part]") -> list[packed_many.Part]:
    return [(part.data, part.type, part.rows) for part in parts]


def experts(
    hidden: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    chosen: torch.Tensor,
    shares: torch.Tensor,
    gate_up: Weight,
    down: Weight,
) -> torch.Tensor | None:
    """Return ``hidden`` plus the chosen experts' gated MLPs of its norm.

    Args:
        hidden: [rows, hidden] float32.
        norm: [hidden] float32.
        eps: of the norm.
        chosen: [rows, experts per row], an expert once per row at most.
        shares: [rows, experts per row] float32: what the experts' outputs are multiplied by.
        gate_up: [experts, 2 * width, hidden]: gate, then up.
        down: [experts, hidden, width].

    Returns:
        [rows, hidden], or None for tensors it does not take.
    """
    rows, size = hidden.shape
    number, _, width = down.shape
    gate_up_parts, down_parts = parts_of(gate_up), parts_of(down)
    if gate_up_parts is None or down_parts is None or rows == 0:
        return None
    if size % SUB_BLOCK or width % SUB_BLOCK or not takes(torch.float32, hidden, norm, shares):
        return None
    if packed_many.by_matrix_unit(rows * chosen.shape[1] // number):
        return None
    if rows > _MAX_EXPERT_ROWS:
        gates, downs = _stacks(gate_up), _stacks(down)
        if len(gates) == 1:
            address, kind, height, stride = gates[0]
            half = (address, kind, height // 2, stride)
            gates = [half, (address + stride // 2, *half[1:])]
        if len(gates) != 2 or gates[0][2] != gates[1][2] or len(downs) != 1:
            return None
        return packed_many.experts(hidden, norm, eps, chosen, shares, *gates, *downs)
    out = torch.empty(rows, size)
    call(
        "hga_packed_experts",
        hidden.contiguous(),
        norm,
        chosen.to(torch.int32).contiguous(),
        shares.contiguous(),
        ctypes.addressof(gate_up_parts),
        ctypes.addressof(down_parts),
        out,
        rows,
        size,
        width,
        number,
        chosen.shape[1],
        len(gate_up_parts),
        len(down_parts),
        eps,
    )
    return out


def _stacks(weight: Weight) -> list[packed_many.Stack]:
    """Describe the parts of weights that ``parts_of`` takes, stacked over experts."""
    parts = weight.parts if isinstance(weight, RowParts) else (weight,)
    tensors = [part if isinstance(part, torch.Tensor) else next(part.tensors) for part in parts]
    sizes = [tensor.stride(0) * tensor.element_size() for tensor in tensors]
    listed = _listed(parts_of(weight) or [])
    return [(*part, size) for part, size in zip(listed, sizes, strict=True)]


def parts_of(weight: Weight) -> "ctypes.Array[Part] | None":
    """Describe a weight for the library, or return None if it does not take it."""
    parts: tuple[Weight, ...] = weight.parts if isinstance(weight, RowParts) else (weight,)
    if len(parts) > _MAX_PARTS:
        return None
    described = (Part * len(parts))()
    for part, entry in zip(parts, described, strict=True):
        if isinstance(part, Packed):
            data, kind = part.data, _FORMATS[part.format]
        elif isinstance(part, torch.Tensor) and part.dtype in _DTYPES:
            data, kind = part, _DTYPES[part.dtype]
        else:
            return None
        if not data.is_cpu or not data.is_contiguous():
            return None
        entry.data, entry.type, entry.rows = data.data_ptr(), kind, data.shape[-2]
    return described
