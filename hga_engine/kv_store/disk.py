"""The disk tier: pages of K/V in one private file."""

import errno
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hga_engine.errors import DamagedPageError, StorageError

PageNumbers = npt.NDArray[np.int64]
PageBytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PageSpace:
    """Numbers of a session's pages: layer by layer, head by head, group by group."""

    num_layers: int
    kv_heads: int
    max_groups: int

    @property
    def pages_per_layer(self) -> int:
        """Pages of one layer when the context is full."""
        return self.kv_heads * self.max_groups

    @property
    def num_pages(self) -> int:
        """Pages of all layers when the context is full."""
        return self.num_layers * self.pages_per_layer

    def of_groups(self, first_group: int, last_group: int) -> PageNumbers:
        """Return the pages of some groups of all heads, ascending, numbered within a layer."""
        heads = np.arange(self.kv_heads)[:, None] * self.max_groups
        return (heads + np.arange(first_group, last_group)).ravel()

    def describe(self, page: int) -> str:
        """Name layer, head and group of a page, for error messages."""
        layer, rest = divmod(page, self.pages_per_layer)
        head, group = divmod(rest, self.max_groups)
        return f"layer {layer}, KV head {head}, group {group}"


class DiskTier:
    """Pages at fixed offsets of a sparse file, each with a checksum.

    Only its owner can read the file. It is either a saved session's file, which stays, or has no
    name in the file system if the system allows that, so that nothing remains when the process is
    killed. Pages are copied in and out; the tier keeps no reference to a caller's buffer. The
    caller decides which pages are written, read and forgotten.
    """

    def __init__(self, space: PageSpace, page_bytes: int, path: Path | None = None) -> None:
        """Set up an empty tier; ``open`` or the first write creates its file.

        Args:
            space: numbering of the pages.
            page_bytes: size of one page.
            path: name of the file, if it is to stay; None: an unnamed file in the system's
                temporary folder.
        """
        self._space = space
        self._page_bytes = page_bytes
        self._directory = Path(tempfile.gettempdir()) if path is None else path.parent
        self.path = path
        self._held = np.zeros(space.num_pages, dtype=np.bool_)
        self._unsynced = np.zeros(space.num_pages, dtype=np.bool_)
        self._lost = np.zeros(space.num_pages, dtype=np.bool_)
        self._checksums = np.zeros(space.num_pages, dtype=np.uint32)
        self._file: int | None = None

    def open(self) -> None:
        """Create the file, or open it if some of its pages were adopted.

        Raises:
            KVStoreError: the file cannot be created.
        """
        if self._file is not None:
            return
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._create()
        except OSError as error:
            raise self._failure("Cannot create a K/V file", error) from error

    @property
    def bytes(self) -> int:
        """Bytes of the pages held."""
        return int(np.count_nonzero(self._held)) * self._page_bytes

    @property
    def capacity_bytes(self) -> int:
        """Bytes of all pages of a full context."""
        return self._space.num_pages * self._page_bytes

    def adopt(self, pages: PageNumbers, checksums: npt.NDArray[np.uint32]) -> None:
        """Take over pages that a saved file already has, with their checksums; before ``open``."""
        self._held[pages] = True
        self._checksums[pages] = checksums

    def unsaved(self, pages: PageNumbers) -> PageNumbers:
        """Return those of ``pages`` that are not held, or that a failed ``flush`` may have lost."""
        return pages[~self._held[pages] | self._lost[pages]]

    def checksums(self, pages: PageNumbers) -> npt.NDArray[np.uint32]:
        """Return the CRC-32 of each of ``pages``, which must be held."""
        return self._checksums[pages]

    def write(self, pages: PageNumbers, data: PageBytes) -> None:
        """Write pages. After an error, pages that were not held before are still not held.

        Args:
            pages: [n] page numbers, ascending.
            data: [n, page_bytes], contiguous.

        Raises:
            KVStoreError: the disk is full or failed.
        """
        self.open()
        try:
            for run in runs(pages):
                self._write_at(int(pages[run.start]) * self._page_bytes, data[run])
        except OSError as error:
            raise self._failure("Cannot write K/V", error) from error
        self._checksums[pages] = [zlib.crc32(page) for page in data]
        self._held[pages] = True
        self._unsynced[pages] = True
        self._lost[pages] = False

    def flush(self) -> None:
        """Force written pages to the disk itself.

        Raises:
            KVStoreError: the disk failed; pages that may be lost are ``unsaved`` again.
        """
        if self._file is None:
            return
        try:
            os.fsync(self._file)
        except OSError as error:
            self._lost |= self._unsynced
            raise self._failure("Cannot write K/V", error) from error
        finally:
            self._unsynced[:] = False

    def read(self, pages: PageNumbers, out: PageBytes) -> None:
        """Read pages into ``out`` and check them.

        Args:
            pages: [n] page numbers, ascending, all of them held.
            out: [n, page_bytes], contiguous.

        Raises:
            KVStoreError: the disk failed, or a page is damaged.
        """
        self.open()
        try:
            for run in runs(pages):
                self._read_at(int(pages[run.start]) * self._page_bytes, out[run])
        except OSError as error:
            raise self._failure("Cannot read K/V", error) from error
        for page, data in zip(pages.tolist(), out, strict=True):
            if zlib.crc32(data) != self._checksums[page]:
                raise DamagedPageError(self._space.describe(page), self._directory)

    def forget(self, pages: PageNumbers) -> None:
        """Drop pages; pages that are not held are ignored."""
        self._held[pages] = False

    def close(self) -> None:
        """Close the file, which removes it if it has no name. Closing twice is harmless."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._held[:] = False

    def _create(self) -> int:
        if self.path is None:
            # Unnamed, or unlinked at once, and mode 0600.
            with tempfile.TemporaryFile(dir=self._directory, buffering=0) as unnamed:
                return os.dup(unnamed.fileno())
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not self._held.any():
                os.ftruncate(file, 0)
            os.ftruncate(file, self.capacity_bytes)
        except OSError:
            os.close(file)
            raise
        return file

    def _write_at(self, offset: int, data: PageBytes) -> None:
        assert self._file is not None
        rest = data.data.cast("B")
        while rest:
            written = os.pwrite(self._file, rest, offset)
            rest, offset = rest[written:], offset + written

    def _read_at(self, offset: int, out: PageBytes) -> None:
        assert self._file is not None
        read_at(self._file, offset, out)

    def _failure(self, what: str, error: OSError) -> StorageError:
        return StorageError(what, self._directory, error, is_saved=self.path is not None)


def read_at(file: int, offset: int, out: PageBytes) -> None:
    """Fill ``out``, which is contiguous, from an offset in a file.

    Raises:
        OSError: the file is too short, or cannot be read.
    """
    rest = out.data.cast("B")
    while rest:
        read = os.preadv(file, [rest], offset)
        if read == 0:
            raise OSError(errno.EIO, "the file is too short")
        rest, offset = rest[read:], offset + read


def runs(pages: PageNumbers) -> Iterator[slice]:
    """Yield a slice of ``pages``, which ascend, for each run of consecutive page numbers."""
    if not len(pages):
        return
    breaks = (np.flatnonzero(np.diff(pages) != 1) + 1).tolist()
    for first, last in zip([0, *breaks], [*breaks, len(pages)], strict=True):
        yield slice(first, last)
