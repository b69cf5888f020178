"""Where weights lie in memory."""

from dataclasses import fields, replace

import torch
from hga_kernels import empty_on_huge_pages

from hga_engine.model.types import LayerWeights, ModelWeights

_MOST_BYTES = 2 << 30
"""What is larger stays where it is: for a moment there are two copies."""
_ALIGNMENT = 64


def side_by_side(weights: ModelWeights) -> ModelWeights:
    """The same weights in one run of memory on huge pages, through which they are read faster.

    All of them are read for every token, and most tensors of a small model are smaller than a huge
    page each. Weights beyond 2 GiB or not on the CPU are left where they are.
    """
    if weights.bytes() > _MOST_BYTES or not weights.embedding.is_cpu:
        return weights
    moved = _Mover(
        weights.bytes() + _ALIGNMENT * (3 + len(weights.layers) * len(fields(LayerWeights)))
    )
    embedding = moved(weights.embedding)
    is_tied = weights.lm_head is weights.embedding
    return ModelWeights(
        config=weights.config,
        embedding=embedding,
        layers=tuple(
            replace(layer, **{name: moved(t) for name, t in vars(layer).items() if t is not None})
            for layer in weights.layers
        ),
        final_norm=moved(weights.final_norm),
        lm_head=embedding if is_tied else moved(weights.lm_head),
    )


class _Mover:
    """Copies tensors one behind the other."""

    def __init__(self, size: int) -> None:
        self._memory = empty_on_huge_pages((size,), torch.uint8)
        self._used = 0

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        size = tensor.numel() * tensor.element_size()
        place = self._memory[self._used : self._used + size]
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return place.view(tensor.dtype).view(tensor.shape).copy_(tensor)
