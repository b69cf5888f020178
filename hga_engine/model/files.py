"""The files a model is loaded from, and the fingerprint that identifies them."""

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hga_engine.errors import ModelFileError

_BLOCK = 1 << 20
_WHOLE_FILE_BYTES = 256 << 20
_SAMPLE_STRIDE = 64
_TICK_NS = 2_000_000_000
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_MOST_PARTS = 1000


@dataclass(frozen=True)
class ModelFiles:
    """Location of a model: a directory in the Hugging Face layout, or a GGUF file.

    Of a GGUF file in several parts, ``gguf`` is any of them; see ``gguf_parts``.
    """

    name: str
    directory: Path | None
    gguf: Path | None
    adapters: tuple[Path, ...] = ()
    """LoRA files to merge into the weights."""
    rope_base: float | None = None
    """RoPE base of the adapters; None for the model's own."""
    max_positions: int | None = None
    """Positions usable with the adapters; None for the model's own."""
    cache_dir: Path | None = None
    """Folder of the ``weight_cache``; None for no cache."""

    def __post_init__(self) -> None:
        if (self.directory is None) == (self.gguf is None):
            raise ValueError("a model is either a directory or a GGUF file")

    @property
    def path(self) -> Path:
        """The directory or the GGUF file."""
        path = self.directory or self.gguf
        assert path is not None
        return path


def gguf_parts(path: Path) -> list[Path]:
    """Return the files of a GGUF model, in order, given any of them.

    llama.cpp's ``gguf-split`` names them ``NAME-00001-of-00003.gguf`` and so on. Whether they exist
    is not checked.
    """
    match = _PART.fullmatch(path.name)
    count = int(match[3]) if match is not None else 0
    if match is None or not 0 < int(match[2]) <= count <= _MOST_PARTS:
        return [path]
    return [
        path.with_name(f"{match[1]}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1)
    ]


def fingerprint(files: ModelFiles) -> str:
    """Return a SHA-256 (hex) over everything that decides what a model computes.

    Of files larger than 256 MiB it covers the size, the first and last MiB and every 64th MiB
    between, so that 30 GB take about a second.

    Raises:
        ModelFileError: a file cannot be read.
    """
    stamps = []
    paths = (*_parts(files), *files.adapters)
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
        stamps.append((path, stat.st_size, stat.st_mtime_ns, stat.st_ino))
    settings = f"{files.rope_base!r} {files.max_positions!r}"
    newest = max(changed for _, _, changed, _ in stamps)
    # A file that changed within the last tick of the clock may change again without showing it.
    digest = _digest if time.time_ns() - newest > _TICK_NS else _digest.__wrapped__
    return digest(settings, tuple(stamps))


@lru_cache(maxsize=4)
def _digest(settings: str, stamps: Sequence[tuple[Path, int, int, int]]) -> str:
    """Return the digest of files with these (path, size, mtime, inode); asked for repeatedly."""
    digest = hashlib.sha256(settings.encode())
    for path, size, *_ in stamps:
        digest.update(f"\0{path.name}\0{size}\0".encode())
        try:
            with path.open("rb") as file:
                for offset in _offsets(size):
                    file.seek(offset)
                    digest.update(file.read(_BLOCK))
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
    return digest.hexdigest()


def _parts(files: ModelFiles) -> list[Path]:
    if files.directory is None:
        return gguf_parts(files.path)
    patterns = ("*.json", "*.jinja", "*.safetensors")
    parts = sorted(path for pattern in patterns for path in files.directory.glob(pattern))
    if not parts:
        raise ModelFileError(f"{files.directory}: does not hold a model (no config.json).")
    return parts


def _offsets(size: int) -> Iterator[int]:
    stride = _BLOCK if size <= _WHOLE_FILE_BYTES else _BLOCK * _SAMPLE_STRIDE
    yield from range(0, size, stride)
    if stride > _BLOCK:
        yield size - _BLOCK
