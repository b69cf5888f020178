"""Decide which pages are resident, within each layer's share of the host budget."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from hga_engine.errors import KVStoreError
from hga_engine.kv_store.disk import DiskTier, PageNumbers, PageSpace, runs
from hga_engine.kv_store.host import HostPages

_BATCH_BYTES = 8 << 20
"""Pages move to and from disk in batches of this size."""


class Residency:
    """Moves pages between the host tier and the disk tier, least recently used (LRU) first.

    Each layer has an equal share of the budget. A page that comes in takes the slot of the LRU
    page; the pages of an open group are never evicted. Two exceptions, each for one layer at a
    time, exceed the share: an open layer holds all its pages, and a layer that needs more pages at
    once than its share gets them until another layer is used. This class knows pages, not tokens.
    """

    open: int | None
    """The layer whose pages are all resident, or None."""

    def __init__(
        self,
        space: PageSpace,
        page: torch.Tensor,
        share: int,
        disk: DiskTier | None,
        open_pages: Callable[[int], PageNumbers],
        pools: torch.Tensor | None = None,
    ) -> None:
        """Make empty layers.

        Args:
            space: numbering of the pages.
            page: [2, group_size, head_dim]: shape and type of a page.
            share: number of pages of a layer that may be resident.
            disk: tier of pages beyond the share; None only if the share is all pages.
            open_pages: returns the pages of a layer's group that is not full.
            pools: [layers, slots, 2, group_size, head_dim] memory to use; None allocates it.
        """
        self.share = share
        self.spills = share < space.pages_per_layer
        self.page_bytes = page.numel() * page.element_size()
        self.layers = [
            HostPages(
                space.kv_heads,
                space.max_groups,
                page,
                share,
                None if pools is None else pools[layer],
            )
            for layer in range(space.num_layers)
        ]
        self.open = None
        self._disk = disk
        self._space = space
        self._open_pages = open_pages
        # [layer, page]: clock of the last use. Empty if no page ever spills.
        self._last_used = np.zeros(
            (space.num_layers if self.spills else 0, space.pages_per_layer), dtype=np.int64
        )
        self._clock = 1
        self._over_share: set[int] = set()

    def moves(self, layer: int) -> bool:
        """Whether pages of ``layer`` may be on disk only."""
        return self.spills and self.open != layer

    def hold_all(self, layer: int, pages: PageNumbers) -> None:
        """Open a layer and make all its ``pages`` resident.

        Raises:
            KVStoreError: a page cannot be read back.
        """
        if self.spills:
            self._exceed_share(layer)
            self.bring_in(layer, pages[self.layers[layer].table[pages] < 0])
        self.open = layer

    def let_go(self, layer: int, sink_groups: int) -> None:
        """Close a layer; of its pages the sinks and the newest groups stay resident.

        Raises:
            KVStoreError: the disk tier could not be written; all pages stay resident.
        """
        self.open = None
        if self.spills:
            groups = self._space.max_groups
            order = self._clock + np.arange(groups)
            order[:sink_groups] = self._clock + groups
            self._last_used[layer] = np.tile(order, self._space.kv_heads)
            self._clock += groups + 1
            self.return_to_share()

    def add(self, layer: int, pages: PageNumbers) -> None:
        """Assign slots to new pages.

        Raises:
            KVStoreError: the disk tier could not be written.
        """
        self._make_room(layer, len(pages))
        self.layers[layer].take(pages)
        self._touch(layer, pages)

    def use(self, layer: int, pages: PageNumbers, missing: PageNumbers) -> None:
        """Make ``pages`` resident, reading ``missing`` from disk, and record their use.

        Raises:
            KVStoreError: a page is damaged, or the disk tier could not be read or written.
        """
        if len(missing):
            self.bring_in(layer, missing, keep=pages)
        self._touch(layer, pages)

    def bring_in(self, layer: int, pages: PageNumbers, keep: PageNumbers | None = None) -> None:
        """Read pages from disk into slots; pages in ``keep`` are not evicted for them."""
        resident = self.layers[layer]
        self._make_room(layer, len(pages), keep)
        resident.take(pages)
        try:
            for part, contents in self.read(layer, pages):
                resident.copy_in(pages[part], contents)
        except KVStoreError:
            resident.release(pages)
            raise

    def read(self, layer: int, pages: PageNumbers) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield a slice of ``pages`` and its contents [n, 2, group_size, head_dim] from disk."""
        pool = self.layers[layer].pool
        for part in self._batches(len(pages)):
            chosen = layer * self._space.pages_per_layer + pages[part]
            contents = torch.empty(len(chosen), *pool.shape[1:], dtype=pool.dtype)
            if self._disk is not None:
                self._disk.read(chosen, contents.flatten(1).view(torch.uint8).numpy())
            yield part, contents

    def write(self, layer: int, pages: PageNumbers) -> None:
        """Write those of ``pages``, all resident, that the disk does not hold yet."""
        if self._disk is None:
            return
        first = layer * self._space.pages_per_layer
        unsaved = self._disk.unsaved(first + pages) - first
        resident = self.layers[layer]
        # Runs of a whole pool are written in place; other pages are gathered into batches.
        parts = runs(unsaved) if resident.is_whole else self._batches(len(unsaved))
        for part in parts:
            chosen = unsaved[part]
            self._disk.write(first + chosen, resident.contents(chosen))

    def forget(self, layer: int, pages: PageNumbers) -> None:
        """Invalidate the copies of pages on disk."""
        if self._disk is not None:
            self._disk.forget(layer * self._space.pages_per_layer + pages)

    def drop(self, layer: int, pages: PageNumbers) -> None:
        """Remove pages from both tiers."""
        self.layers[layer].release(pages)
        self.forget(layer, pages)

    def return_to_share(self, unless: int | None = None) -> None:
        """Shrink layers that exceed their share, except the open one and ``unless``.

        Raises:
            KVStoreError: the disk tier could not be written; the pages stay resident.
        """
        for layer in self._over_share - {unless, self.open}:
            resident = self.layers[layer]
            excess = resident.num_resident - self.share
            if excess > 0:
                self._spill(layer, self._least_recent(layer, excess, None))
            resident.resize(self.share)
            self._over_share.remove(layer)

    def _touch(self, layer: int, pages: PageNumbers) -> None:
        if self.spills:
            self._last_used[layer, pages] = self._clock
            self._clock += 1

    def _batches(self, num_pages: int) -> Iterator[slice]:
        step = max(_BATCH_BYTES // self.page_bytes, 1)
        for start in range(0, num_pages, step):
            yield slice(start, start + step)

    def _make_room(self, layer: int, pages: int, keep: PageNumbers | None = None) -> None:
        """Free slots for ``pages`` more pages without evicting those in ``keep``."""
        resident = self.layers[layer]
        excess = resident.num_resident + pages - resident.slots
        if excess <= 0:
            return
        victims = self._least_recent(layer, excess, keep)
        if len(victims) < excess:
            self._exceed_share(layer)
        else:
            self._spill(layer, victims)

    def _least_recent(self, layer: int, count: int, keep: PageNumbers | None) -> PageNumbers:
        """Return up to ``count`` LRU pages among the resident pages that may be evicted."""
        evictable = self.layers[layer].table >= 0
        evictable[self._open_pages(layer)] = False
        if keep is not None:
            evictable[keep] = False
        candidates = np.flatnonzero(evictable)
        if count >= len(candidates):
            return candidates
        order = np.argpartition(self._last_used[layer, candidates], count - 1)
        return np.sort(candidates[order[:count]])

    def _spill(self, layer: int, pages: PageNumbers) -> None:
        """Evict pages, after writing those that the disk does not hold yet."""
        self.write(layer, pages)
        self.layers[layer].release(pages)

    def _exceed_share(self, layer: int) -> None:
        """Give ``layer`` a slot for every page, and shrink the layer that had them before."""
        self.return_to_share(unless=layer)
        if not self.layers[layer].is_whole:
            self.layers[layer].resize(self._space.pages_per_layer)
        self._over_share.add(layer)
