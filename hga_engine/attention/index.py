"""What the router scores queries against, kept for every layer of a session."""

from pathlib import Path

import torch
from hga_kernels import empty_on_huge_pages, encode_tokens, summarize
from safetensors import safe_open

from hga_engine.config import ModelConfig, RouterConfig
from hga_engine.kv_store import KVStore

SLOW_TURN_RADIANS = 0.5
"""A frequency pair that turns less than this over a run is averaged at the run's middle."""


def middle_turns(
    size: int, head_dim: int, rope_base: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turns that bring each key of a run to the run's middle position, for slow pairs only.

    Averaging raw keys and rotating the mean to the middle, as the paper does for slow pairs, is the
    mean of rotated keys that were each turned from their own position to the middle.

    Args:
        size: tokens of a run.
        head_dim: of the keys.
        rope_base: of the model.
        dtype: of the result.

    Returns:
        cos, sin: [size, head_dim / 2]; angle zero where (size - 1) * frequency > 0.5 rad.
    """
    frequencies = rope_base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    offsets = (size - 1) / 2 - torch.arange(size, dtype=torch.float64)
    slow = (size - 1) * frequencies <= SLOW_TURN_RADIANS
    angles = offsets[:, None] * torch.where(slow, frequencies, 0.0)
    return angles.cos().to(dtype), angles.sin().to(dtype)


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
        router: RouterConfig,
        context: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._router = router
        self._model = model
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        size, dim = router.chunk_size, model.head_dim
        self._chunk_turns = middle_turns(size, dim, model.rope_base, wide)
        self._group_turns = middle_turns(router.group_size, dim, model.rope_base, wide)
        self._closed = [0] * model.num_layers
        self.summaries: list[torch.Tensor] = []
        self.codes: list[torch.Tensor] = []
        self.scales: list[torch.Tensor] = []
        self.group_summaries: list[torch.Tensor] = []
        if router.router == "dense":
            return
        chunks = -(-context // size)
        groups = size // router.group_size
        heads = model.num_kv_heads

        def by_layer(entry: tuple[int, ...], dtype: torch.dtype) -> list[torch.Tensor]:
            shape = (model.num_layers, heads, chunks, *entry)
            if device.type == "cpu":
                return list(empty_on_huge_pages(shape, dtype).unbind())
            return list(torch.empty(shape, dtype=dtype, device=device).unbind())

        self.summaries = by_layer((dim,), dtype)
        if router.router == "paper":
            self.group_summaries = by_layer((groups, dim), dtype)
        else:
            self.codes = by_layer((groups, dim // 16, router.group_size, 4), torch.uint8)
            self.scales = by_layer((size,), torch.bfloat16)

    def extend(self, layer: int, store: KVStore) -> None:
        """Index the chunks of ``layer`` that ``store`` has closed since the last call."""
        size = self._router.chunk_size
        first, last = self._closed[layer], store.length(layer) // size
        if first == last or self._router.router == "dense":
            return
        keys = store.keys(layer, first * size, last * size)
        summaries = self.summaries[layer]
        summaries[:, first:last] = summarize(keys, *self._chunk_turns).to(summaries.dtype)
        if self._router.router == "paper":
            groups = summarize(keys, *self._group_turns).to(summaries.dtype)
            self.group_summaries[layer][:, first:last] = groups.unflatten(
                1, (last - first, size // self._router.group_size)
            )
        else:
            codes, scales = encode_tokens(keys, summaries[:, first:last], self._router.group_size)
            self.codes[layer][:, first:last] = codes
            self.scales[layer][:, first:last] = scales
        self._closed[layer] = last

    def truncate(self, tokens: int) -> None:
        """Forget chunks that are no longer whole."""
        whole = tokens // self._router.chunk_size
        self._closed = [min(closed, whole) for closed in self._closed]

    @property
    def closed(self) -> int:
        """Chunks that every layer has indexed."""
        return min(self._closed)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The entries of the chunks that every layer has indexed, by layer and array."""
        return {
            f"{layer}.{name}": array[:, : self.closed].contiguous()
            for name, arrays in self._arrays().items()
            for layer, array in enumerate(arrays)
        }

    def resume(self, chunks: int) -> None:
        """Count the first chunks of every layer as indexed; ``load`` brings their entries."""
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

    def _arrays(self) -> dict[str, list[torch.Tensor]]:
        return {
            "summaries": self.summaries,
            "codes": self.codes,
            "scales": self.scales,
            "group_summaries": self.group_summaries,
        }

    def bytes(self) -> int:
        """Memory of the entries in use."""
        total = 0
        for layer, closed in enumerate(self._closed):
            for arrays in self._arrays().values():
                if arrays:
                    entry = arrays[layer][:, 0]
                    total += closed * entry.numel() * entry.element_size()
        return total
