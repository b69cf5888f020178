"""The routing index: summaries and token codes of closed chunks, in one pass over their keys."""

import torch
import triton
import triton.language as tl

from hga_kernels.arguments import ChunkIndex, Window
from hga_kernels.gpu.build import Build, Launch, capability, pick
from hga_kernels.gpu.hadamard import load_quarters, signs, transform_quarters
from hga_kernels.gpu.launch import Kernel
from hga_kernels.reference.index import packing_of

INDEX_LAUNCHES = {90: Launch({}, warps=4), 120: Launch({}, warps=4)}
CLOSED_LAUNCHES = {90: Launch({}, warps=4), 120: Launch({}, warps=4)}

CANDIDATES = {"index_chunks": tuple(Launch({}, warps=warps) for warps in (2, 4, 8))}

_SMALLEST_DOT = 16


@triton.jit
def _index_chunk(
    a,
    b,
    c,
    d,
    cos,
    sin,
    summary,
    codes,
    scales,
    SIZE: tl.constexpr,
    QUARTER: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Index one chunk of keys, given in quarters [SIZE, WIDTH]; pointers are to its own entry."""
    tokens = tl.arange(0, SIZE)
    columns = tl.arange(0, WIDTH)
    inside = columns < QUARTER
    # RoPE pairs dimensions that are half the dimensions apart: quarter 0 with 2, and 1 with 3.
    angle = tokens[:, None] * (2 * QUARTER) + columns[None, :]
    cos_near = tl.load(cos + angle, inside[None, :], 0.0)
    sin_near = tl.load(sin + angle, inside[None, :], 0.0)
    cos_far = tl.load(cos + angle + QUARTER, inside[None, :], 0.0)
    sin_far = tl.load(sin + angle + QUARTER, inside[None, :], 0.0)
    wide_a, wide_b = a.to(tl.float32), b.to(tl.float32)
    wide_c, wide_d = c.to(tl.float32), d.to(tl.float32)
    mean_a = (tl.sum(wide_a * cos_near - wide_c * sin_near, 0) / SIZE).to(tl.bfloat16)
    mean_b = (tl.sum(wide_b * cos_far - wide_d * sin_far, 0) / SIZE).to(tl.bfloat16)
    mean_c = (tl.sum(wide_c * cos_near + wide_a * sin_near, 0) / SIZE).to(tl.bfloat16)
    mean_d = (tl.sum(wide_d * cos_far + wide_b * sin_far, 0) / SIZE).to(tl.bfloat16)
    tl.store(summary + columns, mean_a, inside)
    tl.store(summary + columns + QUARTER, mean_b, inside)
    tl.store(summary + columns + 2 * QUARTER, mean_c, inside)
    tl.store(summary + columns + 3 * QUARTER, mean_d, inside)

    # The transform is linear, and keys and centre are exact in bf16 while their difference is not:
    # so both are transformed and then subtracted.
    matrix = signs(QUARTER, WIDTH)
    a, b, c, d = transform_quarters(a, b, c, d, QUARTER, WIDTH, False)
    centre_a = tl.sum(mean_a.to(tl.float32)[:, None] * matrix, 0)
    centre_b = tl.sum(mean_b.to(tl.float32)[:, None] * matrix, 0)
    centre_c = tl.sum(mean_c.to(tl.float32)[:, None] * matrix, 0)
    centre_d = tl.sum(mean_d.to(tl.float32)[:, None] * matrix, 0)
    size: tl.constexpr = (4 * QUARTER) ** -0.5
    a -= (((centre_a + centre_b) + (centre_c + centre_d)) * size)[None, :]
    b -= (((centre_a - centre_b) + (centre_c - centre_d)) * size)[None, :]
    c -= (((centre_a + centre_b) - (centre_c + centre_d)) * size)[None, :]
    d -= (((centre_a - centre_b) - (centre_c - centre_d)) * size)[None, :]

    square = tl.sum(a * a + b * b + c * c + d * d, 1)
    spread = tl.maximum(tl.sqrt(square / (4 * QUARTER)), 1e-30)
    a, level_a = _levels(a, spread)
    b, level_b = _levels(b, spread)
    c, level_c = _levels(c, spread)
    d, level_d = _levels(d, spread)
    # A code stands for 0.5 or 1.5 steps from zero.
    product = tl.sum(tl.where(inside[None, :], a + b + c + d, 0.0), 1)
    steps = (level_a - 1.5) * (level_a - 1.5) + (level_b - 1.5) * (level_b - 1.5)
    steps += (level_c - 1.5) * (level_c - 1.5) + (level_d - 1.5) * (level_d - 1.5)
    steps = tl.sum(tl.where(inside[None, :], steps, 0.0), 1)
    tl.store(scales + tokens, (product / steps).to(tl.bfloat16))
    byte = level_a + 4 * level_b + 16 * level_c + 64 * level_d
    offsets = tokens[:, None] * QUARTER + columns[None, :]
    tl.store(codes + offsets, byte.to(tl.uint8), inside[None, :])


@triton.jit
def _levels(values, spread):
    """Return values times their quantisation steps, and their levels 0..3 as float32."""
    level = tl.floor(values / spread[:, None] + 2.0)
    level = tl.minimum(tl.maximum(level, 0.0), 3.0)
    return values * (level - 1.5), level


@Kernel
@triton.jit
def index_chunks_kernel(
    keys,
    cos,
    sin,
    summaries,
    codes,
    scales,
    key_stride,
    summary_stride,
    code_stride,
    scale_stride,
    SIZE: tl.constexpr,
    QUARTER: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One program per chunk and KV head; strides are from one KV head to the next."""
    chunk, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    tokens = tl.arange(0, SIZE)
    own = keys + head * key_stride + chunk * (SIZE * 4 * QUARTER)
    a, b, c, d = load_quarters(own, tokens, tokens >= 0, 4 * QUARTER, QUARTER, WIDTH)
    _index_chunk(
        a,
        b,
        c,
        d,
        cos,
        sin,
        summaries + head * summary_stride + chunk * (4 * QUARTER),
        codes + head * code_stride + chunk * (SIZE * QUARTER),
        scales + head * scale_stride + chunk * SIZE,
        SIZE,
        QUARTER,
        WIDTH,
    )


@Kernel
@triton.jit
def index_closed_chunk_kernel(
    position,
    resident,
    cos,
    sin,
    summaries,
    codes,
    scales,
    slots,
    chunks,
    sinks,
    SIZE: tl.constexpr,
    GROUP: tl.constexpr,
    QUARTER: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One program per layer and KV head."""
    here = tl.load(position)
    if (here > 0) & (here % SIZE == 0):
        pair = tl.program_id(0).to(tl.int64)
        chunk = here // SIZE - 1
        tokens = tl.arange(0, SIZE)
        group = chunk * (SIZE // GROUP) + tokens // GROUP
        slot = tl.where(group < sinks, group, sinks + group % (SIZE // GROUP))
        # A page is K of GROUP tokens, then V.
        rows = slot * (2 * GROUP) + tokens % GROUP
        own = resident + pair * slots * (2 * GROUP * 4 * QUARTER)
        a, b, c, d = load_quarters(own, rows, rows >= 0, 4 * QUARTER, QUARTER, WIDTH)
        entry = pair * chunks + chunk
        _index_chunk(
            a,
            b,
            c,
            d,
            cos,
            sin,
            summaries + entry * (4 * QUARTER),
            codes + entry * (SIZE * QUARTER),
            scales + entry * SIZE,
            SIZE,
            QUARTER,
            WIDTH,
        )


def _takes(keys: torch.Tensor, cos: torch.Tensor, summaries: torch.Tensor) -> bool:
    size, dim = cos.shape[0], keys.shape[-1]
    powers = not size & (size - 1) and not dim & (dim - 1)
    bf16 = keys.dtype == summaries.dtype == torch.bfloat16
    return powers and 16 <= size <= 128 and 16 <= dim <= 256 and bf16


def _sizes(dim: int) -> dict[str, int]:
    return {"QUARTER": dim // 4, "WIDTH": max(dim // 4, _SMALLEST_DOT)}


def index_chunks(
    keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, entries: ChunkIndex
) -> bool | None:
    """See ``reference.index_chunks``: one pass over the keys."""
    summaries, codes, scales = entries.summaries, entries.codes, entries.scales
    if packing_of(codes, scales) != "tokens" or not _takes(keys, cos, summaries):
        return None
    if cos.dtype != torch.float32:
        return None
    keys = keys.contiguous()
    kv_heads, chunks, dim = summaries.shape
    if chunks:
        index_chunks_kernel[(chunks, kv_heads)](
            keys,
            cos,
            sin,
            summaries,
            codes,
            scales,
            keys.stride(0),
            summaries.stride(0),
            codes.stride(0),
            scales.stride(0),
            SIZE=cos.shape[0],
            **_sizes(dim),
            **pick(INDEX_LAUNCHES, capability()).options(),
        )
    return True


def index_closed_chunk(
    position: torch.Tensor,
    resident: torch.Tensor,
    window: Window,
    cos: torch.Tensor,
    sin: torch.Tensor,
    index: ChunkIndex,
) -> None:
    """Index the chunk that ends right before ``position``, if one does, in every layer.

    Args:
        position: [1] int32 of the next token, whose K/V is not there yet.
        resident: [layers, kv_heads, slots, 2, group_size, head_dim] bf16.
        window: which slots of ``resident`` hold which groups.
        cos: [chunk_size, head_dim / 2] float32, as for ``reference.summarize``.
        sin: [chunk_size, head_dim / 2].
        index: of all layers; the entry of the chunk is written.

    Raises:
        ValueError: the kernel does not take these sizes.
    """
    layers, kv_heads, slots, _, group_size, dim = resident.shape
    if not _takes(resident, cos, index.summaries):
        raise ValueError("the index of closed chunks needs bf16 keys of 16 to 256 dimensions")
    index_closed_chunk_kernel[(layers * kv_heads,)](
        position,
        resident,
        cos,
        sin,
        index.summaries,
        index.codes,
        index.scales,
        slots,
        index.summaries.shape[2],
        window.sinks,
        SIZE=cos.shape[0],
        GROUP=group_size,
        **_sizes(dim),
        **pick(CLOSED_LAUNCHES, capability()).options(),
    )


_ENTRIES = {
    "cos": "*fp32",
    "sin": "*fp32",
    "summaries": "*bf16",
    "codes": "*u8",
    "scales": "*bf16",
}
_STRIDES = ("key_stride", "summary_stride", "code_stride", "scale_stride")


def _builds(dim: int, model: str) -> tuple[Build, ...]:
    sizes = {"SIZE": 64, **_sizes(dim)}
    return (
        Build(
            f"index_chunks {model}",
            index_chunks_kernel,
            {"keys": "*bf16", **_ENTRIES, **dict.fromkeys(_STRIDES, "i32")},
            INDEX_LAUNCHES,
            sizes,
        ),
        *(
            Build(
                f"index_closed_chunk {model} {group}",
                index_closed_chunk_kernel,
                {
                    "position": "*i32",
                    "resident": "*bf16",
                    **_ENTRIES,
                    **dict.fromkeys(("slots", "chunks", "sinks"), "i32"),
                },
                CLOSED_LAUNCHES,
                {**sizes, "GROUP": group},
            )
            for group in (16, 2)
        ),
    )


BUILDS = _builds(128, "qwen3-30b-a3b") + _builds(64, "smollm2-64k")
