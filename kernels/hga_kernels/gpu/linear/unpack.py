"""Packed weights to bf16, for products of many rows."""

import torch
import triton
import triton.language as tl

from hga_kernels.gguf_blocks import FORMATS
from hga_kernels.gpu.build import Build, Launch, capability, pick
from hga_kernels.gpu.launch import Kernel, cdiv
from hga_kernels.gpu.linear.packed import (
    bytes_of,
    load_units,
    parts_of,
    place_of,
    size_of,
    unit_of,
    unpack_part,
)
from hga_kernels.weights import Packed, RowParts

LAUNCHES = {90: Launch({"UNITS": 256}, 4), 120: Launch({"UNITS": 256}, 4)}
CANDIDATES = tuple(
    Launch({"UNITS": units}, warps) for units, warps in ((128, 4), (256, 4), (512, 4), (256, 8))
)


@triton.jit
def store_units(out_ptr, units, block, within, inside, PARTS: tl.constexpr, FORMAT: tl.constexpr):
    """Store unpacked units; ``out`` is where block 0 begins."""
    for part in tl.static_range(PARTS):
        values, scale, shift = unpack_part(units, within, part, FORMAT)
        even = tl.join(values[0], values[2])
        odd = tl.join(values[1], values[3])
        whole = tl.reshape(tl.join(even, odd), [even.shape[0], 16])
        whole = whole * scale[:, None] + shift[:, None]
        column = block * size_of(FORMAT) + place_of(within, part, FORMAT)
        target = out_ptr + column.to(tl.int64)[:, None] + tl.arange(0, 16)[None, :]
        tl.store(target, whole.to(out_ptr.dtype.element_ty), mask=inside[:, None])


@Kernel
@triton.jit
def unpack_kernel(
    w_ptr,  # [matrices] packed, in planes
    out_ptr,  # [matrices, BLOCKS * weights of a block]
    BLOCKS: tl.constexpr,
    STRIDE: tl.constexpr,
    FORMAT: tl.constexpr,
    UNITS: tl.constexpr,
):
    """Unpack UNITS units of a matrix; matrices of ``out`` are STRIDE apart."""
    matrix = tl.program_id(1).to(tl.int64)
    EACH: tl.constexpr = size_of(FORMAT) // unit_of(FORMAT)
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    block, within = unit // EACH, unit % EACH
    inside = block < BLOCKS
    w_ptr += matrix * (BLOCKS * bytes_of(FORMAT))
    units = load_units(w_ptr, block, within, inside, FORMAT, BLOCKS, True)
    out_ptr += matrix * STRIDE
    store_units(out_ptr, units, block, within, inside, parts_of(FORMAT), FORMAT)


def unpack(weight: Packed | RowParts, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return a planar weight [..., out, in] in bf16.

    Args:
        weight: of formats that the kernels take.
        out: memory for the result; None allocates it.
    """
    shape = weight.shape
    if out is None:
        device = next(weight.tensors).device
        out = torch.empty(shape, dtype=torch.bfloat16, device=device)
    first = 0
    for part in weight.parts if isinstance(weight, RowParts) else (weight,):
        assert isinstance(part, Packed)
        rows = part.shape[-2]
        _unpack_part(part, out[..., first : first + rows, :])
        first += rows
    return out


def _unpack_part(weight: Packed, out: torch.Tensor) -> None:
    block = FORMATS[weight.format]
    matrices = weight.data.flatten(0, -3) if weight.data.ndim > 2 else weight.data[None]
    blocks = matrices[0].numel() // block.bytes
    units = blocks * (block.size // unit_of(weight.format))
    launch = pick(LAUNCHES, capability(out.device))
    unpack_kernel[(cdiv(units, launch.sizes["UNITS"]), len(matrices))](
        weight.data,
        out,
        BLOCKS=blocks,
        STRIDE=out.stride(0) if out.ndim > 2 else 0,
        FORMAT=weight.format,
        **launch.options(),
    )


BUILDS = (
    *(
        Build(
            f"unpack_{name}",
            unpack_kernel,
            {"w_ptr": "*u8", "out_ptr": "*bf16"},
            LAUNCHES,
            {"BLOCKS": 2048 * 768 // 256, "STRIDE": 2048 * 768, "FORMAT": name},
        )
        for name in ("Q4_K", "Q6_K")
    ),
)
