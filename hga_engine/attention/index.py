"""The index that the router scores queries against, for every layer of a session."""

from pathlib import Path

import torch
from safetensors import safe_open

from hga_engine.config import ModelConfig, Routing
from hga_engine.kv_store.store import KVStore
from hga_engine.memory.probes import is_gpu
from hga_engine.model.rope import frequencies
from hga_kernels import (
    ChunkIndex,
    Packing,
    code_shape,
    empty_on_huge_pages,
    index_chunks,
    summarize,
)

SLOW_ROTATION_RADIANS = 0.5
"""A frequency pair that rotates less than this over a run is averaged at the run's middle."""


def middle_rotations(
    size: int, frequencies: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations that bring each key of a run to the run's middle position, for slow pairs only.

    Averaging raw keys and rotating the mean to the middle, as the paper does for slow pairs, is the
    mean of rotated keys that were each rotated from their own position to the middle.

    Args:
        size: tokens of a run.
        frequencies: [head_dim / 2] float64, of RoPE.
        dtype: of the result.

    Returns:
        cos, sin: [size, head_dim / 2]; angle zero where (size - 1) * frequency > 0.5 rad.
    """
    offsets = (size - 1) / 2 - torch.arange(size, dtype=torch.float64)
    slow = (size - 1) * frequencies <= SLOW_ROTATION_RADIANS
    angles = offsets[:, None] * torch.where(slow, frequencies, 0.0)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def packing_for(device: torch.device) -> Packing:
    """How token codes are packed where they are read on ``device``."""
    return "tokens" if is_gpu(device) else "slabs"


class RoutingIndex:
    """Chunk summaries and, depending on the router, token codes or group summaries.

    Only closed chunks are indexed, so an entry never changes. Of chunk ``c`` of layer ``l``:

    - ``summaries[l][:, c]``: [kv_heads, head_dim], the chunk's mixed-RoPE mean;
    - ``codes[l][:, c]``, ``scales[l][:, c]``: the 2-bit token index (router ``hga``);
    - ``group_summaries[l][:, c]``: [kv_heads, groups, head_dim] (router ``paper``).
    """

    def __init__(
        self,
        model: ModelConfig,
        routing: Routing,
        context: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Make an index without entries.

        Args:
            model: geometry of the model.
            routing: what is indexed.
            context: tokens a session can hold.
            dtype: of the summaries.
            device: where the index is stored and scored.
        """
        self._routing = routing
        self._model = model
        self._device = device
        self.packing: Packing = packing_for(device)
        """How token codes are packed."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        size, dim = routing.chunk_size, model.head_dim
        self._chunk_rotations = self._rotations(size, wide)
        self._group_rotations = self._rotations(routing.paper_group_size, wide)
        self._closed = [0] * model.num_layers
        self._stacked: ChunkIndex | None = None
        self.summaries: list[torch.Tensor] = []
        self.codes: list[torch.Tensor] = []
        self.scales: list[torch.Tensor] = []
        self.group_summaries: list[torch.Tensor] = []
        if routing.kind == "dense":
            return
        chunks = -(-context // size)
        groups = size // routing.paper_group_size
        heads = model.num_kv_heads

        def whole(entry: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
            shape = (model.num_layers, heads, chunks, *entry)
            if device.type == "cpu":
                return empty_on_huge_pages(shape, dtype)
            return torch.empty(shape, dtype=dtype, device=device)

        summaries = whole((dim,), dtype)
        self.summaries = list(summaries.unbind())
        if routing.kind == "paper":
            self.group_summaries = list(whole((groups, dim), dtype).unbind())
            return
        codes = whole(code_shape(size, dim, self.packing), torch.uint8)
        scales = whole((size,), torch.bfloat16)
        self.codes, self.scales = list(codes.unbind()), list(scales.unbind())
        self._stacked = ChunkIndex(summaries, codes, scales)

    def extend(self, layer: int, store: KVStore) -> None:
        """Index the chunks of ``layer`` that ``store`` has closed since the last call."""
        size = self._routing.chunk_size
        first, last = self._closed[layer], store.length(layer) // size
        if first == last or self._routing.kind == "dense":
            return
        # A session that is resumed is indexed from the host's pages.
        keys = store.keys(layer, first * size, last * size).to(self._device)
        summaries = self.summaries[layer][:, first:last]
        if self._routing.kind == "paper":
            summaries.copy_(summarize(keys, *self._chunk_rotations))
            groups = summarize(keys, *self._group_rotations)
            self.group_summaries[layer][:, first:last] = groups.unflatten(
                1, (last - first, size // self._routing.paper_group_size)
            )
        else:
            codes, scales = self.codes[layer][:, first:last], self.scales[layer][:, first:last]
            index_chunks(keys, *self._chunk_rotations, ChunkIndex(summaries, codes, scales))
        self._closed[layer] = last

    def layer(self, layer: int) -> ChunkIndex:
        """Return the entries of one layer (router ``hga``)."""
        return ChunkIndex(self.summaries[layer], self.codes[layer], self.scales[layer])

    @property
    def stacked(self) -> ChunkIndex:
        """Entries of all layers, each tensor [layers, kv_heads, chunks, ...] (router ``hga``)."""
        assert self._stacked is not None
        return self._stacked

    @property
    def middle_rotations(self) -> tuple[torch.Tensor, torch.Tensor]:
        """cos, sin [chunk_size, head_dim / 2] of ``middle_rotations`` for a chunk."""
        return self._chunk_rotations

    def truncate(self, tokens: int) -> None:
        """Forget chunks that are no longer whole."""
        whole = tokens // self._routing.chunk_size
        self._closed = [min(closed, whole) for closed in self._closed]

    @property
    def closed(self) -> int:
        """Chunks that every layer has indexed."""
        return min(self._closed)

    def tensors(self) -> dict[str, torch.Tensor]:
        """On the CPU, what is indexed of the chunks that every layer has, by layer and array."""
        return {
            f"{layer}.{name}": array[:, : self.closed].contiguous().cpu()
            for name, arrays in self._arrays().items()
            for layer, array in enumerate(arrays)
        }

    def count(self, chunks: int) -> None:
        """Count the first chunks of every layer as indexed; something else writes their entries."""
        self._closed = [chunks] * self._model.num_layers

    def load(self, path: Path, chunks: int) -> None:
        """Read entries that ``tensors`` gave.

        Args:
            path: safetensors file that holds them.
            chunks: how many chunks of them.

        Raises:
            OSError, SafetensorError, KeyError: the file is not what was saved.
            RuntimeError: it is of another geometry.
        """
        with safe_open(path, framework="pt") as file:
            for name, arrays in self._arrays().items():
                for layer, array in enumerate(arrays):
                    array[:, :chunks] = file.get_slice(f"{layer}.{name}")[:, :chunks]

    def _rotations(self, size: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = middle_rotations(size, frequencies(self._model), dtype)
        return cos.to(self._device), sin.to(self._device)

    def _arrays(self) -> dict[str, list[torch.Tensor]]:
        return {
            "summaries": self.summaries,
            "codes": self.codes,
            "scales": self.scales,
            "group_summaries": self.group_summaries,
        }

    def close(self) -> None:
        """Give memory back. The index cannot be used afterwards."""
        for arrays in self._arrays().values():
            arrays.clear()
        self._stacked = None

    def bytes(self) -> int:
        """Memory of the entries in use."""
        total = 0
        for layer, closed in enumerate(self._closed):
            for arrays in self._arrays().values():
                if arrays:
                    entry = arrays[layer][:, 0]
                    total += closed * entry.numel() * entry.element_size()
        return total
