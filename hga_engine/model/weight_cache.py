"""A cache on disk of weights and vocabularies that are slow to load from a model's own files.

Merging adapters into dequantised weights takes seconds, parsing its vocabulary another one.
Where ``ModelFiles.cache_dir`` names a folder, the results are saved there. An entry that belongs to
other files, or cannot be read, is ignored, and so is a folder that cannot be written.
"""

import json
import mmap
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from hga_engine.config import ModelConfig, RopeScaling
from hga_engine.model.files import ModelFiles, fingerprint

if TYPE_CHECKING:
    import torch

    from hga_engine.model.types import ModelWeights

_WEIGHTS = "weights.safetensors"
_VOCABULARY = "vocabulary.json"
_FORMAT = "3"
"""Raise it when the same files are loaded as other weights or another vocabulary than before."""
_MOST_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class _Stored:
    """A cached file of weights in memory: the entries of its header, and the tensors' bytes."""

    metadata: dict[str, str]
    tensors: dict[str, Any]
    memory: mmap.mmap


_ahead: dict[ModelFiles, Future[_Stored]] = {}


def read_ahead(files: ModelFiles) -> None:
    """Start to read cached weights on a thread, for the ``load_weights`` that follows.

    The thread does not need torch, so it reads while the caller imports it.
    """
    if files.cache_dir is not None and files.adapters and files not in _ahead:
        threads = ThreadPoolExecutor(1)
        _ahead[files] = threads.submit(_read, files)
        threads.shutdown(wait=False)


def load_weights(files: ModelFiles, dtype: "torch.dtype") -> "ModelWeights | None":
    """Return the weights that ``save_weights`` cached for these files and dtype, or None.

    Raises:
        ModelFileError: a file of the model is missing.
    """
    import torch

    from hga_engine.model.types import LayerWeights, ModelWeights

    if files.cache_dir is None:
        return None
    started = _ahead.pop(files, None)
    try:
        stored = _read(files) if started is None else started.result()
        if stored.metadata["dtype"] != str(dtype):
            return None
        contents = torch.frombuffer(stored.memory, dtype=torch.uint8)
        tensors = {
            name: contents[slice(*entry["data_offsets"])]
            .view(torch.float32 if name.endswith("bias") else dtype)
            .view(entry["shape"])
            for name, entry in stored.tensors.items()
        }
        config = json.loads(stored.metadata["config"])
        config["dense_layers"] = frozenset(config["dense_layers"])
        scaling = config["rope_scaling"]
        if scaling is not None:
            scaling["divisors"] = tuple(scaling["divisors"])
            config["rope_scaling"] = RopeScaling(**scaling)
        model = ModelConfig(**config)
        layers: list[dict[str, torch.Tensor]] = [{} for _ in range(model.num_layers)]
        for name in [name for name in tensors if "." in name]:
            layer, _, field = name.partition(".")
            layers[int(layer)][field] = tensors.pop(name)
        lm_head = tensors.get("lm_head", tensors["embedding"])
        return ModelWeights(
            model,
            tensors["embedding"],
            tuple(LayerWeights(**fields) for fields in layers),
            tensors["final_norm"],
            lm_head,
        )
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError):
        return None


def _read(files: ModelFiles) -> _Stored:
    """Read the cached weights in one go. Mapping the file with mmap is three times slower.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: these files have no cached
            weights, or the cached file is damaged.
        ModelFileError: a file of the model is missing.
    """
    mark = _mark(files)
    assert files.cache_dir is not None
    with (files.cache_dir / _WEIGHTS).open("rb", buffering=0) as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(size, _MOST_HEADER_BYTES)))
        metadata = header.pop("__metadata__")
        if metadata["mark"] != mark:
            raise ValueError("the cached weights belong to other files")
        size = max(entry["data_offsets"][1] for entry in header.values())
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(AttributeError, OSError):  # ordinary pages work as well, only slower
            memory.madvise(mmap.MADV_HUGEPAGE)
        rest = memoryview(memory)
        while rest:
            count = file.readinto(rest)
            if not count:
                raise ValueError("the file is truncated")
            rest = rest[count:]
    return _Stored(metadata, header, memory)


def save_weights(files: ModelFiles, weights: "ModelWeights") -> None:
    """Cache plain weights for ``load_weights`` if there is a folder for them and room."""
    from safetensors.torch import save_file

    if files.cache_dir is None:
        return
    config = asdict(weights.config)
    config["dense_layers"] = sorted(weights.config.dense_layers)
    dtype = str(weights.dtype)
    metadata = {"mark": _mark(files), "dtype": dtype, "config": json.dumps(config)}
    tensors: dict[str, Any] = {
        "embedding": weights.embedding,
        "final_norm": weights.final_norm,
    }
    if weights.lm_head is not weights.embedding:
        tensors["lm_head"] = weights.lm_head
    for number, layer in enumerate(weights.layers):
        for field, tensor in vars(layer).items():
            if tensor is not None:
                tensors[f"{number}.{field}"] = tensor
    _replace(files.cache_dir / _WEIGHTS, lambda path: save_file(tensors, path, metadata))


def load_vocabulary(files: ModelFiles) -> dict[str, Any] | None:
    """Return the vocabulary that ``save_vocabulary`` cached for these files, or None.

    Raises:
        ModelFileError: a file of the model is missing.
    """
    if files.cache_dir is None:
        return None
    try:
        cached = json.loads((files.cache_dir / _VOCABULARY).read_text("utf-8"))
        vocabulary = cached["vocabulary"] if cached["mark"] == _mark(files) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return vocabulary if isinstance(vocabulary, dict) else None


def save_vocabulary(files: ModelFiles, vocabulary: dict[str, Any]) -> None:
    """Cache the parts of a tokenizer for ``load_vocabulary`` if there is a folder and room."""
    if files.cache_dir is None:
        return
    text = json.dumps({"mark": _mark(files), "vocabulary": vocabulary})
    _replace(files.cache_dir / _VOCABULARY, lambda path: path.write_text(text, "utf-8"))


def _mark(files: ModelFiles) -> str:
    """Return what a cached file must name to be used for ``files``."""
    return f"{_FORMAT} {fingerprint(files)}"


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file atomically; write none if the folder cannot be written."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        temporary = Path(name)
        os.close(file)
        write(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError):
        if temporary is not None:
            temporary.unlink(missing_ok=True)
