"""The VRAM tier: the pages of the layer in use, and a cache of pages for decoding."""

import math
from dataclasses import dataclass, replace

import torch

from hga_engine.config import ModelConfig, Routing
from hga_engine.errors import ContextFullError
from hga_engine.kv_store.mirror import Mirror
from hga_engine.kv_store.store import TierUsage
from hga_engine.kv_store.tiered import TieredKVStore
from hga_kernels import Window, forget_pages, prefetch_candidates
from hga_kernels.gpu import load_window


@dataclass(frozen=True)
class PageCache:
    """Pages on the device for decoding, and their page table.

    Each KV head of each layer has slots for the window (the sinks, and the open chunk as a ring)
    and for cached pages that queries selected, of which the least recently used (LRU) are evicted.
    The kernels that use the cache update it; the host decides nothing.
    """

    resident: torch.Tensor  # [layers, kv_heads, slots, 2, group_size, head_dim]
    table: torch.Tensor  # [layers, kv_heads, groups] int32: cached page of a group, -1 for none
    owner: torch.Tensor  # [layers, kv_heads, cached pages] int32: its group, -1 for none
    stamps: torch.Tensor  # [layers, kv_heads, cached pages] int32: step of last use
    counts: torch.Tensor  # [2] int64: hits and misses

    def bytes(self) -> int:
        """Bytes of the pages and the page table."""
        parts = (self.resident, self.table, self.owner, self.stamps, self.counts)
        return sum(part.numel() * part.element_size() for part in parts)


