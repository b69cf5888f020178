"""What is slow to make of a model's files, kept so that it is made once.

Dequantising a GGUF file and merging adapters takes seconds, reading its vocabulary another one.
Where ``ModelFiles.cache_dir`` names a folder, the results are kept there. They can be made again at
any time: what does not fit the model or cannot be read is not used, and a folder that cannot be
written is left alone.
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

from hga_engine.config import ModelConfig
from hga_engine.model.files import ModelFiles, fingerprint

if TYPE_CHECKING:
    import torch

    from hga_engine.model.types import ModelWeights

_WEIGHTS = "weights.safetensors"
_VOCABULARY = "vocabulary.json"
_FORMAT = "1"
"""To be raised when the same files come to be loaded as something else."""
_MOST_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class _Stored:
    """The file of weights in memory: what it says of its tensors, and their bytes."""

    metadata: dict[str, str]
    tensors: dict[str, Any]
    memory: mmap.mmap


_ahead: dict[ModelFiles, Future[_Stored]] = {}


def read_ahead(files: ModelFiles) -> None:
    """Begin to read kept weights on a thread, for the ``load_weights`` that will follow.

    It needs no torch, so that both threads are busy while the other one imports it.
    """
    if files.cache_dir is not None and files not in _ahead:
        threads = ThreadPoolExecutor(1)
        _ahead[files] = threads.submit(_read, files)
        threads.shutdown(wait=False)


def load_weights(files: ModelFiles, dtype: "torch.dtype") -> "ModelWeights | None":
    """Weights that ``keep_weights`` kept of the same files in the same type.

    Raises:
        ModelFileError: a file of the model is missing.
    """
    import torch

    from hga_engine.model.types import LayerWeights, ModelWeights

    if files.cache_dir is None:
        return None
    begun = _ahead.pop(files, None)
    try:
        stored = _read(files) if begun is None else begun.result()
        if stored.metadata["dtype"] != str(dtype):
            return None
        run = torch.frombuffer(stored.memory, dtype=torch.uint8)
        tensors = {
            name: run[slice(*entry["data_offsets"])].view(dtype).view(entry["shape"])
            for name, entry in stored.tensors.items()
        }
        config = json.loads(stored.metadata["config"])
        config["dense_layers"] = frozenset(config["dense_layers"])
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
    """Read the kept weights in one go: through a mapping of the file it takes thrice as long.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: there are none of these files, or
            they are not whole.
        ModelFileError: a file of the model is missing.
    """
    mark = _mark(files)
    assert files.cache_dir is not None
    with (files.cache_dir / _WEIGHTS).open("rb", buffering=0) as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(size, _MOST_HEADER_BYTES)))
        metadata = header.pop("__metadata__")
        if metadata["mark"] != mark:
            raise ValueError("made of other files")
        size = max(entry["data_offsets"][1] for entry in header.values())
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(AttributeError, OSError):  # as good as any other, only slower
            memory.madvise(mmap.MADV_HUGEPAGE)
        rest = memoryview(memory)
        while rest:
            count = file.readinto(rest)
            if not count:
                raise ValueError("cut short")
            rest = rest[count:]
    return _Stored(metadata, header, memory)


def keep_weights(files: ModelFiles, weights: "ModelWeights") -> None:
    """Keep weights for ``load_weights``, where there is a folder for them and room."""
    from safetensors.torch import save_file

    if files.cache_dir is None:
        return
    config = asdict(weights.config)
    config["dense_layers"] = sorted(weights.config.dense_layers)
    dtype = str(weights.embedding.dtype)
    metadata = {"mark": _mark(files), "dtype": dtype, "config": json.dumps(config)}
    tensors = {"embedding": weights.embedding, "final_norm": weights.final_norm}
    if weights.lm_head is not weights.embedding:
        tensors["lm_head"] = weights.lm_head
    for number, layer in enumerate(weights.layers):
        for field, tensor in vars(layer).items():
            if tensor is not None:
                tensors[f"{number}.{field}"] = tensor
    _replace(files.cache_dir / _WEIGHTS, lambda beside: save_file(tensors, beside, metadata))


def load_vocabulary(files: ModelFiles) -> dict[str, Any] | None:
    """What ``keep_vocabulary`` kept of the same files.

    Raises:
        ModelFileError: a file of the model is missing.
    """
    if files.cache_dir is None:
        return None
    try:
        kept = json.loads((files.cache_dir / _VOCABULARY).read_text("utf-8"))
        vocabulary = kept["vocabulary"] if kept["mark"] == _mark(files) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return vocabulary if isinstance(vocabulary, dict) else None


def keep_vocabulary(files: ModelFiles, vocabulary: dict[str, Any]) -> None:
    """Keep what a tokenizer is made of, where there is a folder for it and room."""
    if files.cache_dir is None:
        return
    text = json.dumps({"mark": _mark(files), "vocabulary": vocabulary})
    _replace(files.cache_dir / _VOCABULARY, lambda beside: beside.write_text(text, "utf-8"))


def _mark(files: ModelFiles) -> str:
    return f"{_FORMAT} {fingerprint(files)}"


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Put a file in place as a whole, or not at all if the folder cannot be written."""
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        beside = Path(name)
        os.close(file)
        write(beside)
        beside.replace(path)
    except (OSError, SafetensorError):
        if beside is not None:
            beside.unlink(missing_ok=True)
