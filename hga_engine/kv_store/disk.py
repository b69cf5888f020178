"""The disk tier: pages of K/V in one file that nobody else can open or keep."""

import errno
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hga_engine.errors import KVStoreError

PageNumbers = npt.NDArray[np.int64]
PageBytes = npt.NDArray[np.uint8]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class PageSpace:
    """How the pages of a session are numbered: layer by layer, head by head, group by group."""

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

    def describe(self, page: int) -> str:
        """Layer, head and group of a page, for error messages."""
        layer, rest = divmod(page, self.pages_per_layer)
        head, group = divmod(rest, self.max_groups)
        return f"layer {layer}, KV head {head}, group {group}"


class DiskTier:
    """Pages at fixed places of a sparse file, each with a checksum.

    The file is readable by its owner alone and has no name in the file system where the system
    allows that, so that nothing stays behind when the process is killed. Pages are copied in and
    out; the tier never keeps a reference to a caller's buffer. It decides nothing: the store says
    what is written, read and forgotten.
    """

    def __init__(self, space: PageSpace, page_bytes: int, directory: Path | None) -> None:
        """Create the file.

        Args:
            space: numbering of the pages.
            page_bytes: size of one page.
            directory: folder of the file; None: the system's temporary folder.

        Raises:
            KVStoreError: the file cannot be created.
        """
        self._space = space
        self._page_bytes = page_bytes
        self._directory = Path(tempfile.gettempdir()) if directory is None else directory
        self._held = np.zeros(space.num_pages, dtype=np.bool_)
        self._checksums = np.zeros(space.num_pages, dtype=np.uint32)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            # Unnamed, or unlinked at once, and mode 0600.
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._failure("cannot create a file", error) from error

    @property
    def bytes(self) -> int:
        """Bytes of the pages it holds."""
        return int(np.count_nonzero(self._held)) * self._page_bytes

    @property
    def capacity_bytes(self) -> int:
        """Bytes it would hold with every page of a full context."""
        return self._space.num_pages * self._page_bytes

    def holds(self, pages: PageNumbers) -> npt.NDArray[np.bool_]:
        """Which of ``pages`` it holds: a bool for each."""
        return self._held[pages]

    def write(self, pages: PageNumbers, data: PageBytes) -> None:
        """Store pages. On an error those of them that were not held before still are not.

        Args:
            pages: [n] page numbers, ascending.
            data: [n, page_bytes], contiguous.

        Raises:
            KVStoreError: the disk is full or failed.
        """
        try:
            for first, last in _runs(pages):
                self._write_at(int(pages[first]) * self._page_bytes, data[first:last])
        except OSError as error:
            raise self._failure("cannot write", error) from error
        self._checksums[pages] = [zlib.crc32(page) for page in data]
        self._held[pages] = True

    def read(self, pages: PageNumbers, out: PageBytes) -> None:
        """Read pages into ``out`` and check them.

        Args:
            pages: [n] page numbers, ascending; all are held.
            out: [n, page_bytes], contiguous.

        Raises:
            KVStoreError: the disk failed, or a page is not what was written.
        """
        try:
            for first, last in _runs(pages):
                self._read_at(int(pages[first]) * self._page_bytes, out[first:last])
        except OSError as error:
            raise self._failure("cannot read", error) from error
        for page, data in zip(pages.tolist(), out, strict=True):
            if zlib.crc32(data) != self._checksums[page]:
                raise KVStoreError(
                    f"Disk tier: the page of {self._space.describe(page)} in {self._directory} is "
                    "damaged (its checksum differs). Read the document again; check the disk."
                )

    def forget(self, pages: PageNumbers) -> None:
        """Drop pages; those it does not hold are ignored."""
        self._held[pages] = False

    def close(self) -> None:
        """Remove the file. May be called twice."""
        self._file.close()
        self._held[:] = False

    def _write_at(self, offset: int, data: PageBytes) -> None:
        rest = data.data.cast("B")
        while rest:
            written = os.pwrite(self._file.fileno(), rest, offset)
            rest, offset = rest[written:], offset + written

    def _read_at(self, offset: int, out: PageBytes) -> None:
        rest = out.data.cast("B")
        while rest:
            read = os.preadv(self._file.fileno(), [rest], offset)
            if read == 0:
                raise OSError(errno.EIO, "the file is shorter than what was written")
            rest, offset = rest[read:], offset + read

    def _failure(self, what: str, error: OSError) -> KVStoreError:
        if error.errno in _NO_ROOM:
            return KVStoreError(
                f"Disk tier: no room for K/V in {self._directory}. Free space there, choose "
                "another folder, raise --host-budget, or lower --context."
            )
        return KVStoreError(
            f"Disk tier: {what} in {self._directory}: {error.strerror or error}. "
            "Check the folder, or choose another one."
        )


def _runs(pages: PageNumbers) -> Iterator[tuple[int, int]]:
    """Yield (first, last) places in ``pages`` of each run of consecutive page numbers."""
    if not len(pages):
        return
    breaks = (np.flatnonzero(np.diff(pages) != 1) + 1).tolist()
    yield from zip([0, *breaks], [*breaks, len(pages)], strict=True)
