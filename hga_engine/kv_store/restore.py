"""Read and check a saved file of pages, a run of pages at a time."""

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
"""``zlib.crc32`` releases the GIL for this much data, but not for a single small page."""
_ONES = 0xFFFFFFFF


def joined(checksums: Checksums, size: int) -> Checksums:
    """Combine the CRC-32 of consecutive pages into that of the whole run.

    As in zlib's ``crc32_combine``: appending data multiplies a checksum by a matrix that depends
    only on the length of the data, and adds the checksum of the data. The matrix is applied to one
    byte of the checksum at a time.

    Args:
        checksums: [..., n] checksums of n consecutive pages.
        size: bytes of a page.

    Returns:
        [...] checksums of all n pages together.
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
    """Reads each page of a saved file once and checks it."""

    def __init__(
        self,
        path: Path,
        space: PageSpace,
        page_bytes: int,
        checksums: Checksums,
        pools: Sequence[PageBytes] | None,
    ) -> None:
        """Combine the checksums of runs of pages.

        Args:
            path: the file.
            space: numbering of its pages.
            page_bytes: size of a page.
            checksums: [layers, kv_heads, groups] checksums of the first groups.
            pools: for each layer [kv_heads, max_groups, page_bytes] memory for its pages; None
                checks the pages without loading them.
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
        """Yield one task for each layer and head, in the order that layers are used.

        Tasks may run on any threads. A task raises ``SavedStateError`` if a page is damaged or
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
        """Return the error for a run of pages, naming the first damaged one."""
        expected = self._checksums[layer, head, first_group : first_group + len(pages)]
        differs = [
            zlib.crc32(data.data) != checksum
            for data, checksum in zip(pages, expected, strict=True)
        ]
        where = self._space.describe(page + differs.index(True))
        return SavedStateError(
            f"{self._path}: the page of {where} is damaged (its checksum differs)."
        )
