"""Lists and fetches the files of a repository of the Hugging Face Hub."""

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
_OTHERS = ("LICENSE",)
_BLOCK = 1 << 20
_TIMEOUT_S = 20


@dataclass(frozen=True)
class HubFile:
    """A file as listed by the hub."""

    name: str
    size_bytes: int
    checksum: str
    """SHA-256 in hex; for small files git's blob id, a SHA-1 in hex."""

    def is_in(self, path: Path, progress: Progress) -> bool:
        """Whether a file on disk is this one, byte for byte."""
        if path.stat().st_size != self.size_bytes:
            return False
        digest = hashlib.sha256()
        if len(self.checksum) == 40:
            digest = hashlib.sha1(f"blob {self.size_bytes}\0".encode(), usedforsecurity=False)
        return _digest(path, digest, progress, self.size_bytes) == self.checksum

    def as_stored(self, path: Path) -> StoredFile:
        """Return the file with its SHA-256, computed from the file on disk if the hub has none."""
        sha256 = self.checksum
        if len(sha256) == 40:
            sha256 = _digest(path, hashlib.sha256(), lambda _, __: None, self.size_bytes)
        return StoredFile(self.name, self.size_bytes, sha256)


class RemoteFiles:
    """The files of one commit of a repository."""

    def __init__(self, name: str, repository: str, revision: str) -> None:
        """List the files.

        Args:
            name: Name of the model, for errors.
            repository: Such as ``Qwen/Qwen3-30B-A3B``.
            revision: Branch, tag or commit.

        Raises:
            FetchError: The hub cannot be reached or has no such repository.
            ModelFileError: The repository does not contain a model.
        """
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils import disable_progress_bars, logging

        disable_progress_bars()
        logging.set_verbosity_error()
        self._name = name
        self._repository = repository
        # The library reads the variable only when it is imported.
        self.endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        with self._errors_for_people():
            info = HfApi(endpoint=self.endpoint, library_name="hga-chat").model_info(
                repository, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
            )
        self.commit = info.sha or revision
        listed = [_as_file(sibling) for sibling in info.siblings or ()]
        self.files = sorted((file for file in listed if file), key=lambda file: file.size_bytes)
        """Smallest first, so that problems with the repository show before the long wait."""
        names = {file.name for file in self.files}
        missing = [required for required in _REQUIRED if required not in names]
        if not any(known.endswith(".safetensors") for known in names):
            missing.append("*.safetensors")
        if missing:
            raise ModelFileError(f"{repository} at {self.endpoint} has no {missing[0]}.")

    def fetch(self, file: HubFile, part: Path, report: Callable[[int], None]) -> None:
        """Fetch the rest of a file and append it to ``part``.

        Args:
            file: A file of this commit.
            part: The first bytes of the file; created if missing.
            report: Called with the number of bytes fetched so far.

        Raises:
            FetchError: The connection breaks, or the hub refuses the file.
            OSError: The disk is full or cannot be written.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(self._repository, file.name, revision=self.commit, endpoint=self.endpoint)
        with _Watched(part, report) as opened, self._errors_for_people():
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
                "model's files in a folder and pass that to --model."
            ) from error
        except HfHubHTTPError as error:
            raise FetchError(self._refusal(error)) from error
        except (httpx2.ReadError, httpx2.ReadTimeout, httpx2.RemoteProtocolError) as error:
            raise FetchError(
                f"{self._name} cannot be fetched: the connection to {self.endpoint} broke. The "
                "part fetched so far is kept; run the same command again."
            ) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise FetchError(
                f"{self._name} cannot be fetched: {self.endpoint} cannot be reached "
                f"({type(error).__name__}). Check the network; the part fetched so far is kept."
            ) from error
        except OSError as error:
            if error.errno is not None:
                raise
            # Raised by the library for a transfer of the wrong length.
            raise FetchError(
                f"{self._name} cannot be fetched: {self.endpoint} sent a file of the wrong length. "
                "The part fetched so far is kept; run the same command again."
            ) from error

    def _refusal(self, error: "HfHubHTTPError") -> str:
        status = error.response.status_code
        what = f"{self._name} cannot be fetched: {self.endpoint} answered {status}"
        if status in (401, 403):
            return f"{what} for {self._repository}. Check HF_TOKEN and HF_ENDPOINT."
        if status == 404:
            return f"{what}: {self._repository} or a file of it does not exist. Check HF_ENDPOINT."
        return f"{what}. The part fetched so far is kept; try again later."


class _Watched(io.FileIO):
    """A file that reports its length as it grows."""

    def __init__(self, path: Path, report: Callable[[int], None]) -> None:
        super().__init__(path, "ab")
        self._report = report

    def write(self, data: "ReadableBuffer", /) -> int:
        view = memoryview(data)
        written = 0
        while written < len(view):
            written += super().write(view[written:])
            self._report(self.tell())
        return written


def _as_file(sibling: "RepoSibling") -> HubFile | None:
    """Return a file of the repository; None if it is not part of the model."""
    name = sibling.rfilename
    is_plain = name == Path(name).name and not name.startswith(".")
    if not is_plain or not (name.endswith(_SUFFIXES) or name in _OTHERS):
        return None
    checksum = sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id
    if sibling.size is None or checksum is None:
        raise ModelFileError(f"{name}: the hub does not list its size and checksum.")
    return HubFile(name, sibling.size, checksum)


def _digest(path: Path, digest: "hashlib._Hash", progress: Progress, size: int) -> str:
    done = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress(f"Checking {path.name}", done / size)
    return digest.hexdigest()
