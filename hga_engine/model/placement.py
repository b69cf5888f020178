"""Place weights in memory."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from hga_engine.config import ModelConfig
from hga_engine.model.layout import Joined, model_layout
from hga_engine.model.types import LayerWeights, ModelWeights, map_tensors, tensors_of
from hga_kernels import FORMATS, FP8_BLOCK, BlockScaled, Packed, RowParts, empty_on_huge_pages, pin

_MOST_BYTES = 2 << 30
"""Larger weights in host memory are not moved, because moving takes a second copy for a moment."""
_ALIGNMENT = 256
_CACHE_LINE = 64
_CPU = torch.device("cpu")


def side_by_side(weights: ModelWeights, device: torch.device = _CPU) -> ModelWeights:
    """Move weights to one contiguous run of memory, on a GPU or on huge pages of the host.

    Every token reads all of them, and most tensors of a small model are smaller than a huge page.
    In host memory, weights larger than 2 GiB or already contiguous stay where they are.

    Args:
        weights: weights in host memory.
        device: device of the result.
    """
    if device == _CPU and (weights.bytes() > _MOST_BYTES or _is_in_one_run(weights)):
        return weights
    return _placed(weights, device, lambda place, weight: place.copy_(weight))


def planned_weights(config: ModelConfig, weight: Callable[[Joined], Any]) -> ModelWeights:
    """Return weights without memory, on torch's meta device.

    Args:
        config: geometry of the model.
        weight: makes each weight, with ``planned`` or ``planned_fp8``.
    """
    layout = model_layout(config)
    embedding = weight(layout.embedding)
    return ModelWeights(
        config,
        embedding,
        tuple(
            LayerWeights(**{name: weight(joined) for name, joined in layer.items()})
            for layer in layout.layers
        ),
        weight(layout.final_norm),
        embedding if layout.lm_head is None else weight(layout.lm_head),
    )


def planned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def planned_fp8(shape: tuple[int, ...]) -> BlockScaled:
    """Return an FP8 weight [..., out, in] without memory."""
    *experts, rows, columns = shape
    blocks = (*experts, -(-rows // FP8_BLOCK), -(-columns // FP8_BLOCK))
    return BlockScaled(planned(shape, torch.float8_e4m3fn), planned(blocks, torch.float32))


def planned_packed(shape: tuple[int, ...], name: str) -> Packed:
    """Return a packed weight [..., out, in] in a block format, without memory."""
    block = FORMATS[name]
    size = shape[-1] // block.size * block.bytes
    return Packed(planned((*shape[:-1], size), torch.uint8), name)


def allocate(weights: ModelWeights, device: torch.device) -> ModelWeights:
    """Give planned weights memory, uninitialised and in one contiguous run."""
    return _placed(weights, device, lambda place, _: place)


def bytes_by_place(weights: ModelWeights, device: torch.device) -> tuple[int, int]:
    """Return the bytes that weights will take on a GPU and in host memory.

    Args:
        weights: planned.
        device: where they are to compute; on a GPU, an untied embedding stays in host memory.
    """
    run = _run_bytes(weights, device)
    if device == _CPU:
        return 0, run
    is_tied = weights.lm_head is weights.embedding
    return run, 0 if is_tied else sum(table.nbytes for table in tensors_of(weights.embedding))


def arranged(weights: ModelWeights) -> ModelWeights:
    """Put packed weights on a GPU into planes, as its kernels want them, in their own memory."""
    if weights.device == _CPU:
        return weights

    def planar(weight: Any) -> Any:
        if isinstance(weight, RowParts):
            return RowParts(tuple(planar(part) for part in weight.parts))
        is_blocks = isinstance(weight, Packed) and not weight.data.is_cpu
        return weight.planar() if is_blocks else weight

    embedding = planar(weights.embedding)
    is_tied = weights.lm_head is weights.embedding
    layers = tuple(
        LayerWeights(**{name: planar(weight) for name, weight in vars(layer).items()})
        for layer in weights.layers
    )
    found = replace(
        weights,
        embedding=embedding,
        layers=layers,
        lm_head=embedding if is_tied else planar(weights.lm_head),
    )
    # The copies that were made in between.
    torch.cuda.empty_cache()
    return found


def lock_embedding(weights: ModelWeights) -> ModelWeights:
    """Pin an embedding in host memory so that the GPU of the other weights can read it.

    Raises:
        MemoryError: the system or the driver refuses.
    """
    for table in tensors_of(weights.embedding):
        if table.is_cpu and weights.final_norm.is_cuda:
            pin(table, weights)
    return weights


def _placed(
    weights: ModelWeights,
    device: torch.device,
    fill: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> ModelWeights:
    """Allocate a place for each tensor and fill it; the embedding may stay in host memory."""
    is_tied = weights.lm_head is weights.embedding
    stays = device != _CPU and not is_tied
    run = _Run(_run_bytes(weights, device), device)

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return fill(run.place(tensor.shape, tensor.dtype), tensor)

    def stayed(tensor: torch.Tensor) -> torch.Tensor:
        return fill(empty_on_huge_pages(tensor.shape, tensor.dtype), tensor)

    embedding = map_tensors(weights.embedding, stayed if stays else moved)
    layers = (
        {
            name: map_tensors(weight, moved)
            for name, weight in vars(layer).items()
            if weight is not None
        }
        for layer in weights.layers
    )
    return ModelWeights(
        config=weights.config,
        embedding=embedding,
        layers=tuple(LayerWeights(**layer) for layer in layers),
        final_norm=moved(weights.final_norm),
        lm_head=embedding if is_tied else map_tensors(weights.lm_head, moved),
    )


def _run_bytes(weights: ModelWeights, device: torch.device) -> int:
    """Return the bytes of the run of memory that weights take, without an embedding that stays."""
    stays = device != _CPU and weights.lm_head is not weights.embedding
    kept = {id(table) for table in tensors_of(weights.embedding)} if stays else set()
    return sum(_aligned(tensor.nbytes) for tensor in weights.tensors() if id(tensor) not in kept)


def _is_in_one_run(weights: ModelWeights) -> bool:
    tensors = [*weights.tensors()]
    runs = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    return len(runs) == 1 and all(tensor.data_ptr() % _CACHE_LINE == 0 for tensor in tensors)


class _Run:
    """One contiguous run of memory, handed out piece by piece."""

    def __init__(self, size: int, device: torch.device) -> None:
        if device == _CPU:
            self._memory = empty_on_huge_pages((size,), torch.uint8)
        else:
            self._memory = torch.empty(size, dtype=torch.uint8, device=device)
        self._used = 0

    def place(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        size = math.prod(shape) * dtype.itemsize
        place = self._memory[self._used : self._used + size]
        self._used += _aligned(size)
        return place.view(dtype).view(shape)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
