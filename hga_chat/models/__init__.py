"""Models by name: what there is, where it is, and fetching it."""

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
    """A model of the catalogue, and whether it is here."""

    name: str
    directory: Path | None
    """None: not fetched yet."""
    size_bytes: int
    needs: str | None = None
    """What a machine has to have for it; None: nothing special."""


def list_models() -> list[ListedModel]:
    """The models that have a name here."""
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
    """What to load for a name of the catalogue or a directory in the Hugging Face layout.

    Raises:
        ModelMissingError: it is not here.
        ModelFileError: it is here but damaged.
    """
    model = CATALOGUE.get(name_or_directory)
    return _find_directory(name_or_directory) if model is None else model.find()


def geometry_of(name: str) -> ModelConfig:
    """Geometry of a model of the catalogue, whether or not it is here.

    Raises:
        ModelMissingError: there is no model of that name, or its geometry is not known.
    """
    if name not in GEOMETRIES:
        raise ModelMissingError(
            f"The geometry of {name!r} is not known; that of {', '.join(GEOMETRIES)} is."
        )
    return GEOMETRIES[name]


def pull_model(name: str, note: Note, progress: Progress = lambda _, __: None) -> ModelFiles:
    """Fetch a model unless it is here and whole.

    Args:
        name: of the catalogue.
        note: told what happens, a line at a time.
        progress: told what is being done and how far, 0 to 1.

    Raises:
        ModelMissingError: there is no model of that name.
        FetchError: it could not be fetched.
        ModelFileError: what came is not the model.
    """
    return _named(name).fetch(note, progress)


def verify_model(name: str, progress: Progress = lambda _, __: None) -> tuple[VerifiedFile, ...]:
    """Check every byte of a model of the catalogue.

    Raises:
        ModelMissingError: it is not here.
        ModelFileError: a file is damaged.
    """
    return _named(name).verify(progress)


def _named(name: str) -> CatalogueModel:
    if name not in CATALOGUE:
        raise ModelMissingError(
            f"There is no model named {name!r}, only {' and '.join(CATALOGUE)}."
        )
    return CATALOGUE[name]


def _find_directory(name: str) -> ModelFiles:
    directory = Path(name).expanduser()
    if not directory.is_dir():
        raise ModelMissingError(
            f"There is no model {name!r}. There is {', '.join(CATALOGUE)}, or the path of a model "
            "directory."
        )
    if not (directory / "config.json").is_file():
        raise ModelFileError(f"{directory}: holds no model (no config.json).")
    return ModelFiles(directory.resolve().name, directory, None)
