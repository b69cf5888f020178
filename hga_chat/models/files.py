"""Files of models that are known byte for byte, and what can go wrong with them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hga_engine.errors import EngineError, ModelFileError

Note = Callable[[str], None]
"""Is told what happens, a line at a time."""
Progress = Callable[[str, float], None]
"""Is told what is being done and how far, 0 to 1."""
_BLOCK = 1 << 20


class ModelMissingError(EngineError):
    """A model is not on this machine, or there is none of that name."""


class FetchError(EngineError):
    """A model could not be fetched: no network, no pip, no room on the disk."""


@dataclass(frozen=True)
class StoredFile:
    """A file that is known byte for byte."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class VerifiedFile:
    """A file whose every byte is as it should be."""

    path: Path
    size_bytes: int
    sha256: str


def check_size(path: Path, expected: StoredFile) -> None:
    """See that a file is there, in its length.

    Raises:
        ModelFileError: it is not.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
    if size != expected.size_bytes:
        raise ModelFileError(
            f"{path}: is damaged ({size:,} bytes instead of {expected.size_bytes:,}). "
            "'hga-chat models pull' fetches it again."
        )


def verify(
    paths: Sequence[Path], expected: Sequence[StoredFile], progress: Progress
) -> tuple[VerifiedFile, ...]:
    """Check every byte of files.

    Args:
        paths: of the files.
        expected: what they should be.
        progress: told how far, by bytes.

    Raises:
        ModelFileError: one is missing or damaged.
    """
    for path, file in zip(paths, expected, strict=True):
        check_size(path, file)
    total = sum(file.size_bytes for file in expected)
    done = 0
    verified = []
    for path, file in zip(paths, expected, strict=True):
        digest = hashlib.sha256()
        with path.open("rb") as opened:
            while block := opened.read(_BLOCK):
                digest.update(block)
                done += len(block)
                progress("Checking", min(done / total, 1.0))
        if digest.hexdigest() != file.sha256:
            raise ModelFileError(
                f"{path}: is damaged (its SHA-256 is not the model's). "
                "'hga-chat models pull' fetches it again."
            )
        verified.append(VerifiedFile(path, file.size_bytes, file.sha256))
    return tuple(verified)
