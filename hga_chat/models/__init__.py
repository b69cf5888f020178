"""Finds, lists, fetches and verifies models by name."""

from dataclasses import dataclass
from pathlib import Path

from hga_chat.models.catalogue import (
    CATALOGUE,
    DEFAULT_MODEL,
    EMBEDDED_MODEL,
    FACTS,
    SMALL_DEFAULT_MODEL,
    TOY_NOTE,
    Facts,
    NamedModel,
    purpose_by_size,
)
from hga_chat.models.files import (
    Confirm,
    Fetch,
    FetchError,
    ModelMissingError,
    Note,
    Progress,
    VerifiedFile,
    verify,
)
from hga_chat.models.hub import HubModel
from hga_chat.models.on_disk import (
    OLLAMA,
    FoundModel,
    find_ollama,
    find_path,
    models_on_disk,
    ollama_checksum,
    own_models,
    split_reference,
)
from hga_engine.config import ModelConfig
from hga_engine.errors import EngineError, ModelFileError
from hga_engine.model.files import ModelFiles

__all__ = [
    "DEFAULT_MODEL",
    "EMBEDDED_MODEL",
    "SMALL_DEFAULT_MODEL",
    "TOY_NOTE",
    "Facts",
    "Fetch",
    "FetchError",
    "FoundModel",
    "ListedModel",
    "ModelMissingError",
    "VerifiedFile",
    "default_model",
    "facts_of",
    "find_model",
    "found_models",
    "geometry_of",
    "is_fetchable",
    "is_path",
    "list_models",
    "pull_model",
    "purpose_by_size",
    "verify_model",
]


_LEAST_MEMORY = 4 << 30
"""Free bytes below which the default is the small one."""


@dataclass(frozen=True)
class ListedModel:
    """A model of the catalogue, and where it is on this machine."""

    name: str
    directory: Path | None
    """None if the model is not on this machine."""
    size_bytes: int
    needs: str | None = None
    """Special hardware that the model needs, if any."""


def list_models() -> list[ListedModel]:
    """Return the models of the catalogue."""
    return [
        ListedModel(model.name, model.where, model.size_bytes, model.needs)
        for model in CATALOGUE.values()
    ]


def found_models() -> list[FoundModel]:
    """Return the models on this disk that are not the catalogue's, each file once."""
    listed = set()
    for model in CATALOGUE.values():
        if model.where is not None:
            try:
                listed.add(model.find().path.resolve())
            except EngineError:
                continue  # listed with its problem
    found = []
    for other in (*own_models(), *models_on_disk()):
        path = other.files.path.resolve()
        if path not in listed:
            listed.add(path)
            found.append(other)
    return found


def find_model(name: str) -> ModelFiles:
    """Return the files of a model that is on this machine.

    Args:
        name: A name of the catalogue, a GGUF file, a folder with GGUF files or a Hugging Face
            model, ``owner/repo`` or ``owner/repo:quant`` of the Hub, or ``ollama:name:tag``.

    Raises:
        ModelMissingError: The model is not on this machine, or it is not clear which is meant.
        ModelFileError: Its files are damaged.
    """
    model = _named(name)
    if model is not None:
        return model.find()
    if name.startswith(OLLAMA):
        return find_ollama(name)
    if is_path(name):
        return find_path(Path(name).expanduser())
    raise _unknown(name)


def is_path(name: str) -> bool:
    """Whether a model's name is a path: one that exists, or that can be nothing else."""
    if name in CATALOGUE or name.startswith(OLLAMA):
        return False
    is_file = name.lower().endswith(".gguf") and ":" not in name  # owner/repo:file.gguf
    return is_file or name.startswith(("/", "./", "../", "~")) or Path(name).exists()


def is_fetchable(name: str) -> bool:
    """Whether ``pull_model`` can fetch a model of that name."""
    return _named(name) is not None


def default_model() -> str:
    """Return the name of the default model: the smallest that serves, by the free memory."""
    from hga_engine.memory.probes import available_memory_bytes

    short = available_memory_bytes() < _LEAST_MEMORY
    return SMALL_DEFAULT_MODEL if short else DEFAULT_MODEL


def facts_of(name: str) -> Facts | None:
    """Return what is known of a model of the catalogue before it is fetched."""
    return FACTS.get(name)


def geometry_of(name: str) -> ModelConfig:
    """Return the geometry of a model of the catalogue, whether or not it has been fetched.

    Raises:
        ModelMissingError: The geometry of that model is not known.
    """
    if name not in FACTS:
        raise ModelMissingError(
            f"The geometry of {name!r} is not known. Known: {', '.join(FACTS)}."
        )
    return FACTS[name].geometry


def pull_model(
    name: str,
    note: Note,
    progress: Progress = lambda _, __: None,
    confirm: Confirm = lambda _: True,
) -> ModelFiles:
    """Fetch a model unless it is complete and undamaged.

    Args:
        name: See ``find_model``; files of a person or of Ollama are taken as they are.
        note: Called with each message, one line long.
        progress: Called with the current activity and its progress, 0 to 1.
        confirm: Called before anything is fetched; False stops.

    Raises:
        ModelMissingError: There is no model of that name, or ``confirm`` said no.
        FetchError: The model could not be fetched.
        ModelFileError: The fetched files are not the model.
    """
    model = _named(name)
    return find_model(name) if model is None else model.fetch(note, progress, confirm)


def verify_model(name: str, progress: Progress = lambda _, __: None) -> tuple[VerifiedFile, ...]:
    """Check every byte of a model of the catalogue, the Hub or Ollama.

    Raises:
        ModelMissingError: The model is not on this machine.
        ModelFileError: A file is damaged, or its checksum is not known.
    """
    model = _named(name)
    if model is not None:
        return model.verify(progress)
    files = find_model(name)
    if not name.startswith(OLLAMA):
        raise ModelFileError(f"{files.path}: no checksum of it is known.")
    return verify([files.path], [ollama_checksum(files.path)], progress)


def _named(name: str) -> NamedModel | None:
    """Return a model of the catalogue or of the Hub; None for other names and paths."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    reference = split_reference(name)
    if reference is None or is_path(name):
        return None
    return HubModel(name, reference[0], quant=reference[1])


def _unknown(name: str) -> ModelMissingError:
    return ModelMissingError(
        f"There is no model {name!r}. Known: {', '.join(CATALOGUE)}; or a .gguf file, a folder, "
        "owner/repo or owner/repo:QUANT on the Hugging Face Hub, or ollama:NAME:TAG."
    )
