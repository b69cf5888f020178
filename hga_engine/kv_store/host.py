"""The resident tier: a layer's pages in one pool, found through a page table."""

import numpy as np
import numpy.typing as npt
import torch

from hga_engine.kv_store.disk import PageBytes, PageNumbers
from hga_kernels import empty_on_huge_pages


class HostPages:
    """Resident pages of one layer.

    Pages are numbered ``head * max_groups + group``. The pool has either a slot for every page,
    then a page's slot is its number and one head's consecutive groups lie side by side, or fewer
    slots, handed out by a table. Memory of slots that were never written is not committed by the
    operating system. It decides nothing: the store says which pages come and go.
    """

    pool: torch.Tensor  # [slots, 2, group_size, head_dim]
    table: npt.NDArray[np.int32]  # [pages]: slot of each page, -1 where it is not resident

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
            page: [2, group_size, head_dim] on the meta or any device: shape, type and device of
                the pool's pages.
            slots: pages it has room for.
            pool: memory to use, [slots, 2, group_size, head_dim]; None: memory of its own.
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
        """Pages it has room for."""
        return self.pool.shape[0]

    @property
    def is_whole(self) -> bool:
        """Whether there is a slot for every page."""
        return self.slots == self._num_pages

    def resident(self) -> PageNumbers:
        """Pages that are resident, ascending."""
        return np.flatnonzero(self.table >= 0)

    def take(self, pages: PageNumbers) -> None:
        """Give slots to pages that have none; their contents are undefined until written."""
        taken = pages if self.is_whole else np.flatnonzero(~self._used)[: len(pages)]
        self.table[pages] = taken
        self._used[taken] = True
        self.num_resident += len(pages)

    def release(self, pages: PageNumbers) -> None:
        """Take the slots of ``pages`` back; pages without one are ignored."""
        held = pages[self.table[pages] >= 0]
        self._used[self.table[held]] = False
        self.table[held] = -1
        self.num_resident -= len(held)

    def resize(self, slots: int) -> None:
        """Move the resident pages, at most ``slots`` of them, to a pool of another size."""
        pages = self.resident()
        old, old_slots = self.pool, torch.from_numpy(self.table[pages]).to(self.pool.device)
        self.pool = _new_pool(old[0], slots)
        self.table[:] = -1
        self._used = np.zeros(slots, dtype=np.bool_)
        self.num_resident = 0
        self.take(pages)
        self.pool[torch.from_numpy(self.table[pages]).to(old.device)] = old[old_slots]

    def write(
        self, first_group: int, offset: int, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Write tokens into consecutive groups of every head, the same places in each group.

        Args:
            first_group: group of the first tokens.
            offset: first place written in each group.
            keys: [groups, tokens a group, kv_heads, head_dim].
            values: as keys.
        """
        num_groups, tokens = keys.shape[:2]
        groups = slice(first_group, first_group + num_groups)
        places = slice(offset, offset + tokens)
        by_head = (2, 0, 1, 3)
        if self.is_whole:
            pages = self._by_head()[:, groups]
            pages[:, :, 0, places] = keys.permute(by_head)
            pages[:, :, 1, places] = values.permute(by_head)
            return
        table = self.table.reshape(self._kv_heads, self._max_groups)[:, groups]
        slots = torch.from_numpy(table).to(self.pool.device, torch.int64)
        self.pool[slots, 0, places] = keys.permute(by_head).to(self.pool.dtype)
        self.pool[slots, 1, places] = values.permute(by_head).to(self.pool.dtype)

    def keys(self, first_group: int, last_group: int) -> torch.Tensor:
        """[kv_heads, groups, group_size, head_dim]: keys of resident groups of a whole pool."""
        return self._by_head()[:, first_group:last_group, 0]

    def contents(self, pages: PageNumbers) -> PageBytes:
        """[n, page bytes]: contents of resident pages; of a run in a whole pool, its memory."""
        if self.is_whole and len(pages) and pages[-1] - pages[0] == len(pages) - 1:
            run = self.pool[pages[0] : pages[-1] + 1].cpu()
            return run.flatten(1).view(torch.uint8).numpy()
        slots = torch.from_numpy(self.table[pages]).to(self.pool.device)
        return self.pool[slots].cpu().flatten(1).view(torch.uint8).numpy()

    def copy_in(self, pages: PageNumbers, contents: torch.Tensor) -> None:
        """Write ``contents``, [n, 2, group_size, head_dim], to pages that have slots."""
        slots = torch.from_numpy(self.table[pages]).to(self.pool.device)
        self.pool[slots] = contents.to(self.pool.device)

    def bytes_by_head(self) -> PageBytes:
        """[kv_heads, max_groups, page bytes]: the memory of a whole pool on the host."""
        pages = self.pool.view(torch.uint8).view(self._kv_heads, self._max_groups, -1)
        return pages.numpy()

    def _by_head(self) -> torch.Tensor:
        """[kv_heads, max_groups, 2, group_size, head_dim]: a whole pool."""
        return self.pool.view(self._kv_heads, self._max_groups, *self.pool.shape[1:])


def _new_pool(page: torch.Tensor, slots: int) -> torch.Tensor:
    """[slots, *page]: uninitialised. Pages of the pool are read at random."""
    shape = (slots, *page.shape)
    return empty_on_huge_pages(shape, page.dtype) if page.is_cpu else page.new_empty(shape)
