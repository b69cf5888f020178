"""A model from a repository of the Hugging Face Hub."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from hga_chat.models.files import (
    FetchError,
    ModelMissingError,
    Note,
    Progress,
    StoredFile,
    VerifiedFile,
    check_size,
    verify,
)
from hga_chat.models.hub_files import HubFile, RemoteFiles
from hga_chat.output import human_bytes
from hga_chat.paths import models_dir
from hga_engine.errors import ModelFileError
from hga_engine.model.files import ModelFiles

_RECORD = "fetched.record"
"""Written once all files are checked; not named ``.json``, as files of the model are."""
_PART = ".part"


@dataclass(frozen=True)
class HubModel:
    """A Hugging Face model, fetched over HTTP and checked file by file."""

    name: str
    repository: str
    revision: str
    """Branch, tag or commit."""
    about_bytes: int
    """Estimated size of all files, for use before they are listed."""
    needs: str | None = None

    @property
    def directory(self) -> Path:
        """The directory of its files."""
        return models_dir() / self.name

    @property
    def size_bytes(self) -> int:
        """Size of all its files; an estimate until it has been fetched."""
        try:
            return sum(file.size_bytes for file in self._record())
        except ModelFileError:
            return self.about_bytes

    def is_here(self) -> bool:
        """Whether it has been fetched completely."""
        return (self.directory / _RECORD).exists()

    def find(self) -> ModelFiles:
        """Return its files.

        Raises:
            ModelMissingError: It has not been fetched completely.
            ModelFileError: A file is damaged.
        """
        if not self.is_here():
            started = self.directory.is_dir() and any(self.directory.glob(f"*{_PART}"))
            state, rest = ("is incomplete", "the rest") if started else ("is not here", "it")
            raise ModelMissingError(
                f"The model {self.name} {state}; run 'hga-chat models pull {self.name}' to fetch "
                f"{rest}."
            )
        for file in self._record():
            check_size(self.directory / file.name, file)
        return ModelFiles(self.name, self.directory, None)

    def verify(self, progress: Progress) -> tuple[VerifiedFile, ...]:
        """Check every byte.

        Raises:
            ModelMissingError: It has not been fetched completely.
            ModelFileError: A file is damaged.
        """
        self.find()
        record = self._record()
        return verify([self.directory / file.name for file in record], record, progress)

    def fetch(self, note: Note, progress: Progress) -> ModelFiles:
        """Fetch it unless it is complete and undamaged; resume where an earlier attempt ended.

        Raises:
            FetchError: It could not be fetched.
            ModelFileError: The fetched files are not those that the hub lists.
        """
        if self.is_here():
            try:
                self.verify(progress)
            except ModelFileError as error:
                note(f"{str(error).partition(' (')[0]}; fetching it again.")
            else:
                note(f"{self.name} is complete: {self.directory}")
                return self.find()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with _locked(self.directory, self.name):
                self._fetch(note, progress)
        except KeyboardInterrupt:
            note(f"The part of {self.name} fetched so far is kept; run the same command to resume.")
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise FetchError(
                    f"The disk is full: {self.directory}. The part fetched so far is kept; free "
                    "some space and run the same command again."
                ) from error
            raise FetchError(f"{self.directory}: cannot be written ({error.strerror}).") from error
        note(f"{self.name} is ready: {self.directory}")
        return self.find()

    def _fetch(self, note: Note, progress: Progress) -> None:
        remote = RemoteFiles(self.name, self.repository, self.revision)
        (self.directory / _RECORD).unlink(missing_ok=True)
        wanted = [file for file in remote.files if not self._has(file, progress)]
        for file in wanted:
            if self._fetched(file) > file.size_bytes:
                self._part(file).unlink()
        size = sum(file.size_bytes for file in remote.files)
        left = sum(file.size_bytes - self._fetched(file) for file in wanted)
        self._require_room(left)
        rest = f", {human_bytes(left)} left to fetch" if left < size else ""
        where = f"{remote.endpoint}/{self.repository}"
        note(f"Fetching {self.name} from {where} ({human_bytes(size)}{rest}).")
        done = size - sum(file.size_bytes for file in wanted)
        for file in wanted:

            def report(count: int, before: int = done) -> None:
                fetched = f"{human_bytes(before + count)} of {human_bytes(size)}"
                progress(f"Fetching {self.name}, {fetched}", (before + count) / size)

            self._fetch_file(remote, file, report, progress)
            done += file.size_bytes
        stored = [file.as_stored(self.directory / file.name) for file in remote.files]
        self._keep_record(remote.commit, stored)
        for part in self.directory.glob(f"*{_PART}"):  # left over from other revisions
            part.unlink()

    def _fetch_file(
        self, remote: RemoteFiles, file: HubFile, report: Callable[[int], None], progress: Progress
    ) -> None:
        part = self._part(file)
        remote.fetch(file, part, report)
        if not file.is_in(part, progress):
            part.unlink()
            raise ModelFileError(
                f"{file.name}: the file from {remote.endpoint} does not have the checksum listed "
                "there. It has been removed; run the same command again."
            )
        part.replace(self.directory / file.name)

    def _has(self, file: HubFile, progress: Progress) -> bool:
        path = self.directory / file.name
        return path.is_file() and file.is_in(path, progress)

    def _part(self, file: HubFile) -> Path:
        """Return where a file is stored while it is fetched; the name depends on its checksum."""
        return self.directory / f"{file.name}.{file.checksum[:12]}{_PART}"

    def _fetched(self, file: HubFile) -> int:
        """Return how many bytes of a file have been fetched already."""
        try:
            return self._part(file).stat().st_size
        except FileNotFoundError:
            return 0

    def _require_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.directory).free
        if needed > free:
            raise FetchError(
                f"There is no room for {self.name} in {self.directory}: {human_bytes(needed)} "
                f"needed, {human_bytes(free)} free.\nFree some space, or set HGA_CHAT_MODELS_DIR "
                "to a folder on another disk."
            )

    def _record(self) -> list[StoredFile]:
        path = self.directory / _RECORD
        try:
            files = [StoredFile(**file) for file in json.loads(path.read_text("utf-8"))["files"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(
                f"{path}: is damaged. Run 'hga-chat models pull {self.name}' to replace it."
            ) from error
        return files

    def _keep_record(self, commit: str, files: list[StoredFile]) -> None:
        record = {
            "repository": self.repository,
            "commit": commit,
            "files": [asdict(file) for file in files],
        }
        beside = self.directory / f".{_RECORD}"
        beside.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
        beside.replace(self.directory / _RECORD)


@contextmanager
def _locked(directory: Path, name: str) -> Iterator[None]:
    """Hold a lock so that no other process fetches the same model."""
    opened = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise FetchError(f"{name} is being fetched by another process.") from error
    finally:
        os.close(opened)
