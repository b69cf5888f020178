"""Finds, lists, fetches and verifies models by name."""

from dataclasses import dataclass
from pathlib import Path

from hga_chat.models.catalogue import (
    CATALOGUE,
    EMBEDDED_MODEL,
    GEOMETRIES,
    CatalogueModel,
)
from hga_chat.models.files import FetchError, ModelMissingError, Note, Progress, VerifiedFile
from hga_engine.config import ModelConfig
from hga_engine.errors import ModelFileError
from hga_engine.model.files import ModelFiles

__all__ = [
    "EMBEDDED_MODEL",
    "FetchError",
    "ListedModel",
    "ModelMissingError",
    "VerifiedFile",
    "find_model",
    "geometry_of",
    "list_models",
    "pull_model",
    "verify_model",
]


@dataclass(frozen=True)
class ListedModel:
    """A model of the catalogue, and where it is on this machine."""

    name: str
    directory: Path | None
    """None if the model has not been fetched."""
    size_bytes: int
    needs: str | None = None
    """Special hardware that the model needs, if any."""


def list_models() -> list[ListedModel]:
    """Return the models of the catalogue."""
    return [
        ListedModel(
            model.name,
            model.directory if model.is_here() else None,
            model.size_bytes,
            model.needs,
        )
        for model in CATALOGUE.values()
    ]


def find_model(name_or_directory: str) -> ModelFiles:
    """Return the files of a model: a name of the catalogue or a Hugging Face model directory.

    Raises:
        ModelMissingError: The model is not on this machine.
        ModelFileError: Its files are damaged.
    """
    model = CATALOGUE.get(name_or_directory)
    return _find_directory(name_or_directory) if model is None else model.find()


def geometry_of(name: str) -> ModelConfig:
    """Return the geometry of a model, whether or not it has been fetched.

    Raises:
        ModelMissingError: The geometry of that model is not known.
    """
    if name not in GEOMETRIES:
        raise ModelMissingError(
            f"The geometry of {name!r} is not known. Known: {', '.join(GEOMETRIES)}."
        )
    return GEOMETRIES[name]


def pull_model(name: str, note: Note, progress: Progress = lambda _, __: None) -> ModelFiles:
    """Fetch a model of the catalogue unless it is complete and undamaged.

    Args:
        name: The model's name.
        note: Called with each message, one line long.
        progress: Called with the current activity and its progress, 0 to 1.

    Raises:
        ModelMissingError: There is no model of that name.
        FetchError: The model could not be fetched.
        ModelFileError: The fetched files are not the model.
    """
    return _named(name).fetch(note, progress)


def verify_model(name: str, progress: Progress = lambda _, __: None) -> tuple[VerifiedFile, ...]:
    """Check every byte of a model of the catalogue.

    Raises:
        ModelMissingError: The model is not on this machine.
        ModelFileError: A file is damaged.
    """
    return _named(name).verify(progress)


def _named(name: str) -> CatalogueModel:
    if name not in CATALOGUE:
        raise ModelMissingError(
            f"There is no model named {name!r}. Known models: {', '.join(CATALOGUE)}."
        )
    return CATALOGUE[name]


def _find_directory(name: str) -> ModelFiles:
    directory = Path(name).expanduser()
    if not directory.is_dir():
        raise ModelMissingError(
            f"There is no model {name!r}. Name {' or '.join(CATALOGUE)}, or give the path of a "
            "model directory."
        )
    if not (directory / "config.json").is_file():
        raise ModelFileError(f"{directory}: is not a model directory (no config.json).")
    return ModelFiles(directory.resolve().name, directory, None)
