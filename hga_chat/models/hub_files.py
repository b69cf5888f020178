"""What a repository of the Hugging Face Hub holds, and getting it."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hga_chat.models.files import FetchError, Progress, StoredFile
from hga_engine.errors import ModelFileError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoSibling

_SUFFIXES = (".safetensors", ".json", ".jinja")
_REQUIRED = ("config.json", "tokenizer.json")
_ALSO = ("LICENSE",)
_BLOCK = 1 << 20
_TIMEOUT_S = 20


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it."""

    name: str
    size_bytes: int
    checksum: str
    """SHA-256 (hex), or for small files the SHA-1 (hex) that git names their content by."""

    def is_in(self, path: Path, progress: Progress) -> bool:
        """Whether a file on disk is this one, byte for byte."""
        if path.stat().st_size != self.size_bytes:
            return False
        digest = hashlib.sha256()
        if len(self.checksum) == 40:
            digest = hashlib.sha1(f"blob {self.size_bytes}\0".encode(), usedforsecurity=False)
        return _digest(path, digest, progress, self.size_bytes) == self.checksum

    def as_stored(self, path: Path) -> StoredFile:
        """The same with its SHA-256, taken from the file on disk where the hub has none."""
        sha256 = self.checksum
        if len(sha256) == 40:
            sha256 = _digest(path, hashlib.sha256(), lambda _, __: None, self.size_bytes)
        return StoredFile(self.name, self.size_bytes, sha256)


class RemoteFiles:
    """The files of one commit of a repository."""

    def __init__(self, name: str, repository: str, revision: str) -> None:
        """List them.

        Args:
            name: of the model, for errors.
            repository: such as ``Qwen/Qwen3-30B-A3B``.
            revision: branch, tag or commit.

        Raises:
            FetchError: the hub cannot be reached, or has no such repository.
            ModelFileError: the repository does not hold a model.
        """
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils import disable_progress_bars, logging

        disable_progress_bars()
        logging.set_verbosity_error()
        self._name = name
        self._repository = repository
        # The library reads the variable once, when it is imported.
        self.endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        with self._errors_for_people():
            info = HfApi(endpoint=self.endpoint, library_name="hga-chat").model_info(
                repository, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
            )
        self.commit = info.sha or revision
        listed = [_as_file(sibling) for sibling in info.siblings or ()]
        self.files = sorted((file for file in listed if file), key=lambda file: file.size_bytes)
        """Smallest first: what is wrong with the repository shows before the long wait."""
        names = {file.name for file in self.files}
        missing = [required for required in _REQUIRED if required not in names]
        if not any(known.endswith(".safetensors") for known in names):
            missing.append("*.safetensors")
        if missing:
            raise ModelFileError(f"{repository} at {self.endpoint} has no {missing[0]}.")

    def fetch(self, file: HubFile, part: Path, tell: Callable[[int], None]) -> None:
        """Append to ``part`` what is missing of a file.

        Args:
            file: of this commit.
            part: its first bytes; made if it is not there.
            tell: told how many bytes are here, now and then.

        Raises:
            FetchError: the connection breaks, or the hub does not give the file.
            OSError: the disk is full or cannot be written.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(self._repository, file.name, revision=self.commit, endpoint=self.endpoint)
        with _Watched(part, tell) as opened, self._errors_for_people():
            http_get(
                url,
                opened,
                resume_size=opened.tell(),
                headers=build_hf_headers(library_name="hga-chat"),
                expected_size=file.size_bytes,
                displayed_filename=file.name,
            )

    @contextmanager
    def _errors_for_people(self) -> Iterator[None]:
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        try:
            yield
        except OfflineModeIsEnabled as error:
            raise FetchError(
                f"{self._name} cannot be fetched: HF_HUB_OFFLINE is set. Unset it, or put the "
                "model's files into a folder and name that with --model."
            ) from error
        except HfHubHTTPError as error:
            raise FetchError(self._refusal(error)) from error
        except (httpx2.ReadError, httpx2.ReadTimeout, httpx2.RemoteProtocolError) as error:
            raise FetchError(
                f"{self._name} cannot be fetched: the connection to {self.endpoint} broke. What "
                "has been fetched is kept; run the same command again."
            ) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise FetchError(
                f"{self._name} cannot be fetched: {self.endpoint} cannot be reached "
                f"({type(error).__name__}). Is there a network? What has been fetched is kept."
            ) from error
        except OSError as error:
            if error.errno is not None:
                raise
            # The library's own, for a transfer that ended too early or went on too long.
            raise FetchError(
                f"{self._name} cannot be fetched: {self.endpoint} did not send what it announced. "
                "What has been fetched is kept; run the same command again."
            ) from error

    def _refusal(self, error: "HfHubHTTPError") -> str:
        status = error.response.status_code
        what = f"{self._name} cannot be fetched: {self.endpoint} answers {status}"
        if status in (401, 403):
            return f"{what} for {self._repository}. Is HF_TOKEN right, and HF_ENDPOINT?"
        if status == 404:
            return f"{what}: it has no {self._repository}, or not all of it. Is HF_ENDPOINT right?"
        return f"{what}. What has been fetched is kept; run the same command again later."


class _Watched(io.FileIO):
    """A file that tells how long it is while it grows."""

    def __init__(self, path: Path, tell: Callable[[int], None]) -> None:
        super().__init__(path, "ab")
        self._tell = tell

    def write(self, data: "ReadableBuffer", /) -> int:
        view = memoryview(data)
        written = 0
        while written < len(view):
            written += super().write(view[written:])
            self._tell(self.tell())
        return written


def _as_file(sibling: "RepoSibling") -> HubFile | None:
    """A file of the repository; None where it is no part of the model."""
    name = sibling.rfilename
    is_plain = name == Path(name).name and not name.startswith(".")
    if not is_plain or not (name.endswith(_SUFFIXES) or name in _ALSO):
        return None
    checksum = sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id
    if sibling.size is None or checksum is None:
        raise ModelFileError(f"{name}: the hub lists neither size nor checksum.")
    return HubFile(name, sibling.size, checksum)


def _digest(path: Path, digest: "hashlib._Hash", progress: Progress, size: int) -> str:
    done = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress(f"Checking {path.name}", done / size)
    return digest.hexdigest()
