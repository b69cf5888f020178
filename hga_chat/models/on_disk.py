"""Models that other programs keep on this disk. Nothing of theirs is changed."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hga_chat.models.files import ModelMissingError, StoredFile
from hga_chat.models.gguf_names import GgufSet, choose, gguf_sets
from hga_chat.paths import models_dir
from hga_engine.errors import ModelFileError
from hga_engine.model.files import ModelFiles

OLLAMA = "ollama:"
"""Beginning of the names of Ollama's models."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OLLAMA_MODEL = "application/vnd.ollama.image.model"
_OLLAMA_HOST, _OLLAMA_OWNER, _OLLAMA_TAG = "registry.ollama.ai", "library", "latest"
_MOST_MANIFEST_BYTES = 1 << 20
_REQUIRED = ("config.json", "tokenizer.json")


@dataclass(frozen=True)
class FoundModel:
    """A model that another program has fetched."""

    files: ModelFiles
    """Its name is what ``--model`` takes."""
    size_bytes: int
    source: str
    """The program, for people."""


def split_reference(name: str) -> tuple[str, str | None] | None:
    """Return repository and quantisation of ``owner/repo[:quant]``; None for other names."""
    repository, colon, quant = name.partition(":")
    if not _REPOSITORY.fullmatch(repository) or (colon and not quant):
        return None
    return repository, quant or None