def window_of(router: Routing) -> Window:
    """Return the groups per KV head that are always on the device while decoding."""
    return Window(router.sink_tokens // router.group_size, router.group_size)


class DeviceKVStore:
    """`KVStore` on a GPU, over a host store in pinned memory that is the source of truth.

    Prefill: the layer in use has all its pages in one of two pools on the device, where
    slot = head * max_groups + group. Meanwhile the other pool receives the next layer's pages. New
    K/V is copied to the host when another layer is used. Copies have a stream of their own and
    overlap with computation.

    Decoding does not use the pools. It reads ``cache`` and, for pages that are not cached, pinned
    host memory, and writes each new token to both; ``advance`` counts the tokens.

    Eviction: only kernels evict, and only from ``cache``. Validity: pool and slots are valid until
    another layer is used. ``flush`` must be called before the host store is read.
    """

    def __init__(
        self,
        model: ModelConfig,
        router: Routing,
        host: TieredKVStore,
        dtype: torch.dtype,
        device: torch.device,
        cached_pages: int,
    ) -> None:
        """Make the tier over an empty or a filled host store.

        Args:
            model: geometry of the model.
            router: sizes of groups and windows.
            host: store that has every page in pinned memory.
            dtype: type of K/V.
            device: the GPU.
            cached_pages: slots per layer and KV head for selected pages.
        """
        self.host = host
        self._device = device
        self._layers = model.num_layers
        self._kv_heads = model.num_kv_heads
        self._router = router
        self._group_size = router.group_size
        self._context = host.context
        self._max_groups = -(-self._context // router.group_size)
        page = (2, router.group_size, model.head_dim)
        slots = self._kv_heads * self._max_groups
        self._pools = [torch.empty(slots, *page, dtype=dtype, device=device) for _ in range(2)]
        self._in_pool: list[int | None] = [None, None]
        """Layer whose pages each pool holds, complete up to that layer's length."""
        self._ready = [torch.cuda.Event() for _ in range(2)]
        """Recorded after the copies to each pool."""
        self._stream = torch.cuda.Stream(device)
        self._current: int | None = None
        """Pool of the layer in use."""
        self._flushed = [host.length(layer) for layer in range(self._layers)]
        """Tokens of each layer that are in the host store."""
        self._lengths = list(self._flushed)
        self._slot_start = (
            torch.arange(self._kv_heads, device=device, dtype=torch.int32)[:, None]
            * self._max_groups
        )
        nothing = torch.empty(0, dtype=torch.int32)
        self._last_fetched = (nothing, nothing)
        """Groups and their slots; every layer asks for those of the same window."""
        self.window = window_of(router)
        cache_slots = self.window.slots + cached_pages
        heads = (self._layers, self._kv_heads)

        def empty(*shape: int, fill: int) -> torch.Tensor:
            return torch.full((*heads, *shape), fill, dtype=torch.int32, device=device)

        self.cache = PageCache(
            resident=torch.empty(*heads, cache_slots, *page, dtype=dtype, device=device),
            table=empty(self._max_groups, fill=-1),
            owner=empty(cached_pages, fill=-1),
            stamps=empty(cached_pages, fill=-1),
            counts=torch.zeros(2, dtype=torch.int64, device=device),
        )
        self._counts = Mirror(self.cache.counts)
        self._is_open = False
        """Whether a layer is open, which prefill of a long text does layer by layer."""
        self._unfilled = set(range(self._layers))
        """Layers without cached pages, until the first token is decoded."""
        self._first_pages: tuple[torch.Tensor, torch.Tensor] | None = None
        """Groups and slots to fill them with, see ``prefetch_candidates``."""

    def open_layer(self, layer: int) -> None:
        """Copy all pages of ``layer`` to the device, then those of the next layer."""
        self._is_open = True
        self._enter(layer)

    def close_layer(self, layer: int) -> None:
        """Copy new pages of ``layer`` to the host."""
        self._is_open = False
        if self._current is not None and self._in_pool[self._current] == layer:
            self._copy_out(layer)

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Add tokens at the end of ``layer``.

        Args:
            layer: layer number.
            keys: [tokens, kv_heads, head_dim] on the device, after RoPE.
            values: [tokens, kv_heads, head_dim].

        Raises:
            ContextFullError: the layer would hold more than the context.
        """
        start, tokens = self._lengths[layer], keys.shape[0]
        if start + tokens > self._context:
            raise ContextFullError(tokens, start, self._context)
        pages = self._by_head(self._pools[self._enter(layer)])
        if layer in self._unfilled and not self._is_open:
            self._fill(layer, pages)
        size = self._group_size
        if start % size == 0 and tokens % size == 0:
            # Whole pages take one copy each.
            groups = slice(start // size, (start + tokens) // size)
            pages[:, groups, 0] = keys.unflatten(0, (-1, size)).permute(2, 0, 1, 3)
            pages[:, groups, 1] = values.unflatten(0, (-1, size)).permute(2, 0, 1, 3)
        else:
            positions = torch.arange(start, start + tokens, device=self._device)
            numbers, offsets = positions // size, positions % size
            pages[:, numbers, 0, offsets] = keys.transpose(0, 1).to(pages.dtype)
            pages[:, numbers, 1, offsets] = values.transpose(0, 1).to(pages.dtype)
        self._lengths[layer] = start + tokens

    def fetch(self, layer: int, groups: torch.Tensor, counted: bool = True) -> torch.Tensor:  # noqa: ARG002
        """Return slots of pages; all are in the pool, so hits and misses are not counted."""
        self._enter(layer)
        if groups is not self._last_fetched[0]:
            self._last_fetched = groups, groups + self._slot_start
        return self._last_fetched[1]

    def pool(self, layer: int) -> torch.Tensor:
        """Return the pages of ``layer``, [kv_heads * max_groups, 2, group_size, head_dim]."""
        return self._pools[self._enter(layer)]

    def keys(self, layer: int, start: int, end: int) -> torch.Tensor:
        """Return keys of a token range after RoPE, [kv_heads, end - start, head_dim]."""
        first, last = start // self._group_size, -(-end // self._group_size)
        found = self._by_head(self._pools[self._enter(layer)])[:, first:last, 0].flatten(1, 2)
        skipped = first * self._group_size
        return found[:, start - skipped : end - skipped]

    def length(self, layer: int) -> int:
        """Number of tokens that ``layer`` holds."""
        return self._lengths[layer]

    def truncate(self, tokens: int) -> None:
        """Drop everything from position ``tokens`` on in every layer."""
        self.flush()
        self.host.truncate(tokens)
        self._lengths = [min(length, tokens) for length in self._lengths]
        self._flushed = list(self._lengths)
        self._first_pages = None
        cache = self.cache
        # The page of a group that becomes open will change.
        forget_pages(cache.table, cache.owner, cache.stamps, tokens // self._group_size)

    def flush(self) -> None:
        """Copy everything to the host store, wait for it, and drop the pools' contents."""
        for layer in range(self._layers):
            self._copy_out(layer)
        self._stream.synchronize()
        self._in_pool = [None, None]
        self._current = None

    def take_host_lengths(self) -> None:
        """Take over the lengths of the host store after it was resumed."""
        self._lengths = [self.host.length(layer) for layer in range(self._layers)]
        self._flushed = list(self._lengths)
        self._in_pool, self._current = [None, None], None

    @property
    def host_pages(self) -> torch.Tensor:
        """All pages in pinned host memory, [layers, kv_heads * max_groups, 2, group_size, dim]."""
        assert self.host.pinned is not None
        return self.host.pinned

    def borrow(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        """Lend the memory of the page cache, which drops its contents.

        The memory may be used until the last layer of the prefill is closed.

        Args:
            shape: of a tensor.
            dtype: of the tensor.

        Returns:
            The tensor, or None if the page cache is too small.
        """
        memory = self.cache.resident.view(-1).view(torch.uint8)
        size = math.prod(shape) * dtype.itemsize
        if size > memory.numel():
            return None
        forget_pages(self.cache.table, self.cache.owner, self.cache.stamps, 0)
        self._unfilled, self._first_pages = set(range(self._layers)), None
        return memory[:size].view(dtype).view(shape)

    def prepare_decoding(self) -> None:
        """Copy the window to ``cache``."""
        self._unfilled.clear()
        self.flush()
        position = torch.tensor([self._lengths[0]], dtype=torch.int32, device=self._device)
        load_window(self.host_pages, self.cache.resident, position, self.window)

    def advance(self, tokens: int) -> None:
        """Count tokens that decoding wrote to host memory and ``cache``."""
        length = self._lengths[0] + tokens
        for layer in range(self._layers):
            self.host.grow(layer, length)
        self._lengths = [length] * self._layers
        self._flushed = list(self._lengths)
        self._in_pool, self._current = [None, None], None

    def usage(self) -> TierUsage:
        """Return the current bytes per tier; while decoding, hits and misses lag a little."""
        hits, misses = self._counts.latest().tolist()
        pools = sum(pool.numel() * pool.element_size() for pool in self._pools)
        return replace(
            self.host.usage(),
            device_bytes=pools + self.cache.bytes(),
            page_hits=hits,
            page_misses=misses,
        )

    def close(self) -> None:
        """Release memory. Closing twice is harmless."""
        self._stream.synchronize()
        self._pools.clear()
        nothing = torch.empty(0, device=self._device)
        self.cache = PageCache(nothing, nothing, nothing, nothing, nothing)
        self.host.close()

    def _by_head(self, pool: torch.Tensor) -> torch.Tensor:
        """Return a view of a pool as [kv_heads, max_groups, 2, group_size, head_dim]."""
        return pool.view(self._kv_heads, self._max_groups, *pool.shape[1:])

    def _enter(self, layer: int) -> int:
        """Make ``layer`` the one in use; return the number of its pool."""
        if self._current is not None and self._in_pool[self._current] == layer:
            return self._current
        if self._current is not None:
            used = self._in_pool[self._current]
            assert used is not None
            self._copy_out(used)
        if layer not in self._in_pool:
            self._copy_in(layer, 0 if self._current is None else 1 - self._current)
        number = self._in_pool.index(layer)
        torch.cuda.current_stream(self._device).wait_event(self._ready[number])
        self._current = number
        following = (layer + 1) % self._layers
        if following not in self._in_pool:
            self._copy_in(following, 1 - number)
        return number

    def _fill(self, layer: int, pages: torch.Tensor) -> None:
        """Fill the empty cache of ``layer`` with the pages that tokens are likely to select.

        The prefill of a question has the pages of one layer after another on the device. Without
        this the answer would fetch the same pages from the host one by one.

        Args:
            layer: layer number.
            pages: pages of the layer as ``_by_head`` returns them.
        """
        self._unfilled.discard(layer)
        router, cache, kv_heads = self._router, self.cache, self._kv_heads
        if router.kind != "hga":
            return
        if self._first_pages is None:
            first, end = router.routed_groups(self._lengths[layer])
            per_chunk = router.chunk_size // router.group_size
            self._first_pages = prefetch_candidates(
                self._layers * kv_heads, cache.owner.shape[2], first, end, per_chunk, self._device
            )
        groups, slots = self._first_pages
        groups = groups.view(self._layers, kv_heads, -1)[layer]
        for head in range(kv_heads):
            target = cache.resident[layer, head, self.window.slots :]
            target[slots] = pages[head, groups[head]]
        cache.owner[layer, :, slots] = groups.to(torch.int32)
        cache.table[layer].scatter_(1, groups, slots.to(torch.int32).expand(kv_heads, -1))

    def _copy_in(self, layer: int, number: int) -> None:
        """Copy the pages of ``layer`` to a pool after the queued work that may read the pool."""
        groups = -(-self._flushed[layer] // self._group_size)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            source, target = (
                self._by_head(self.host.pool(layer)),
                self._by_head(self._pools[number]),
            )
            for head in range(self._kv_heads if groups else 0):
                target[head, :groups].copy_(source[head, :groups], non_blocking=True)
            self._ready[number].record(self._stream)
        self._in_pool[number] = layer

    def _copy_out(self, layer: int) -> None:
        """Copy new pages of ``layer`` to the host after they are computed."""
        start, end = self._flushed[layer], self._lengths[layer]
        if start == end:
            return
        first, last = start // self._group_size, -(-end // self._group_size)
        self.host.grow(layer, end)
        number = self._in_pool.index(layer)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            source, target = (
                self._by_head(self._pools[number]),
                self._by_head(self.host.pool(layer)),
            )
            for head in range(self._kv_heads):
                target[head, first:last].copy_(source[head, first:last], non_blocking=True)
        self._flushed[layer] = end
