"""The manifest of a saved state: what is saved, for which model, and in which files."""

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hga_engine.errors import SavedStateError

FORMAT_VERSION = 3
_ROUTER_FIELDS_1 = {
    "router": "kind",
    "paper_kept_chunks": "paper_chunks",
    "traced_tokens": "trace_bin_tokens",
}
"""Fields of a version-1 router that have other names in ``Routing``."""
_UNUSED_1 = (
    "gpu_group_size",
    "gpu_prefill_group_size",
    "gpu_prefill_budget",
    "gpu_prefill_block",
    "gpu_scoring_stride",
)
"""Settings of the GPU, which a version-1 state of either device held beside those in use."""
_ADDED = {"decode_odds": 1.0, "prefill_odds": 1.0}
"""Fields of ``Routing`` that earlier states do not hold, and what they stood for."""
MANIFEST = "state.json"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Geometry:
    """The properties that must match for saved K/V to be usable. Sizes as in the configuration."""

    layers: int
    kv_heads: int
    head_dim: int
    group_size: int
    context: int
    dtype: str
    page_bytes: int
    rope: str = "unscaled"
    """How RoPE is scaled. States before format 3 do not say it."""

    @property
    def max_groups(self) -> int:
        """Groups of a full context."""
        return -(-self.context // self.group_size)

    @property
    def file_bytes(self) -> int:
        """Length of the sparse file of pages."""
        return self.layers * self.kv_heads * self.max_groups * self.page_bytes


@dataclass(frozen=True)
class FileRecord:
    """A file beside the manifest, as it was written."""

    name: str
    bytes: int
    crc32: int


@dataclass(frozen=True)
class IndexRecord:
    """The saved routing index: chunks it covers, and by which routing they were indexed."""

    file: FileRecord
    chunks: int
    router: str
    chunk_size: int
    group_size: int
    packing: str = "slabs"
    """How token codes are packed."""


@dataclass(frozen=True)
class Manifest:
    """The description of a saved state, as its manifest file holds it."""

    model_name: str
    fingerprint: str
    routing: dict[str, Any]
    """Fields of ``Routing`` of the engine that saved it last."""
    geometry: Geometry
    tokens: int
    """Tokens of the session; those from ``stored`` on have no K/V yet."""
    stored: int
    generation: int
    """Number in the names of the files written last."""
    token_file: FileRecord
    index: IndexRecord | None

    @property
    def closed_groups(self) -> int:
        """Groups whose pages are in the file of pages."""
        return self.stored // self.geometry.group_size

    def cut(self, tokens: int) -> "Manifest":
        """The beginning of the state that ends with the last full group before ``tokens``."""
        kept = min(tokens, self.stored) // self.geometry.group_size * self.geometry.group_size
        index = self.index
        if index is not None:
            index = replace(index, chunks=min(index.chunks, kept // index.chunk_size))
        return replace(self, tokens=kept, stored=kept, index=index)

    def files(self) -> list[FileRecord]:
        """The files it names, besides that of the pages."""
        return [self.token_file, *([self.index.file] if self.index else [])]


@dataclass(frozen=True)
class SavedInfo:
    """A description of a saved state, available without loading it."""

    tokens: int
    model_name: str
    fingerprint: str
    """The model's fingerprint, as ``Engine.fingerprint``."""
    routing: dict[str, Any]
    """Fields of ``Routing`` of the engine that saved it last."""
    context: int
    disk_bytes: int
    """Bytes of the folder's files on disk."""


def read_info(folder: Path) -> SavedInfo | None:
    """Describe the state saved in a folder; None where there is none.

    Raises:
        SavedStateError: the manifest is damaged, cannot be read, or is of another format.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    return SavedInfo(
        tokens=manifest.tokens,
        model_name=manifest.model_name,
        fingerprint=manifest.fingerprint,
        routing=manifest.routing,
        context=manifest.geometry.context,
        disk_bytes=_disk_bytes(folder),
    )


def read_manifest(folder: Path) -> Manifest | None:
    """Read and check a folder's manifest; None where there is none.

    Raises:
        SavedStateError: it is damaged, cannot be read, or is of another format.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SavedStateError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        body = json.loads(text)
        version = body.pop("format")
        if type(version) is int and not 1 <= version <= FORMAT_VERSION:
            raise SavedStateError(
                f"{path}: has format {version}, this version reads up to {FORMAT_VERSION}."
            )
        if type(version) is not int or body.pop("crc32") != _checksum(body):
            raise ValueError("checksum")
        if version == 1:
            body["routing"] = _routing_from_1(body.pop("router"))
        body["routing"] = _ADDED | body["routing"]
        geometry = Geometry(**body.pop("geometry"))
        token_file = FileRecord(**body.pop("token_file"))
        index = body.pop("index")
        if index is not None:
            index = IndexRecord(file=FileRecord(**index.pop("file")), **index)
        return Manifest(geometry=geometry, token_file=token_file, index=index, **body)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(path) from error


def _routing_from_1(router: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of ``Routing`` that a version-1 router stands for.

    K/V, index and token files are the same in both versions. A setting that there no longer is
    stays as it was, so that the result equals no routing and the K/V is computed again.
    """
    routing = {_ROUTER_FIELDS_1.get(name, name): value for name, value in router.items()}
    for name in _UNUSED_1:
        routing.pop(name, None)
    if routing.get("recent_tokens") == 0:
        del routing["recent_tokens"]
    return routing


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace a folder's manifest, so that there is the old one or the new one at any moment.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    body = asdict(manifest)
    text = json.dumps({"format": FORMAT_VERSION, **body, "crc32": _checksum(body)}, indent=1)
    beside = folder / (MANIFEST + ".new")
    # Names of the files that it vouches for must be on disk before it is.
    sync_folder(folder)
    try:
        write_file(beside, text.encode())
        beside.replace(folder / MANIFEST)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def write_file(path: Path, data: bytes) -> FileRecord:
    """Write a file that only its owner can read, down to the disk.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    try:
        with create(path) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return FileRecord(path.name, len(data), zlib.crc32(data))


def sync_file(path: Path) -> FileRecord:
    """Bring a file that was written down to the disk.

    Raises:
        OSError: it cannot be.
    """
    with path.open("rb+", buffering=0) as file:
        os.fsync(file.fileno())
    checksum, size = _sum(path)
    return FileRecord(path.name, size, checksum)


def check_file(folder: Path, record: FileRecord) -> Path:
    """The path of a file that is as it was written.

    Raises:
        SavedStateError: it is missing, damaged or cannot be read.
    """
    path = folder / Path(record.name).name
    try:
        checksum, size = _sum(path)
    except OSError as error:
        raise SavedStateError(f"{path}: cannot be read ({error.strerror}).") from error
    if (size, checksum) != (record.bytes, record.crc32):
        raise damaged(path)
    return path


def remove_others(folder: Path, manifest: Manifest) -> None:
    """Remove files of earlier saves, and what a killed process left half written."""
    named = {file.name for file in manifest.files()}
    for pattern in ("tokens.*.safetensors", "index.*.safetensors", MANIFEST + ".new"):
        for path in folder.glob(pattern):
            if path.name not in named:
                path.unlink(missing_ok=True)


def index_name(generation: int) -> str:
    """Name of a file that holds an index."""
    return f"index.{generation}.safetensors"


def damaged(path: Path, what: str = "its checksum differs") -> SavedStateError:
    """The error for a file that is not what was saved."""
    return SavedStateError(f"{path}: is damaged ({what}).")


@contextmanager
def create(path: Path) -> Iterator[int]:
    """A descriptor of a new, empty file that only its owner can read or write."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    file = os.open(path, flags, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _sum(path: Path) -> tuple[int, int]:
    """CRC-32 and length of a file."""
    checksum = size = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            checksum, size = zlib.crc32(block, checksum), size + len(block)
    return checksum, size


def _checksum(body: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def _disk_bytes(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:  # A save is going on.
            continue
    return total
