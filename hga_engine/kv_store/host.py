"""The host tier: a layer's resident pages in one pool, found through a page table."""

import numpy as np
import numpy.typing as npt
import torch

from hga_engine.kv_store.disk import PageBytes, PageNumbers
from hga_kernels import empty_on_huge_pages


class HostPages:
    """Resident pages of one layer.

    Pages are numbered ``head * max_groups + group``. A whole pool has a slot for every page: the
    slot is the page number, and consecutive groups of a head are adjacent. A smaller pool hands its
    slots out through a table. The operating system does not commit memory of slots that were never
    written. The caller decides which pages are resident.
    """

    pool: torch.Tensor  # [slots, 2, group_size, head_dim]
    table: npt.NDArray[np.int32]  # [pages]: slot of each page, -1 if it is not resident

    def __init__(
        self,
        kv_heads: int,
        max_groups: int,
        page: torch.Tensor,
        slots: int,
        pool: torch.Tensor | None = None,
    ) -> None:
        """Make an empty pool.

        Args:
            kv_heads: KV heads of the layer.
            max_groups: groups of a full context.
            page: [2, group_size, head_dim]: shape and type of a page.
            slots: number of pages that the pool has room for.
            pool: [slots, 2, group_size, head_dim] memory to use; None allocates it.
        """
        self._kv_heads = kv_heads
        self._max_groups = max_groups
        self._num_pages = kv_heads * max_groups
        self.pool = _new_pool(page, slots) if pool is None else pool
        self.table = np.full(self._num_pages, -1, dtype=np.int32)
        self._used = np.zeros(slots, dtype=np.bool_)
        self.num_resident = 0

    @property
    def slots(self) -> int:
        """Number of pages that the pool has room for."""
        return self.pool.shape[0]

    @property
    def is_whole(self) -> bool:
        """Whether the pool has a slot for every page."""
        return self.slots == self._num_pages

    def resident(self) -> PageNumbers:
        """Return the resident pages, ascending."""
        return np.flatnonzero(self.table >= 0)

    def take(self, pages: PageNumbers) -> None:
        """Assign slots to pages that have none; their contents are undefined until written."""
        taken = pages if self.is_whole else np.flatnonzero(~self._used)[: len(pages)]
        self.table[pages] = taken
        self._used[taken] = True
        self.num_resident += len(pages)

    def release(self, pages: PageNumbers) -> None:
        """Free the slots of ``pages``; pages without a slot are ignored."""
        held = pages[self.table[pages] >= 0]
        self._used[self.table[held]] = False
        self.table[held] = -1
        self.num_resident -= len(held)

    def resize(self, slots: int) -> None:
        """Move the resident pages, of which there are at most ``slots``, to a pool of that size."""
        pages = self.resident()
        old, old_slots = self.pool, torch.from_numpy(self.table[pages])
        self.pool = _new_pool(old[0], slots)
        self.table[:] = -1
        self._used = np.zeros(slots, dtype=np.bool_)
        self.num_resident = 0
        self.take(pages)
        self.pool[torch.from_numpy(self.table[pages])] = old[old_slots]

    def write(
        self, first_group: int, offset: int, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Write tokens into consecutive groups of every head, at the same offset in each group.

        Args:
            first_group: group of the first tokens.
            offset: first token written in each group.
            keys: [groups, tokens per group, kv_heads, head_dim].
            values: values of the same shape.
        """
        num_groups, tokens = keys.shape[:2]
        groups = slice(first_group, first_group + num_groups)
        within = slice(offset, offset + tokens)
        by_head = (2, 0, 1, 3)
        if self.is_whole:
            pages = self._by_head()[:, groups]
            pages[:, :, 0, within] = keys.permute(by_head)
            pages[:, :, 1, within] = values.permute(by_head)
            return
        table = self.table.reshape(self._kv_heads, self._max_groups)[:, groups]
        slots = torch.from_numpy(table).long()
        self.pool[slots, 0, within] = keys.permute(by_head).to(self.pool.dtype)
        self.pool[slots, 1, within] = values.permute(by_head).to(self.pool.dtype)

    def keys(self, first_group: int, last_group: int) -> torch.Tensor:
        """Return keys of groups in a whole pool, [kv_heads, groups, group_size, head_dim]."""
        return self._by_head()[:, first_group:last_group, 0]

    def contents(self, pages: PageNumbers) -> PageBytes:
        """Return the contents of resident pages, [n, page bytes].

        For consecutive pages of a whole pool it is a view, else a copy.
        """
        if self.is_whole and len(pages) and pages[-1] - pages[0] == len(pages) - 1:
            run = self.pool[pages[0] : pages[-1] + 1]
            return run.flatten(1).view(torch.uint8).numpy()
        slots = torch.from_numpy(self.table[pages])
        return self.pool[slots].flatten(1).view(torch.uint8).numpy()

    def copy_in(self, pages: PageNumbers, contents: torch.Tensor) -> None:
        """Write ``contents``, [n, 2, group_size, head_dim], to resident pages."""
        self.pool[torch.from_numpy(self.table[pages])] = contents

    def bytes_by_head(self) -> PageBytes:
        """Return the memory of a whole pool as [kv_heads, max_groups, page bytes]."""
        pages = self.pool.view(torch.uint8).view(self._kv_heads, self._max_groups, -1)
        return pages.numpy()

    def _by_head(self) -> torch.Tensor:
        """Return a view of a whole pool as [kv_heads, max_groups, 2, group_size, head_dim]."""
        return self.pool.view(self._kv_heads, self._max_groups, *self.pool.shape[1:])


def _new_pool(page: torch.Tensor, slots: int) -> torch.Tensor:
    """Allocate [slots, *page] on huge pages, because K/V pages are read at random."""
    return empty_on_huge_pages((slots, *page.shape), page.dtype)
