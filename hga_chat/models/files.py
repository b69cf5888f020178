"""Model files with known checksums: checking them, and the errors of models."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hga_engine.errors import EngineError, ModelFileError

Note = Callable[[str], None]
"""Called with each message, one line long."""
Progress = Callable[[str, float], None]
"""Called with the current activity and its progress, 0 to 1."""
_BLOCK = 1 << 20


class ModelMissingError(EngineError):
    """A model is not on this machine, or no model has that name."""


class FetchError(EngineError):
    """A model could not be fetched: no network, no pip, no disk space."""


class HubError(FetchError):
    """The Hugging Face Hub cannot be reached, broke the connection or refused."""

    def __init__(self, text: str, reason: str) -> None:
        """Describe the failure.

        Args:
            text: What could not be fetched, why, and what to do.
            reason: The cause alone, as the start of a sentence.
        """
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Fetch:
    """What is about to be fetched."""

    name: str
    size_bytes: int
    left_bytes: int
    """What earlier attempts have not fetched yet."""
    where: str


Confirm = Callable[[Fetch], bool]
"""Says whether to fetch; called once before anything large moves."""


@dataclass(frozen=True)
class StoredFile:
    """A file with its expected size and checksum."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class VerifiedFile:
    """A file on disk whose size and checksum are as expected."""

    path: Path
    size_bytes: int
    sha256: str


def check_size(path: Path, expected: StoredFile) -> None:
    """Check that a file exists and has the expected size.

    Raises:
        ModelFileError: It does not.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
    if size != expected.size_bytes:
        raise ModelFileError(
            f"{path}: is damaged ({size:,} bytes instead of {expected.size_bytes:,}). "
            "Run 'hga-chat models pull' to fetch it again."
        )


def verify(
    paths: Sequence[Path], expected: Sequence[StoredFile], progress: Progress
) -> tuple[VerifiedFile, ...]:
    """Check every byte of files.

    Args:
        paths: Paths of the files.
        expected: The files that they should be.
        progress: Called with the share of bytes checked.

    Raises:
        ModelFileError: A file is missing or damaged.
    """
    for path, file in zip(paths, expected, strict=True):
        check_size(path, file)
    total = sum(file.size_bytes for file in expected) or 1
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
                "Run 'hga-chat models pull' to fetch it again."
            )
        verified.append(VerifiedFile(path, file.size_bytes, file.sha256))
    return tuple(verified)
