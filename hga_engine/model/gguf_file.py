"""Read GGUF files (llama.cpp's format) with the ``gguf`` library."""

import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import gguf
import numpy as np
import numpy.typing as npt

from hga_engine.errors import ModelFileError

_Parts = tuple[int, list[npt.NDArray[Any]], list[int], list[gguf.GGUFValueType]]
_LENGTH = struct.Struct("=Q")
Value = TypeVar("Value", int, float, str, bool)
_DAMAGE = (
    *(ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, AttributeError),
    struct.error,
)
"""Errors that the library raises on damaged files."""


class _Reader(gguf.GGUFReader):  # type: ignore[misc]
    """The library's reader, with a check for the end of the file.

    Without it a damaged count makes the library loop far beyond the file.
    """

    data: npt.NDArray[Any]

    def _get(self, offset: int, dtype: Any, count: int = 1, **options: Any) -> npt.NDArray[Any]:
        # Slicing a plain array takes a third of the time of slicing a memmap.
        self.data = np.asarray(self.data)
        found: npt.NDArray[Any] = super()._get(offset, dtype, count, **options)
        if found.size < count:
            raise ValueError("the file is truncated")
        return found

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> _Parts:
        """Do the same as the library, which takes a second for the arrays of a vocabulary."""
        kind = None
        if raw_type == gguf.GGUFValueType.ARRAY and self.byte_order == "I":
            kind = gguf.GGUFValueType(int(self._get(orig_offs, np.uint32)[0]))
        if kind in (None, gguf.GGUFValueType.ARRAY):
            parts: _Parts = super()._get_field_parts(orig_offs, raw_type)
            return parts
        count = int(self._get(orig_offs + 4, np.uint64)[0])
        start = orig_offs + 12
        types = [gguf.GGUFValueType.ARRAY, *[kind] * bool(count)]
        scalar = self.gguf_scalar_to_np.get(kind)
        if scalar is not None:
            values = self._get(start, scalar, count)
            return 12 + values.nbytes, [values], [0], types
        strings = []
        offset = start
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(self.data.data, offset)
            offset += _LENGTH.size
            strings.append(self.data[offset : offset + length])
            offset += length
            if offset > self.data.size:
                raise ValueError("the file is truncated")
        return offset - orig_offs, strings, list(range(count)), types


class GgufFile:
    """Metadata and tensors of one GGUF file."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            ModelFileError: the file is missing, truncated or damaged.
        """
        self.path = path
        try:
            self._reader = _Reader(path)
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
        except _DAMAGE as error:
            raise ModelFileError(f"{path}: is damaged or not a GGUF file ({error}).") from error
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    def value(self, key: str, kind: type[Value], default: Value | None = None) -> Value:
        """Return a metadata value; integers pass as ``float``.

        Raises:
            ModelFileError: the value is missing and has no default, or has another type.
        """
        found = self._contents(key)
        if found is None and default is not None:
            return default
        if kind is float and isinstance(found, int) and not isinstance(found, bool):
            return kind(found)
        if isinstance(found, kind) and (kind is bool or not isinstance(found, bool)):
            return found
        raise ModelFileError(f"{self.path}: {key} is {'missing' if found is None else 'damaged'}.")

    def values(self, key: str, kind: type[Value]) -> list[Value]:
        """Return a metadata array.

        Raises:
            ModelFileError: the array is missing or has elements of another type.
        """
        found = self._contents(key)
        if isinstance(found, list) and all(isinstance(entry, kind) for entry in found):
            return found
        raise ModelFileError(f"{self.path}: {key} is {'missing' if found is None else 'damaged'}.")

    def has(self, key: str) -> bool:
        """Whether the file has a metadata key."""
        return key in self._reader.fields

    def has_tensor(self, name: str) -> bool:
        """Whether the file has a tensor."""
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor.

        Raises:
            ModelFileError: the tensor is missing.
        """
        entry = self._tensors.get(name)
        if entry is None:
            raise ModelFileError(f"{self.path}: tensor {name} is missing.")
        return tuple(int(size) for size in reversed(entry.shape))

    def tensor_names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._tensors)

    def tensor(
        self, name: str, shape: tuple[int, ...], place: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Dequantise a tensor into new memory.

        Args:
            name: of the tensor.
            shape: of the tensor.
            place: takes this entry of the first dimension alone; None takes all.

        Raises:
            ModelFileError: the tensor is missing, damaged, of another shape or an unsupported type.
        """
        found = self.shape(name)
        if found != shape:
            raise ModelFileError(
                f"{self.path}: tensor {name} has shape {list(found)}, not {list(shape)}."
            )
        entry = self._tensors[name]
        try:
            stored = entry.data if place is None else entry.data[place]
            data = gguf.dequantize(stored, entry.tensor_type)
        except NotImplementedError as error:
            kind = entry.tensor_type.name
            raise ModelFileError(
                f"{self.path}: tensor {name} is stored as {kind}, which is not supported."
            ) from error
        except _DAMAGE as error:
            raise ModelFileError(f"{self.path}: tensor {name} is damaged ({error}).") from error
        return np.array(data, dtype=np.float32).reshape(shape if place is None else shape[1:])

    def _contents(self, key: str) -> object:
        field = self._reader.fields.get(key)
        if field is None:
            return None
        try:
            return field.contents()
        except _DAMAGE as error:
            raise ModelFileError(f"{self.path}: {key} is damaged ({error}).") from error


@lru_cache(maxsize=1)
def open_gguf(path: Path) -> GgufFile:
    """Open the file at ``path``; cached, because tokenizer and weights both need it.

    Raises:
        ModelFileError: the file is missing, truncated or damaged.
    """
    return GgufFile(path)
