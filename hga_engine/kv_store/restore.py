"""Reading a saved file of pages back, checked, a run of pages at a time."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hga_engine.errors import SavedStateError
from hga_engine.kv_store.disk import PageBytes, PageSpace, read_at

Checksums = npt.NDArray[np.uint32]

_PAGES_AT_A_TIME = 64
"""``zlib.crc32`` of so many lets other threads run; of a single page it does not."""
_ONES = 0xFFFFFFFF


def joined(checksums: Checksums, size: int) -> Checksums:
    """CRC-32 of runs of pages by those of the pages.

    Appending to a text multiplies its checksum by a matrix that depends on the length appended
    alone, and adds the checksum of what was appended (``crc32_combine`` of zlib). The matrix is
    applied a byte of the checksum at a time.

    Args:
        checksums: [..., n], of n consecutive pages.
        size: bytes of a page.

    Returns:
        [...]: of all n together.
    """
    zeros = bytes(size)
    tables = [
        np.array(
            [zlib.crc32(zeros, value << shift ^ _ONES) ^ _ONES for value in range(256)], np.uint32
        )
        for shift in (0, 8, 16, 24)
    ]
    total = np.zeros(checksums.shape[:-1], np.uint32)
    for page in np.moveaxis(checksums, -1, 0):
        parts = [table[total >> 8 * byte & 0xFF] for byte, table in enumerate(tables)]
        total = np.bitwise_xor.reduce(parts) ^ page
    return total


class PageReader:
    """Reads the pages of a saved file, each once, and checks them."""

    def __init__(
        self,
        path: Path,
        space: PageSpace,
        page_bytes: int,
        checksums: Checksums,
        pools: Sequence[PageBytes] | None,
    ) -> None:
        """Prepare the work.

        Args:
            path: the file.
            space: numbering of its pages.
            page_bytes: size of a page.
            checksums: [layers, kv_heads, groups], of the first groups of each layer and head.
            pools: for each layer [kv_heads, max_groups, page_bytes], where its pages go; None:
                they are only checked.
        """
        self._path = path
        self._space = space
        self._page_bytes = page_bytes
        self._checksums = checksums
        self._pools = pools
        whole = checksums.shape[2] // _PAGES_AT_A_TIME * _PAGES_AT_A_TIME
        runs = checksums[:, :, :whole].reshape(*checksums.shape[:2], -1, _PAGES_AT_A_TIME)
        self._joined = joined(runs, page_bytes)
        if whole < checksums.shape[2]:
            rest = joined(checksums[:, :, whole:], page_bytes)
            self._joined = np.concatenate((self._joined, rest[:, :, None]), 2)

    def tasks(self) -> Iterator[Callable[[], None]]:
        """Yield the work, one layer and head at a time, in the order the layers are used.

        Each may run on a thread of its own; it raises ``SavedStateError`` if a page is damaged or
        cannot be read.
        """
        for layer in range(self._space.num_layers if self._checksums.size else 0):
            for head in range(self._space.kv_heads):
                yield partial(self._read_head, layer, head)

    def _read_head(self, layer: int, head: int) -> None:
        first_page = layer * self._space.pages_per_layer + head * self._space.max_groups
        groups = self._checksums.shape[2]
        scratch = np.empty((min(groups, _PAGES_AT_A_TIME), self._page_bytes), np.uint8)
        try:
            with self._path.open("rb", buffering=0) as file:
                for run, first in enumerate(range(0, groups, _PAGES_AT_A_TIME)):
                    last = min(first + _PAGES_AT_A_TIME, groups)
                    pages = scratch[: last - first]
                    if self._pools is not None:
                        pages = self._pools[layer][head, first:last]
                    read_at(file.fileno(), (first_page + first) * self._page_bytes, pages)
                    if zlib.crc32(pages.data) != self._joined[layer, head, run]:
                        raise self._damage(first_page + first, layer, head, first, pages)
        except OSError as error:
            raise SavedStateError(
                f"{self._path}: cannot be read ({error.strerror or error})."
            ) from error

    def _damage(
        self, page: int, layer: int, head: int, first_group: int, pages: PageBytes
    ) -> SavedStateError:
        """The error for a run of pages that differs, naming the first page that does."""
        expected = self._checksums[layer, head, first_group : first_group + len(pages)]
        differs = [
            zlib.crc32(data.data) != checksum
            for data, checksum in zip(pages, expected, strict=True)
        ]
        where = self._space.describe(page + differs.index(True))
        return SavedStateError(
            f"{self._path}: the page of {where} is damaged (its checksum differs)."
        )
