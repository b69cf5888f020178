"""The K/V store of host memory and disk: pages beyond the host budget are on disk."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from hga_engine.config import PAGES, CacheConfig, ModelConfig, Routing
from hga_engine.errors import ContextFullError, KVStoreError
from hga_engine.kv_store.disk import DiskTier, PageNumbers, PageSpace
from hga_engine.kv_store.residency import Residency
from hga_engine.kv_store.restore import Checksums, PageReader
from hga_engine.kv_store.store import TierUsage
from hga_kernels import empty_on_huge_pages, pin


class TieredKVStore:
    """`KVStore` of a host tier and, under a host budget, a disk tier.

    Copies: the host tier owns the resident copy of a page, the disk tier the copy on disk. A page
    of a closed group never changes, so it is written to disk once, when it is first evicted. Pages
    of the open group are always resident and never on disk.

    Eviction: `Residency` evicts pages when others are added or fetched. Each layer has an equal
    share of the budget, at least one page per KV head.

    Validity: slots and `pool` are valid until the next call that may move pages (`append`,
    `fetch`, `open_layer`, `close_layer`, `truncate`); with a budget this holds for calls on any
    layer, except for pages of the open layer. All calls come from one thread. After a
    `KVStoreError` the store is consistent: `append` has added nothing; `truncate` may have cut only
    some layers and must be called again.

    Without a budget pages never move: slot = head * max_groups + group, and fetching is
    arithmetic. The VRAM tier (`DeviceKVStore`) is built on such a store in pinned memory: it writes
    pages itself and reports their number with `grow`.
    """

    def __init__(
        self,
        model: ModelConfig,
        router: Routing,
        cache: CacheConfig,
        dtype: torch.dtype,
        is_pinned: bool = False,
    ) -> None:
        """Make an empty store.

        Args:
            model: geometry of the model.
            router: sizes of groups and sinks.
            cache: context, host budget and folder of the disk tier.
            dtype: type of K/V.
            is_pinned: whether to pin all pages, so that a GPU can read and write them in place;
                requires a store without a budget.

        Raises:
            MemoryError: the pages cannot be pinned.
            KVStoreError: the file of the disk tier cannot be created.
        """
        self._group_size = router.group_size
        self._sink_groups = router.sink_tokens // router.group_size
        self.context = cache.context
        self._kv_heads = model.num_kv_heads
        self._max_groups = -(-cache.context // router.group_size)
        space = self._space = PageSpace(model.num_layers, self._kv_heads, self._max_groups)
        page = torch.empty(2, router.group_size, model.head_dim, dtype=dtype)
        page_bytes = page.numel() * page.element_size()
        share = space.pages_per_layer
        if cache.host_budget_bytes is not None:
            requested = cache.host_budget_bytes // (model.num_layers * page_bytes)
            share = min(max(requested, self._kv_heads), share)
        path = None if cache.saved_dir is None else cache.saved_dir / PAGES
        self._disk: DiskTier | None = None
        if share < space.pages_per_layer or path is not None:
            self._disk = DiskTier(space, page_bytes, path)
            if path is None:
                self._disk.open()
        self.pinned: torch.Tensor | None = None
        """Pools of all layers, [layers, slots, 2, group_size, head_dim], if they are pinned."""
        if is_pinned:
            shape = (model.num_layers, space.pages_per_layer, *page.shape)
            self.pinned = empty_on_huge_pages(shape, dtype)
            pin(self.pinned, self)
        lengths = self._lengths = [0] * model.num_layers

        # A closure, not a method: no reference cycle may keep pinned memory alive.
        def open_pages(layer: int) -> PageNumbers:
            group, tokens = divmod(lengths[layer], router.group_size)
            return space.of_groups(group, group + (tokens > 0))

        self._open_pages = open_pages
        self._residency = Residency(space, page, share, self._disk, open_pages, self.pinned)
        self._layers = self._residency.layers
        self._head_start = np.arange(self._kv_heads)[:, None] * self._max_groups
        self._slot_start = torch.from_numpy(self._head_start).to(torch.int32)
        self._hits = 0
        self._misses = 0

    def open_layer(self, layer: int) -> None:
        """Make all pages of ``layer`` resident until ``close_layer``.

        Raises:
            RuntimeError: a layer is already open.
            KVStoreError: a page cannot be read back.
        """
        if self._residency.open is not None:
            raise RuntimeError(f"layer {self._residency.open} is open")
        groups = -(-self._lengths[layer] // self._group_size)
        self._residency.hold_all(layer, self._space.of_groups(0, groups))

    def close_layer(self, layer: int) -> None:
        """Move pages of ``layer`` beyond the budget to disk; sinks and the newest stay resident.

        Raises:
            RuntimeError: ``layer`` is not open.
            KVStoreError: the disk tier could not be written. The layer is closed, and its pages
                stay resident.
        """
        if self._residency.open != layer:
            raise RuntimeError(f"layer {layer} is not open")
        self._residency.let_go(layer, self._sink_groups)

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Add tokens at the end of ``layer``.

        Args:
            layer: layer number.
            keys: [tokens, kv_heads, head_dim], after RoPE.
            values: [tokens, kv_heads, head_dim].

        Raises:
            ContextFullError: the layer would hold more than the context.
            KVStoreError: the disk tier could not be written.
        """
        before, tokens = self._lengths[layer], keys.shape[0]
        if before + tokens > self.context:
            raise ContextFullError(tokens, before, self.context)
        group, place = divmod(before, self._group_size)
        if place and place + tokens <= self._group_size and not self.spills:
            # The fast path for most tokens of an answer: their page exists.
            self._layers[layer].write(group, place, keys[None], values[None])
            self._lengths[layer] += tokens
            return
        try:
            done = 0
            while done < tokens:
                done += self._append_part(layer, keys[done:], values[done:])
        except KVStoreError:
            self._cut(layer, before)
            raise

    def fetch(self, layer: int, groups: torch.Tensor, counted: bool = True) -> torch.Tensor:
        """Make pages resident and return their slots.

        A page that has to be read from disk counts as a miss, any other as a hit.

        Args:
            layer: layer number.
            groups: [..., kv_heads, n] int32 group numbers below the layer's length; -1 for none.
            counted: whether to count hits and misses.

        Returns:
            [..., kv_heads, n] int32 slots in ``pool(layer)``, -1 where ``groups`` is -1.

        Raises:
            IndexError: the layer does not hold a group; checked only with a budget.
            KVStoreError: a page is damaged, or the disk tier could not be read or written.
        """
        if not self._residency.moves(layer):
            empty = groups < 0
            if counted:
                self._hits += groups.numel() - int(torch.count_nonzero(empty))
            return torch.where(empty, groups, groups + self._slot_start)
        self._residency.return_to_share(unless=layer)
        resident = self._layers[layer]
        numbers = groups.numpy()
        pages = numbers + self._head_start
        requested = pages[numbers >= 0]
        missing = np.unique(requested[resident.table[requested] < 0])
        if len(missing):
            last_group = int((missing % self._max_groups).max())
            if last_group * self._group_size >= self._lengths[layer]:
                raise IndexError(f"layer {layer} holds no group {last_group}")
        self._residency.use(layer, requested, missing)
        if counted:
            self._misses += len(missing)
            self._hits += len(requested) - len(missing)
        slots = np.where(numbers < 0, -1, resident.table[pages])
        return torch.from_numpy(slots).to(torch.int32)

    def pool(self, layer: int) -> torch.Tensor:
        """Return the resident pages of ``layer``, [slots, 2, group_size, head_dim].

        Calls that move pages may replace the tensor: get it again after each ``fetch``.
        """
        return self._layers[layer].pool

    def keys(self, layer: int, start: int, end: int) -> torch.Tensor:
        """Return keys of a token range after RoPE, [kv_heads, end - start, head_dim].

        Pages on disk are read without becoming resident.

        Raises:
            IndexError: the layer does not hold the range.
            KVStoreError: a page is damaged or cannot be read.
        """
        if not 0 <= start <= end <= self._lengths[layer]:
            raise IndexError(f"layer {layer} holds no tokens {start} to {end}")
        first, last = start // self._group_size, -(-end // self._group_size)
        resident = self._layers[layer]
        if not self._residency.moves(layer):
            found = resident.keys(first, last)
        else:
            pool = resident.pool
            pages = self._space.of_groups(first, last)
            slots = resident.table[pages]
            found = pool.new_empty(len(pages), *pool.shape[2:])
            found[torch.from_numpy(slots >= 0)] = pool[torch.from_numpy(slots[slots >= 0]), 0]
            absent = np.flatnonzero(slots < 0)
            for part, contents in self._residency.read(layer, pages[absent]):
                found[torch.from_numpy(absent[part])] = contents[:, 0]
        found = found.reshape(self._kv_heads, -1, found.shape[-1])
        skipped = first * self._group_size
        return found[:, start - skipped : end - skipped]

    def length(self, layer: int) -> int:
        """Number of tokens that ``layer`` holds."""
        return self._lengths[layer]

    def truncate(self, tokens: int) -> None:
        """Drop everything from position ``tokens`` on in every layer.

        Raises:
            KVStoreError: the page of the group that becomes open cannot be read from disk; its
                layer then ends before that group.
        """
        if tokens < 0:
            raise ValueError("tokens must be 0 or more")
        for layer in range(len(self._layers)):
            self._cut(layer, tokens)

    def grow(self, layer: int, tokens: int) -> None:
        """Set the length of ``layer`` after tokens were written to its pool from outside.

        Requires a store without a budget, in which every page has a slot.

        Args:
            layer: layer number.
            tokens: new length of the layer.
        """
        size = self._group_size
        first, last = -(-self._lengths[layer] // size), -(-tokens // size)
        if first < last:
            self._layers[layer].take(self._space.of_groups(first, last))
        self._lengths[layer] = tokens

    def write_closed(self) -> None:
        """Write the pages of full groups that the disk tier does not hold; no page is evicted.

        Raises:
            KVStoreError: the disk is full or failed; the call can be repeated.
        """
        if self._disk is None:
            return
        self._disk.open()
        for layer, resident in enumerate(self._layers):
            pages = self._space.of_groups(0, self._lengths[layer] // self._group_size)
            self._residency.write(layer, pages[resident.table[pages] >= 0])
        self._disk.flush()

    def closed_checksums(self) -> Checksums:
        """Return the CRC-32 of all pages of full groups, [layers, kv_heads, groups].

        All of them must be on disk.
        """
        assert self._disk is not None
        pages = self._space.of_groups(0, self._lengths[0] // self._group_size)
        starts = np.arange(len(self._layers))[:, None] * self._space.pages_per_layer
        return self._disk.checksums(starts + pages).reshape(len(starts), self._kv_heads, -1)

    def open_pages(self) -> npt.NDArray[np.uint8]:
        """Return the pages of the open group, [layers, kv_heads, page bytes].

        The first dimension is 0 if every group is full.
        """
        pages = [
            resident.contents(self._open_pages(layer))
            for layer, resident in enumerate(self._layers)
            if self._lengths[layer] % self._group_size
        ]
        return np.array(pages, np.uint8).reshape(-1, self._kv_heads, self._residency.page_bytes)

    def resume(
        self, tokens: int, checksums: Checksums, open_pages: npt.NDArray[np.uint8]
    ) -> list[Callable[[], None]]:
        """Fill an empty store from a saved file.

        Args:
            tokens: length of every layer.
            checksums: [layers, kv_heads, groups] CRC-32 of the pages of full groups.
            open_pages: [layers, kv_heads, page bytes] pages of the open group.

        Returns:
            Tasks that read and check the pages. They may run on any threads, must end before K/V is
            used, and raise ``SavedStateError``.
        """
        assert self._disk is not None
        assert self._disk.path is not None
        closed, size = tokens // self._group_size, self._group_size
        for layer, resident in enumerate(self._layers):
            pages = self._space.of_groups(0, closed)
            first = layer * self._space.pages_per_layer
            self._disk.adopt(first + pages, checksums[layer].ravel())
            if not self.spills:
                resident.take(pages)
            self._lengths[layer] = tokens
            resident.take(self._open_pages(layer))
            if self.spills and tokens % size:
                contents = torch.from_numpy(open_pages[layer]).view(resident.pool.dtype)
                resident.copy_in(
                    self._open_pages(layer), contents.view(-1, *resident.pool.shape[1:])
                )
        pools = None if self.spills else [layer.bytes_by_head() for layer in self._layers]
        page_bytes = self._residency.page_bytes
        reader = PageReader(self._disk.path, self._space, page_bytes, checksums, pools)
        copies = zip(pools or (), open_pages, strict=False)  # none if no group is open
        tasks = [partial(np.copyto, pool[:, closed], pages) for pool, pages in copies]
        return [*tasks, *reader.tasks()]

    @property
    def spills(self) -> bool:
        """Whether a full session has pages beyond the host budget."""
        return self._residency.spills

    def usage(self) -> TierUsage:
        """Return the current bytes per tier; a page with copies in two tiers counts in both."""
        held = self._residency
        resident = sum(layer.num_resident for layer in self._layers) * held.page_bytes
        capacity = len(self._layers) * held.share * held.page_bytes
        return TierUsage(
            device_bytes=0,
            host_bytes=resident,
            host_capacity_bytes=capacity,
            disk_bytes=self._disk.bytes if self._disk else 0,
            disk_capacity_bytes=self._disk.capacity_bytes if self._disk else 0,
            page_hits=self._hits,
            page_misses=self._misses,
            page_bytes=held.page_bytes,
        )

    def close(self) -> None:
        """Release memory and files. Closing twice is harmless."""
        self._layers.clear()
        self._lengths.clear()
        if self._disk is not None:
            self._disk.close()

    def _append_part(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> int:
        """Append as many of the tokens as there are slots for; return their number."""
        size, length = self._group_size, self._lengths[layer]
        resident = self._layers[layer]
        if self._residency.open != layer:
            self._residency.return_to_share(unless=layer)
        first = length // size
        end = min(length + len(keys), (first + resident.slots // self._kv_heads) * size)
        self._residency.add(layer, self._space.of_groups(-(-length // size), -(-end // size)))

        # The rest of the open group, then full groups, then the start of a new one.
        bounds = sorted({length, min(-(-length // size) * size, end), end // size * size, end})
        for start, stop in pairwise(bounds):
            if start < length:
                continue
            shape = (-1, min(stop - start, size), *keys.shape[1:])
            span = slice(start - length, stop - length)
            resident.write(
                start // size, start % size, keys[span].view(shape), values[span].view(shape)
            )
        self._lengths[layer] = end
        return end - length

    def _cut(self, layer: int, tokens: int) -> None:
        """Drop the tokens from position ``tokens`` on in one layer."""
        length, size = self._lengths[layer], self._group_size
        if tokens >= length:
            return
        resident = self._layers[layer]
        self._residency.drop(layer, self._space.of_groups(-(-tokens // size), -(-length // size)))
        self._lengths[layer] = tokens // size * size
        if tokens % size and self._disk is not None:
            pages = self._space.of_groups(tokens // size, tokens // size + 1)
            missing = pages[resident.table[pages] < 0]
            try:
                self._residency.bring_in(layer, missing, keep=pages)
            except KVStoreError:
                self._residency.drop(layer, pages)
                raise
            self._residency.forget(layer, pages)
        self._lengths[layer] = tokens
