"""Lists and fetches the files of a repository of the Hugging Face Hub."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hga_chat.models.files import (
    FetchError,
    HubError,
    ModelMissingError,
    Progress,
    StoredFile,
)
from hga_chat.models.gguf_names import choose, gguf_sets
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
_AGAIN = "The part fetched so far is kept; run the same command again."


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


class Repository:
    """A repository of the hub."""

    def __init__(self, name: str, repository: str) -> None:
        """Set up access.

        Args:
            name: Name of the model, for errors.
            repository: Such as ``Qwen/Qwen3-30B-A3B``.
        """
        from huggingface_hub import constants
        from huggingface_hub.utils import disable_progress_bars, logging

        disable_progress_bars()
        logging.set_verbosity_error()
        self._name = name
        self._repository = repository
        # The library reads the variable only when it is imported.
        self.endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")

    @property
    def url(self) -> str:
        """Where people find it."""
        return f"{self.endpoint}/{self._repository}"

    def list_files(self, revision: str) -> tuple[str, list[HubFile]]:
        """Return the commit of a branch, tag or commit, and its files that models are made of.

        Raises:
            FetchError: The hub cannot be reached or has no such repository.
            ModelFileError: The hub does not state the checksum of a file.
        """
        from huggingface_hub import HfApi

        with self._errors_for_people():
            info = HfApi(endpoint=self.endpoint, library_name="hga-chat").model_info(
                self._repository, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
            )
        listed = [_as_file(sibling) for sibling in info.siblings or ()]
        return info.sha or revision, [file for file in listed if file]

    def fetch(self, file: HubFile, commit: str, part: Path, report: Callable[[int], None]) -> None:
        """Fetch the rest of a file and append it to ``part``.

        Args:
            file: A file of the repository.
            commit: The commit that it is in.
            part: The first bytes of the file; created if missing.
            report: Called with the number of bytes fetched so far.

        Raises:
            FetchError: The connection breaks, or the hub refuses the file.
            OSError: The disk is full or cannot be written.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(self._repository, file.name, revision=commit, endpoint=self.endpoint)
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
            raise self._refusal(error) from error
        except (httpx2.ReadError, httpx2.ReadTimeout, httpx2.RemoteProtocolError) as error:
            raise self._failure(f"the connection to {self.endpoint} broke", _AGAIN) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._failure(
                f"{self.endpoint} cannot be reached ({type(error).__name__})",
                "Check the network; the part fetched so far is kept.",
            ) from error
        except OSError as error:
            if error.errno is not None:
                raise
            # Raised by the library for a transfer of the wrong length.
            raise self._failure(
                f"{self.endpoint} sent a file of the wrong length", _AGAIN
            ) from error

    def _refusal(self, error: "HfHubHTTPError") -> HubError:
        status = error.response.status_code
        what = f"{self.endpoint} answered {status}"
        if status == 403 or error.response.headers.get("X-Error-Code") == "GatedRepo":
            return self._failure(
                f"{what} for {self._repository}",
                f"If {self.url} asks you to accept a licence, accept it there, and set HF_TOKEN to "
                "a token of your account.",
            )
        if status == 401:
            return self._failure(
                f"{what} for {self._repository}",
                "It does not exist, or is private or gated: check the name, or set HF_TOKEN to a "
                "token of an account that may read it.",
            )
        if status == 404:
            return self._failure(
                f"{what}: {self._repository} or a file of it does not exist",
                "Check the name and HF_ENDPOINT.",
            )
        return self._failure(what, "The part fetched so far is kept; try again later.")

    def _failure(self, reason: str, advice: str) -> HubError:
        return HubError(f"{self._name} cannot be fetched: {reason}. {advice}", reason)


def choose_files(listed: Sequence[HubFile], quant: str | None, where: str) -> list[HubFile]:
    """Choose the files of one model, smallest first, so that problems show before the long wait.

    Args:
        listed: The files of a repository.
        quant: Names a GGUF model, see ``gguf_names.choose``; None for the safetensors or, without
            any, ``PREFERRED``.
        where: The repository, for errors.

    Raises:
        ModelMissingError: There is no such quantisation, or more than one.
        ModelFileError: There is no model.
    """
    names = {file.name for file in listed}
    sets = gguf_sets(names)
    has_safetensors = any(name.endswith(".safetensors") for name in names)
    if sets and (quant is not None or not has_safetensors):
        chosen = choose(sets, quant, where)
        if not chosen.is_complete:
            raise ModelFileError(
                f"{where} has {len(chosen.names)} of the {chosen.parts} parts of {chosen.stem}."
            )
        wanted = set(chosen.names)
    elif quant is not None:
        raise ModelMissingError(f"{where} has no GGUF files; leave out :{quant}.")
    else:
        if not has_safetensors:
            raise ModelFileError(f"{where} has no model: neither GGUF files nor safetensors.")
        missing = [required for required in _REQUIRED if required not in names]
        if missing:
            raise ModelFileError(f"{where} has no {missing[0]}.")
        wanted = {name for name in names if "/" not in name and not name.endswith(".gguf")}
    chosen_files = (file for file in listed if file.name in wanted)
    return sorted(chosen_files, key=lambda file: (file.size_bytes, file.name))


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
    folders = name.split("/")
    if any(part in ("", "..") or part.startswith(".") or "\\" in part for part in folders):
        return None
    is_gguf = name.lower().endswith(".gguf")  # the parts of split files may be in a folder
    if not is_gguf and (len(folders) > 1 or not (name.endswith(_SUFFIXES) or name in _OTHERS)):
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
