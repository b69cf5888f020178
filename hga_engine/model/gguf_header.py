"""Parse the header of a GGUF file: metadata and the table of tensors.

The layout is that of ggml's ``docs/gguf.md``. Every count, length and offset is held against the
size of the file before it is used, so that a damaged file can neither take memory nor time.
"""

import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from hga_engine.errors import DamagedWeightsError, ModelFileError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_STRING = 16 << 20
_MOST_ENTRIES = 1 << 24
"""Entries of an array; the largest vocabularies and merges have a million."""
_MOST_DIMENSIONS = 4
_LEAST_ALIGNMENT = 8
_LEAST_FIELD = 13
"""Bytes of the shortest metadata field: an empty key, a type and one byte."""
_LEAST_TENSOR = 32
"""Bytes of the shortest entry of the table of tensors."""
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
"""numpy's names of the types of metadata, by their numbers."""
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class GgufTensor:
    """An entry of the table of tensors."""

    name: str
    shape: tuple[int, ...]
    """Outermost dimension first, as in torch."""
    kind: gguf.GGMLQuantizationType
    path: Path
    offset: int
    """Of the first byte in the file."""
    size: int
    """Bytes in the file."""


@dataclass(frozen=True)
class GgufHeader:
    """What one file says."""

    path: Path
    values: dict[str, Any]
    """Metadata; arrays of numbers are numpy arrays, strings and arrays of strings are bytes."""
    tensors: dict[str, GgufTensor]


def read_header(path: Path) -> GgufHeader:
    """Parse the header of a file.

    Raises:
        ModelFileError: the file cannot be read, is not a GGUF file or is of an unknown version.
        DamagedWeightsError: it is truncated or damaged.
    """
    try:
        with path.open("rb") as file:
            contents = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:  # an empty file cannot be mapped
        raise DamagedWeightsError(f"{path}: is empty.") from error
    return _Parser(path, contents).parse()


class _Parser:
    def __init__(self, path: Path, contents: mmap.mmap) -> None:
        self._path = path
        self._contents = contents
        self._at = 0

    def parse(self) -> GgufHeader:
        if self._contents[:4] != _MAGIC:
            raise ModelFileError(f"{self._path}: is not a GGUF file.")
        self._at = 4
        version = self._number("<u4")
        if version not in _VERSIONS:
            if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
                raise ModelFileError(
                    f"{self._path}: is a big-endian GGUF file. Fetch a little-endian one, or "
                    "convert it with gguf-convert-endian."
                )
            raise ModelFileError(
                f"{self._path}: is GGUF version {version}; versions 2 and 3 are supported."
            )
        tensors, fields = self._number("<u8"), self._number("<u8")
        if tensors * _LEAST_TENSOR + fields * _LEAST_FIELD > len(self._contents):
            raise self._damaged(f"{tensors} tensors and {fields} metadata fields do not fit in it")
        values: dict[str, Any] = {}
        for _ in range(fields):
            key = self._text("the key of a metadata field")
            if key in values:
                raise self._damaged(f"it has {key} twice")
            values[key] = self._value(key, self._number("<u4"))
        return GgufHeader(self._path, values, self._table(tensors, values))

    def _damaged(self, reason: str) -> ModelFileError:
        return DamagedWeightsError(f"{self._path}: is damaged ({reason}).")

    def _take(self, size: int) -> int:
        """Return the offset of the next ``size`` bytes and pass them."""
        start = self._at
        if size > len(self._contents) - start:
            raise DamagedWeightsError(
                f"{self._path}: is truncated or damaged: its header goes on past its end at byte "
                f"{len(self._contents):,}."
            )
        self._at = start + size
        return start

    def _number(self, kind: str) -> Any:
        dtype = np.dtype(kind)
        return np.frombuffer(self._contents, dtype, 1, self._take(dtype.itemsize))[0].item()

    def _strings(self, count: int) -> list[bytes]:
        """Parse strings that follow each other; a vocabulary has hundreds of thousands."""
        found = []
        contents, at, end = self._contents, self._at, len(self._contents)
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(contents, self._take(_LENGTH.size))
            start = at + _LENGTH.size
            at = start + length
            if length > _MOST_STRING:
                raise self._damaged(f"it has a string of {length:,} bytes")
            if at > end:
                self._take(length)
            found.append(contents[start:at])
            self._at = at
        return found

    def _text(self, what: str) -> str:
        try:
            return self._strings(1)[0].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._damaged(f"{what} is not UTF-8") from error

    def _value(self, key: str, kind: int) -> Any:
        if kind == _STRING:
            return self._strings(1)[0]
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _ARRAY:
            return self._array(key)
        raise self._damaged(f"{key} has the unknown type {kind}")

    def _array(self, key: str, depth: int = 1) -> Any:
        kind, count = self._number("<u4"), self._number("<u8")
        if count > _MOST_ENTRIES or depth > _MOST_DIMENSIONS:
            raise self._damaged(f"{key} has {count:,} entries at depth {depth}")
        if kind == _STRING:
            return self._strings(count)
        if kind == _ARRAY:
            return [self._array(key, depth + 1) for _ in range(count)]
        if kind not in _SCALARS:
            raise self._damaged(f"{key} has entries of the unknown type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        start = self._take(count * dtype.itemsize)
        # A copy: a view would keep the whole file mapped.
        return np.frombuffer(self._contents, dtype, count, start).copy()

    def _table(self, count: int, values: dict[str, Any]) -> dict[str, GgufTensor]:
        alignment = values.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        if (
            not isinstance(alignment, int)
            or alignment < _LEAST_ALIGNMENT
            or alignment & (alignment - 1)
        ):
            raise self._damaged(f"general.alignment is {alignment!r}")
        entries = [self._entry(alignment) for _ in range(count)]
        start = -(-self._at // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        for entry in entries:
            if entry.name in tensors:
                raise self._damaged(f"it has the tensor {entry.name} twice")
            tensors[entry.name] = placed = _moved(entry, start)
            if placed.offset + placed.size > len(self._contents):
                raise DamagedWeightsError(
                    f"{self._path}: is truncated: tensor {entry.name} ends at byte "
                    f"{placed.offset + placed.size:,}, the file at {len(self._contents):,}."
                )
        ordered = sorted(tensors.values(), key=lambda tensor: tensor.offset)
        for first, second in pairwise(ordered):
            if first.offset + first.size > second.offset:
                raise self._damaged(f"the tensors {first.name} and {second.name} overlap")
        return tensors

    def _entry(self, alignment: int) -> GgufTensor:
        """Parse an entry of the table; its offset is still counted from the first tensor."""
        name = self._text("the name of a tensor")
        dimensions = self._number("<u4")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise self._damaged(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(self._number("<u8") for _ in range(dimensions))[::-1]
        number, offset = self._number("<u4"), self._number("<u8")
        try:
            kind = gguf.GGMLQuantizationType(number)
        except ValueError as error:
            raise ModelFileError(
                f"{self._path}: tensor {name} is stored as type {number} of ggml, which is not "
                "known here. Take a file in another format, such as Q4_K_M."
            ) from error
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        if 0 in shape or shape[-1] % block:
            raise self._damaged(f"tensor {name} of type {kind.name} has shape {list(shape)}")
        elements = 1
        for size in shape:
            elements *= size
        if offset % alignment:
            raise self._damaged(f"tensor {name} is not aligned")
        return GgufTensor(name, shape, kind, self._path, offset, elements // block * block_bytes)


def _moved(entry: GgufTensor, start: int) -> GgufTensor:
    return GgufTensor(
        entry.name, entry.shape, entry.kind, entry.path, start + entry.offset, entry.size
    )
