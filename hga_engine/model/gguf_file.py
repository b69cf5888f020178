"""Metadata and tensors of a model in GGUF (llama.cpp's format): one file, or several parts."""

from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import gguf
import numpy as np
import numpy.typing as npt

from hga_engine.errors import DamagedWeightsError, ModelFileError
from hga_engine.model.files import gguf_parts
from hga_engine.model.gguf_header import GgufHeader, GgufTensor, read_header

Value = TypeVar("Value", int, float, str, bool)


class GgufFile:
    """Metadata and tensors of a model. Metadata is that of the first part of a split file."""

    def __init__(self, path: Path) -> None:
        """Parse the headers of a file and, if it is one of several parts, of all of them.

        Args:
            path: of the file, or of any of its parts.

        Raises:
            ModelFileError: a file is missing, truncated, damaged, or no part of this model.
        """
        parts = gguf_parts(path)
        self.path = parts[0]
        headers = [_read_part(part, len(parts)) for part in parts]
        self._values = headers[0].values
        self._tensors: dict[str, GgufTensor] = {}
        for number, header in enumerate(headers):
            _check_part(header, number, len(parts))
            for name, tensor in header.tensors.items():
                if name in self._tensors:
                    first = self._tensors[name].path.name
                    raise ModelFileError(f"{header.path}: tensor {name} is also in {first}.")
                self._tensors[name] = tensor
        total = self.value("split.tensors.count", int, len(self._tensors))
        if total != len(self._tensors):
            raise ModelFileError(
                f"{self.path}: the parts hold {len(self._tensors)} tensors instead of {total}. "
                "They are not of the same model: fetch them again."
            )

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
        return key in self._values

    def has_tensor(self, name: str) -> bool:
        """Whether the file has a tensor."""
        return name in self._tensors

    def tensor_names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor.

        Raises:
            ModelFileError: the tensor is missing.
        """
        return self._entry(name).shape

    def kinds(self) -> set[str]:
        """Types of the tensors, such as "Q4_K"."""
        return {tensor.kind.name for tensor in self._tensors.values()}

    def entry(self, name: str, shape: tuple[int, ...]) -> GgufTensor:
        """Locate a tensor.

        Raises:
            ModelFileError: the tensor is missing, of another shape or an unsupported type.
        """
        entry = self._entry(name)
        if not _is_known(entry.kind):
            raise ModelFileError(
                f"{entry.path}: tensor {name} is stored as {entry.kind.name}, which is not "
                "supported. Take a file in another format, such as Q4_K_M."
            )
        if entry.shape != shape:
            raise ModelFileError(
                f"{entry.path}: tensor {name} has shape {list(entry.shape)}, not {list(shape)}."
            )
        return entry

    def tensor(
        self, name: str, shape: tuple[int, ...], place: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Dequantise a tensor into new memory.

        Args:
            name: of the tensor.
            shape: of the tensor.
            place: takes this entry of the first dimension alone; None takes all.

        Raises:
            ModelFileError: the tensor is missing, of another shape or an unsupported type, or the
                file cannot be read.
        """
        entry = self.entry(name, shape)
        count = 1 if place is None else shape[0]
        size = entry.size // count
        try:
            with entry.path.open("rb") as file:
                file.seek(entry.offset + size * (place or 0))
                stored = np.frombuffer(file.read(size), np.uint8)
            if stored.size < size:
                raise DamagedWeightsError(f"{entry.path}: is truncated.")
            data = gguf.dequantize(_typed(stored, entry.kind), entry.kind)
        except OSError as error:
            raise ModelFileError(f"{entry.path}: cannot be read ({error.strerror}).") from error
        return np.array(data, dtype=np.float32).reshape(shape if place is None else shape[1:])

    def _entry(self, name: str) -> GgufTensor:
        entry = self._tensors.get(name)
        if entry is None:
            raise ModelFileError(f"{self.path}: tensor {name} is missing.")
        return entry

    def _contents(self, key: str) -> object:
        found = self._values.get(key)
        try:
            return _decoded(found)
        except UnicodeDecodeError as error:
            raise DamagedWeightsError(f"{self.path}: {key} is not UTF-8.") from error


def _decoded(found: Any) -> Any:
    """Return metadata as strings, numbers and lists of them."""
    if isinstance(found, bytes):
        return found.decode("utf-8")
    if isinstance(found, list):
        return [_decoded(entry) for entry in found]
    return found.tolist() if isinstance(found, np.ndarray) else found


def _typed(stored: npt.NDArray[np.uint8], kind: gguf.GGMLQuantizationType) -> npt.NDArray[Any]:
    """Return bytes as the library wants them: plain numbers in their own type."""
    plain = {"F16": np.float16, "F32": np.float32, "F64": np.float64}.get(kind.name)
    return stored if plain is None else stored.view(plain)


@cache
def _is_known(kind: gguf.GGMLQuantizationType) -> bool:
    """Whether the library dequantises a type."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    try:
        gguf.dequantize(_typed(np.zeros(size, np.uint8), kind), kind)
    except NotImplementedError:
        return False
    return True


def _read_part(path: Path, parts: int) -> GgufHeader:
    if parts > 1 and not path.exists():
        raise ModelFileError(
            f"{path}: is missing. The model is split into {parts} files, which must all be in one "
            "folder."
        )
    return read_header(path)


def _check_part(header: GgufHeader, number: int, parts: int) -> None:
    """Hold what a file says about its place among the parts against its name."""
    count, place = header.values.get("split.count", 1), header.values.get("split.no", 0)
    count = max(count, 1) if isinstance(count, int) else count
    if parts == 1 and count != 1:
        raise ModelFileError(
            f"{header.path}: is one of {count} parts of a model. Their names must end in "
            f"-00001-of-{count:05}.gguf and so on, as they were published."
        )
    if (place, count) != (number, parts):
        raise DamagedWeightsError(
            f"{header.path}: is not part {number + 1} of {parts} of this model."
        )


@lru_cache(maxsize=1)
def open_gguf(path: Path) -> GgufFile:
    """Open the file at ``path``; cached, because tokenizer and weights both need it.

    Raises:
        ModelFileError: the file is missing, truncated or damaged.
    """
    return GgufFile(path)
