"""Reads the members of a ZIP archive in memory and within limits; nothing is written to disk."""

import io
import lzma
import posixpath
import re
import struct
import unicodedata
import zipfile
import zlib
from html.entities import html5
from typing import Any
from urllib.parse import unquote

from lxml import etree

from hga_chat.documents.html.decode import decode_html
from hga_chat.documents.types import UnreadableError

MAX_ENTRIES = 10_000
MAX_MEMBER_BYTES = 50_000_000
MAX_TOTAL_BYTES = 200_000_000
MAX_RATIO = 200
"""Largest compression ratio of members over a megabyte; text rarely exceeds 20."""

_RATIO_FREE_BYTES = 1_000_000
_BLOCK_BYTES = 1 << 16
_ENCRYPTED_FLAG = 1
_UTF8_FLAG = 0x800
_AMPERSAND = re.compile(r"<!\[CDATA\[.*?(?:\]\]>|\Z)|&(?:(#\d+|#x[0-9A-Fa-f]+|\w+);)?", re.DOTALL)
_XML_ENTITIES = frozenset({"lt", "gt", "amp", "quot", "apos"})
_BOMB = "entities expand without limit (an XML bomb?)"
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
        self._by_plain_name: dict[str, str] = {}
        for entry in self._archive.infolist():
            self._by_plain_name.setdefault(_plain_name(_intended_name(entry)), entry.filename)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def names(self) -> list[str]:
        """The names as the archive has them; they are never used as paths."""
        return list(self._entries)

    def find(self, name: str) -> str | None:
        """Return the member that a name means; None if there is none.

        Case, slashes, percent-encoding and Unicode's forms of a letter may differ.
        """
        return name if name in self._entries else self._by_plain_name.get(_plain_name(name))

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
        return _parsed(name, self.read(name))

    def parse_damaged_xml(self, name: str) -> tuple[Any, str | None]:
        """Return the root element of XML that need not be well-formed, and a note if it is not.

        Space before the XML declaration, bare ampersands, entities of HTML and a wrong encoding
        are mended without a note.

        Raises:
            UnreadableError: The member cannot be read or is not XML at all.
        """
        data = self.read(name)
        try:
            return _parsed(name, data), None
        except UnreadableError as error:
            if _BOMB in str(error):
                raise
        text = _AMPERSAND.sub(_mended, decode_html(data).strip("\ufeff \t\n"))
        encoded = text.encode("utf-8", "replace")
        try:
            return _parsed(name, encoded, encoding="utf-8"), None
        except UnreadableError as error:
            root = _parsed(name, encoded, encoding="utf-8", recover=True)
            return root, f"{error}; read as far as possible"


def _parsed(name: str, data: bytes, **options: Any) -> Any:
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, **options
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        cause = f"invalid XML on line {getattr(error, 'lineno', 1)}"
        if "amplification" in str(error):
            cause = _BOMB
        raise UnreadableError(f"damaged: {_named(name)}: {cause}") from None
    if root is None:
        raise UnreadableError(f"damaged: {_named(name)}: no XML")
    return root


def _mended(match: re.Match[str]) -> str:
    name = match[1]
    if not match[0].startswith("&") or (name and (name[0] == "#" or name in _XML_ENTITIES)):
        return match[0]
    if name and f"{name};" in html5:
        return "".join(f"&#{ord(char)};" for char in html5[f"{name};"])
    return "&amp;" + match[0][1:]


def _intended_name(entry: zipfile.ZipInfo) -> str:
    """Return a member's name, which programs may write in UTF-8 without saying so."""
    if entry.flag_bits & _UTF8_FLAG or entry.filename.isascii():
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.filename


def _plain_name(name: str) -> str:
    path = posixpath.normpath("/" + unquote(name).replace("\\", "/").lstrip("/"))
    return unicodedata.normalize("NFC", path).casefold()


def _named(name: str) -> str:
    return " ".join(name.split())[-80:]


def _cause(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