def hub_cache() -> Path:
    """Return the folder of the Hugging Face cache."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface" / "hub"


def _lm_studio_folders() -> list[Path]:
    return [Path(name).expanduser() for name in ("~/.lmstudio/models", "~/.cache/lm-studio/models")]


def _ollama_folders() -> list[Path]:
    own = os.environ.get("OLLAMA_MODELS")
    folders = [own] if own else ["~/.ollama/models", "/usr/share/ollama/.ollama/models"]
    return [Path(folder).expanduser() for folder in folders]


def copies_of(repository: str) -> Iterator[Path]:
    """Yield folders in which other programs keep files of a repository of the Hub."""
    yield from _snapshots(hub_cache() / f"models--{repository.replace('/', '--')}")
    for folder in _lm_studio_folders():
        if (folder / repository).is_dir():
            yield folder / repository


def find_in(folder: Path, name: str, quant: str | None) -> ModelFiles | None:
    """Return the model in a folder; None if there is no complete one of that quantisation.

    Args:
        folder: Holds GGUF files or a Hugging Face model.
        name: The repository, for the model's name.
        quant: See ``hub_files.choose_files``.

    Raises:
        ModelMissingError: It is not clear which model is meant.
    """
    names = _names(folder)
    if quant is None and _is_complete_directory(folder, names):
        return ModelFiles(name, folder, None)
    sets = [found for found in gguf_sets(names) if found.is_complete]
    if quant is not None:
        sets = [found for found in sets if found.is_meant_by(quant)]
    if not sets:
        return None
    chosen = choose(sets, quant, str(folder))
    return ModelFiles(f"{name}:{_shown(chosen, sets)}", None, folder / chosen.names[0])


def find_path(path: Path) -> ModelFiles:
    """Return the model at a path: a GGUF file, or a folder with GGUF files or safetensors.

    Raises:
        ModelMissingError: There is nothing, or a folder with several GGUF models.
        ModelFileError: There is no model, or a part of it is missing.
    """
    if not path.exists():
        raise ModelMissingError(f"{path}: there is no such file or folder.")
    path = path.absolute()
    if path.is_dir():
        if (path / "config.json").is_file() and any(path.glob("*.safetensors")):
            return ModelFiles(path.resolve().name, path, None)
        sets = gguf_sets(_names(path))
        if sets:
            if len(sets) > 1:
                names = ", ".join(found.names[0] for found in sets)
                raise ModelMissingError(f"{path} holds several models; name one: {names}.")
            return _complete(path, sets[0])
        if (path / "config.json").is_file():
            return ModelFiles(path.resolve().name, path, None)
        raise ModelFileError(
            f"{path}: is not a model directory (no GGUF file, no config.json with safetensors)."
        )
    sets = gguf_sets([path.name])
    if sets and sets[0].parts > 1:
        whole = [found for found in gguf_sets(_names(path.parent)) if path.name in found.names]
        return _complete(path.parent, whole[0])
    return ModelFiles(sets[0].stem if sets else path.name, None, path)


def _complete(folder: Path, found: GgufSet) -> ModelFiles:
    if not found.is_complete:
        raise ModelFileError(
            f"{folder / found.names[0]}: {len(found.names)} of {found.parts} parts are there. Put "
            "all parts into one folder."
        )
    return ModelFiles(found.stem, None, folder / found.names[0])


def find_ollama(name: str) -> ModelFiles:
    """Return the files of ``ollama:NAME[:TAG]``.

    Raises:
        ModelMissingError: Ollama has no such model.
        ModelFileError: Its files are damaged or cannot be read.
    """
    model, _, tag = name.removeprefix(OLLAMA).partition(":")
    places = [part for part in model.split("/") if part]
    if not places or any(part.startswith(".") for part in (*places, tag)):
        raise ModelMissingError(f"{name} is not a name of Ollama: {OLLAMA}NAME:TAG.")
    if len(places) == 1:
        places = [_OLLAMA_OWNER, *places]
    if len(places) == 2:
        places = [_OLLAMA_HOST, *places]
    for folder in _ollama_folders():
        manifest = folder.joinpath("manifests", *places, tag or _OLLAMA_TAG)
        if manifest.is_file():
            blob = _ollama_blob(folder, manifest)
            if blob is None or not blob.is_file():
                raise ModelFileError(f"{manifest}: its model file is missing; 'ollama pull' it.")
            return ModelFiles(name, None, blob)
    known = [found.files.name for found in _ollama_models()]
    there = f" It has: {', '.join(known)}." if known else ""
    raise ModelMissingError(f"Ollama has no {name.removeprefix(OLLAMA)} on this machine.{there}")


def ollama_checksum(blob: Path) -> StoredFile:
    """Return a blob of Ollama with its checksum, which is its name."""
    return StoredFile(blob.name, blob.stat().st_size, blob.name.removeprefix("sha256-"))


def models_on_disk() -> Iterator[FoundModel]:
    """Yield the models in the folders of Hugging Face, LM Studio and Ollama."""
    yield from _hub_cache_models()
    yield from _lm_studio_models()
    yield from _ollama_models()


def own_models() -> Iterator[FoundModel]:
    """Yield the models that ``models pull OWNER/REPO`` has fetched."""
    yield from _publisher_models(models_dir(), "hga-chat")


def _hub_cache_models() -> Iterator[FoundModel]:
    for folder in _folders(hub_cache()):
        kind, *places = folder.name.split("--")
        if kind != "models" or len(places) != 2:
            continue
        seen: set[str] = set()
        for snapshot in _snapshots(folder):
            for found in _models_in(snapshot, "/".join(places), "Hugging Face"):
                if found.files.name not in seen:
                    seen.add(found.files.name)
                    yield found


def _lm_studio_models() -> Iterator[FoundModel]:
    for folder in _lm_studio_folders():
        yield from _publisher_models(folder, "LM Studio")


def _publisher_models(folder: Path, source: str) -> Iterator[FoundModel]:
    for publisher in _folders(folder):
        for repository in _folders(publisher):
            if split_reference(f"{publisher.name}/{repository.name}"):
                name = f"{publisher.name}/{repository.name}"
                yield from _models_in(repository, name, source)


def _models_in(folder: Path, name: str, source: str) -> Iterator[FoundModel]:
    names = _names(folder)
    sets = [found for found in gguf_sets(names) if found.is_complete]
    for found in sets:
        files = ModelFiles(f"{name}:{_shown(found, sets)}", None, folder / found.names[0])
        yield FoundModel(files, _size(folder, found.names), source)
    if _is_complete_directory(folder, names):
        files = ModelFiles(name, folder, None)
        weights = [entry for entry in names if entry.endswith(".safetensors")]
        yield FoundModel(files, _size(folder, weights), source)


def _ollama_models() -> Iterator[FoundModel]:
    for folder in _ollama_folders():
        manifests = folder / "manifests"
        for host in _folders(manifests):
            for owner in _folders(host):
                for model in _folders(owner):
                    for tag in _entries(model):
                        blob = _ollama_blob(folder, Path(tag.path))
                        if blob is None or not blob.is_file():
                            continue
                        places = [host.name, owner.name, model.name]
                        if places[0] == _OLLAMA_HOST:
                            places = places[1:]
                        if places[0] == _OLLAMA_OWNER:
                            places = places[1:]
                        name = f"{OLLAMA}{'/'.join(places)}:{tag.name}"
                        files = ModelFiles(name, None, blob)
                        yield FoundModel(files, _size(blob.parent, [blob.name]), "Ollama")


def _ollama_blob(folder: Path, manifest: Path) -> Path | None:
    """Return the GGUF file that a manifest names; None if it names none."""
    try:
        with manifest.open("rb") as file:
            layers = json.loads(file.read(_MOST_MANIFEST_BYTES))["layers"]
        for layer in layers:
            if layer["mediaType"] == _OLLAMA_MODEL:
                kind, _, digest = layer["digest"].partition(":")
                if kind == "sha256" and re.fullmatch(r"[0-9a-f]{64}", digest):
                    return folder / "blobs" / f"sha256-{digest}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return None


def _snapshots(folder: Path) -> list[Path]:
    """Return the snapshots of a repository in the Hugging Face cache, the current one first."""
    try:
        current = (folder / "refs" / "main").read_text("utf-8").strip()
    except (OSError, ValueError):
        current = ""
    found = _folders(folder / "snapshots")
    return sorted(found, key=lambda snapshot: snapshot.name != current)


def _is_complete_directory(folder: Path, names: list[str]) -> bool:
    """Whether a folder holds a whole Hugging Face model."""
    if not set(_REQUIRED) <= set(names):
        return False
    index = "model.safetensors.index.json"
    if index not in names:
        return "model.safetensors" in names
    try:
        shards = set(json.loads((folder / index).read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return shards <= set(names)


def _shown(found: GgufSet, others: list[GgufSet]) -> str:
    """Return what follows the colon: the quantisation, or the file's name if that is not enough."""
    same = [other for other in others if other.quant == found.quant]
    return found.quant if len(same) == 1 else found.stem


def _names(folder: Path) -> list[str]:
    """Return the files of a folder and of the folders in it, without broken links."""
    names = []
    for entry in _entries(folder):
        try:
            if entry.is_file():
                names.append(entry.name)
            elif entry.is_dir() and not entry.name.startswith("."):
                inner = (below for below in _entries(Path(entry.path)) if below.is_file())
                names += [f"{entry.name}/{below.name}" for below in inner]
        except OSError:
            continue
    return names


def _folders(folder: Path) -> list[Path]:
    found = []
    for entry in _entries(folder):
        try:
            if entry.is_dir() and not entry.name.startswith("."):
                found.append(Path(entry.path))
        except OSError:
            continue
    return found


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """Return what a folder holds, sorted by name; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _size(folder: Path, names: "list[str] | tuple[str, ...]") -> int:
    total = 0
    for name in names:
        try:
            total += (folder / name).stat().st_size
        except OSError:
            continue
    return total
