"""Which pages are resident: each layer's share of the host budget, and what leaves for the disk."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from hga_engine.errors import KVStoreError
from hga_engine.kv_store.disk import DiskTier, PageNumbers, PageSpace, runs
from hga_engine.kv_store.host import HostPages

_BATCH_BYTES = 8 << 20
"""Pages move to and from disk in portions of this size."""


class Residency:
    """Moves pages between the host tier and the disk tier, and decides which ones.

    Each layer has an equal share of the budget. A page that has to come in takes the place of the
    one used least recently; the pages of an open group never leave. Two things go beyond the share,
    each for one layer at a time: an open layer holds all its pages, and a layer that needs more
    pages at once than its share gets them, until another layer is used. It knows pages, not tokens.
    """

    open: int | None
    """The layer all of whose pages are kept."""

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
            page: [2, group_size, head_dim]: shape, type and device of a page.
            share: pages of a layer that may be resident.
            disk: where pages beyond the share are; there is one if the share is not all of them.
            open_pages: of a layer, the pages of the group that is not full.
            pools: [layers, slots, 2, group_size, head_dim]: memory to use; None: memory of its own.
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
        # Larger is later. Indexed by layer and page; kept only where pages spill.
        self._last_used = np.zeros(
            (space.num_layers if self.spills else 0, space.pages_per_layer), dtype=np.int64
        )
        self._clock = 1
        self._over_share: set[int] = set()

    def moves(self, layer: int) -> bool:
        """Whether pages of ``layer`` may be elsewhere than in host memory."""
        return self.spills and self.open != layer

    def hold_all(self, layer: int, pages: PageNumbers) -> None:
        """Open a layer: bring in what is missing of its ``pages`` and keep it.

        Raises:
            KVStoreError: a page cannot be read back.
        """
        if self.spills:
            self._exceed_share(layer)
            self.bring_in(layer, pages[self.layers[layer].table[pages] < 0])
        self.open = layer

    def let_go(self, layer: int, sink_groups: int) -> None:
        """Close a layer; of its pages the first groups and the newest stay.

        Raises:
            KVStoreError: the disk tier could not be written; the pages stay.
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
        """Give slots to new pages.

        Raises:
            KVStoreError: the disk tier could not be written.
        """
        self._make_room(layer, len(pages))
        self.layers[layer].take(pages)
        self._touch(layer, pages)

    def use(self, layer: int, pages: PageNumbers, missing: PageNumbers) -> None:
        """Make ``pages`` resident, of which ``missing`` are on disk, and note their use.

        Raises:
            KVStoreError: a page is damaged, or the disk tier could not be read or written.
        """
        if len(missing):
            self.bring_in(layer, missing, keep=pages)
        self._touch(layer, pages)

    def bring_in(self, layer: int, pages: PageNumbers, keep: PageNumbers | None = None) -> None:
        """Read pages from disk; ``keep`` are pages that must not leave for them."""
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
        """Yield (part of ``pages``, their contents [n, 2, group_size, head_dim]) from disk."""
        pool = self.layers[layer].pool
        for part in self._portions(len(pages)):
            chosen = layer * self._space.pages_per_layer + pages[part]
            contents = torch.empty(len(chosen), *pool.shape[1:], dtype=pool.dtype)
            if self._disk is not None:
                self._disk.read(chosen, contents.flatten(1).view(torch.uint8).numpy())
            yield part, contents

    def write(self, layer: int, pages: PageNumbers) -> None:
        """Write those of some resident pages that the disk does not hold yet."""
        if self._disk is None:
            return
        first = layer * self._space.pages_per_layer
        unsaved = self._disk.unsaved(first + pages) - first
        resident = self.layers[layer]
        # Runs of a whole pool are written from where they are; others are copied together.
        parts = runs(unsaved) if resident.is_whole else self._portions(len(unsaved))
        for part in parts:
            chosen = unsaved[part]
            self._disk.write(first + chosen, resident.contents(chosen))

    def forget(self, layer: int, pages: PageNumbers) -> None:
        """The copies of pages on disk are no longer good."""
        if self._disk is not None:
            self._disk.forget(layer * self._space.pages_per_layer + pages)

    def drop(self, layer: int, pages: PageNumbers) -> None:
        """Give pages up in both tiers."""
        self.layers[layer].release(pages)
        self.forget(layer, pages)

    def return_to_share(self, unless: int | None = None) -> None:
        """Bring layers that exceed their share back to it, but for the open one and ``unless``.

        Raises:
            KVStoreError: the disk tier could not be written; the pages stay.
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

    def _portions(self, num_pages: int) -> Iterator[slice]:
        step = max(_BATCH_BYTES // self.page_bytes, 1)
        for start in range(0, num_pages, step):
            yield slice(start, start + step)

    def _make_room(self, layer: int, pages: int, keep: PageNumbers | None = None) -> None:
        """Free slots for ``pages`` more pages without moving those in ``keep``."""
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
        """Up to ``count`` resident pages that may leave, least recently used first to go."""
        may_leave = self.layers[layer].table >= 0
        may_leave[self._open_pages(layer)] = False
        if keep is not None:
            may_leave[keep] = False
        candidates = np.flatnonzero(may_leave)
        if count >= len(candidates):
            return candidates
        order = np.argpartition(self._last_used[layer, candidates], count - 1)
        return np.sort(candidates[order[:count]])

    def _spill(self, layer: int, pages: PageNumbers) -> None:
        """Give up the slots of pages, written first where the disk does not hold them yet."""
        self.write(layer, pages)
        self.layers[layer].release(pages)

    def _exceed_share(self, layer: int) -> None:
        """Give ``layer`` a slot for every page, after the layer that had them."""
        self.return_to_share(unless=layer)
        if not self.layers[layer].is_whole:
            self.layers[layer].resize(self._space.pages_per_layer)
        self._over_share.add(layer)
