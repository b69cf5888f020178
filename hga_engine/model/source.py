"""The interface of a checkpoint, and how its tensors become those of a decoder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from hga_engine.config import ModelConfig
from hga_engine.model.layout import Joined, Part, model_layout
from hga_engine.model.types import LayerWeights, ModelWeights


class TensorSource(Protocol):
    """Tensors of a model by their Hugging Face names, read one at a time."""

    @property
    def config(self) -> ModelConfig:
        """Geometry of the model."""

    def read(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Return a tensor of any floating-point type; it may share memory with the file.

        Raises:
            ModelFileError: the tensor is missing, damaged, of another shape or an unsupported type.
        """


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file holds it."""

    name: str
    """In the file. Experts that are stored as one tensor share it."""
    path: Path
    offset: int
    """Of the first byte in the file."""
    shape: tuple[int, ...]
    kind: torch.dtype | str
    """Its type, or the name of its block format in GGUF files."""
    interleaved: int = 0
    """Rows of a head whose halves the file interleaves row by row; 0 if they are in order."""


class StoredSource(TensorSource, Protocol):
    """Tensors that can also be read from their files as they are stored."""

    @property
    def is_packed(self) -> bool:
        """Whether weights are stored in block formats."""

    @property
    def fp8_block(self) -> tuple[int, int] | None:
        """Rows and columns of a block of FP8 weights with one scale; None without FP8 weights."""

    def stored(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """Locate a tensor, or the tensor of scales ``NAME_scale_inv`` of an FP8 weight.

        Raises:
            ModelFileError: the tensor is missing, of another shape or an unsupported type.
        """


def restore_halves(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Undo the row order that llama.cpp gives q and k of llama.

    llama.cpp's RoPE rotates neighbouring rows of a head together (0 with 1), Hugging Face's the two
    halves (0 with head_dim / 2), so the GGUF converter interleaves the halves.

    Args:
        rows: [rows, ...], in any format of whole rows.
        head_dim: rows of a head.

    Returns:
        [rows, ...] in new memory.
    """
    pairs: torch.Tensor = rows.unflatten(0, (-1, head_dim // 2, 2))
    return pairs.transpose(1, 2).flatten(0, 2)


def assemble(
    source: TensorSource,
    dtype: torch.dtype,
    progress: Callable[[str, float], None] | None = None,
) -> ModelWeights:
    """Read all weights into host memory, converting them one tensor at a time.

    Args:
        source: the checkpoint.
        dtype: type of the result.
        progress: called with the current step and its progress, 0 to 1.

    Raises:
        ModelFileError: a tensor is missing or damaged.
    """
    config = source.config
    layout = model_layout(config)
    reader = _Reader(source, dtype)
    embedding = reader(layout.embedding)
    layers = []
    for number, layer in enumerate(layout.layers, 1):
        layers.append(LayerWeights(**{name: reader(joined) for name, joined in layer.items()}))
        if progress is not None:
            progress("Loading weights", number / config.num_layers)
    final_norm = reader(layout.final_norm)
    lm_head = embedding if layout.lm_head is None else reader(layout.lm_head)
    return ModelWeights(config, embedding, tuple(layers), final_norm, lm_head)


class _Reader:
    def __init__(self, source: TensorSource, dtype: torch.dtype) -> None:
        self._source = source
        self._dtype = dtype

    def __call__(self, joined: Joined) -> torch.Tensor:
        """Return one of the decoder's tensors in new memory."""
        if joined.is_bias:
            return self._stack(joined.stacks[0], torch.float32)
        if not joined.has_experts:
            return self._stack(joined.stacks[0])
        whole = None
        for expert, parts in enumerate(joined.stacks):
            weight = self._stack(parts)
            if whole is None:
                whole = weight.new_empty(joined.shape)
            whole[expert] = weight
        assert whole is not None
        return whole

    def _stack(self, parts: tuple[Part, ...], dtype: torch.dtype | None = None) -> torch.Tensor:
        read, dtype = self._source.read, dtype or self._dtype
        tensors = [read(part.name, part.shape).to(dtype, copy=True) for part in parts]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
