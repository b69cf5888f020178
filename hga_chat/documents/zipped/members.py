"""Reads the members of a ZIP archive in memory and within limits; nothing is written to disk."""

import io
import lzma
import struct
import zipfile
import zlib
from typing import Any

from lxml import etree

from hga_chat.documents.types import UnreadableError

MAX_ENTRIES = 10_000
MAX_MEMBER_BYTES = 50_000_000
MAX_TOTAL_BYTES = 200_000_000
MAX_RATIO = 200
"""Largest compression ratio of members over a megabyte; text rarely exceeds 20."""

_RATIO_FREE_BYTES = 1_000_000
_BLOCK_BYTES = 1 << 16
_ENCRYPTED_FLAG = 1
# What the standard library raises for damaged archives.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
)


class Members:
    """The members of an archive by name."""

    def __init__(self, data: bytes) -> None:
        """Read the directory.

        Raises:
            UnreadableError: The directory is damaged or too long.
        """
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
        except _DAMAGE as error:
            raise UnreadableError(f"damaged ZIP archive: {_cause(error)}") from None
        self._entries = {entry.filename: entry for entry in self._archive.infolist()}
        if len(self._archive.infolist()) > MAX_ENTRIES:
            raise UnreadableError(f"more than {MAX_ENTRIES:,} entries in a ZIP archive")
        self._left = MAX_TOTAL_BYTES

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def names(self) -> list[str]:
        """The names as the archive has them; they are never used as paths."""
        return list(self._entries)

    def read(self, name: str) -> bytes:
        """Return a member's bytes.

        Raises:
            UnreadableError: The member is missing, damaged, encrypted or too large.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise UnreadableError(f"damaged: {_named(name)} is missing")
        if entry.flag_bits & _ENCRYPTED_FLAG:
            raise UnreadableError("encrypted ZIP archive; save a copy without the password first")
        limit = min(MAX_MEMBER_BYTES, self._left)
        limit = min(limit, max(_RATIO_FREE_BYTES, MAX_RATIO * entry.compress_size))
        blocks, size = [], 0
        try:
            with self._archive.open(entry) as stream:
                while block := stream.read(_BLOCK_BYTES):
                    blocks.append(block)
                    size += len(block)
                    if size > limit:
                        raise UnreadableError(
                            f"{_named(name)} unpacks to more than {limit / 1_000_000:.0f} MB "
                            "(a decompression bomb?)"
                        )
        except _DAMAGE as error:
            raise UnreadableError(f"damaged: {_named(name)}: {_cause(error)}") from None
        self._left -= size
        return b"".join(blocks)

    def parse_xml(self, name: str) -> Any:
        """Return the root element of a member that is XML.

        Entities are not resolved and nothing outside the member is read.

        Raises:
            UnreadableError: The member cannot be read or is not well-formed.
        """
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True
        )
        try:
            return etree.fromstring(self.read(name), parser)
        except etree.XMLSyntaxError as error:
            cause = f"invalid XML on line {error.lineno}"
            if "amplification" in str(error):
                cause = "entities expand without limit (an XML bomb?)"
            raise UnreadableError(f"damaged: {_named(name)}: {cause}") from None


def _named(name: str) -> str:
    return " ".join(name.split())[-80:]


def _cause(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
