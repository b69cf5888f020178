"""Tensors from a directory in the Hugging Face layout: config.json and safetensors."""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from hga_engine.config import ModelConfig
from hga_engine.errors import DamagedWeightsError, ModelFileError
from hga_engine.model.config_json import read_config, read_json
from hga_engine.model.source import StoredTensor

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_QKV_BIASES = tuple(f"self_attn.{part}_proj.bias" for part in "qkv")
_PLAIN = (torch.bfloat16, torch.float16, torch.float32)
_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F8_E4M3": torch.float8_e4m3fn,
}


class DirectorySource:
    """Tensors of a single-file or sharded safetensors checkpoint, memory-mapped as they are read.

    FP8 weights (e4m3 with one ``weight_scale_inv`` per block, as in Qwen's FP8 checkpoints) are
    dequantised to float32.
    """

    def __init__(self, directory: Path) -> None:
        """Parse config.json, the index and the headers of all shards.

        Raises:
            ModelFileError: a file is missing or damaged, or the model is not supported.
        """
        self._directory = directory
        if not directory.is_dir():
            raise ModelFileError(f"{directory}: the directory does not exist.")
        config = read_config(directory)
        self._config = config.model
        self._fp8_block = config.fp8_block
        self._shards: dict[Path, Any] = {}
        self._headers: dict[Path, tuple[dict[str, Any], int]] = {}
        self._places = self._index()
        if self._config.num_layers > len(self._places):
            raise ModelFileError(
                f"{directory}: config.json counts {self._config.num_layers:,} layers, but there "
                f"are {len(self._places):,} tensors."
            )
        known = _QKV_BIASES if self._config.traits.has_qkv_bias else ()
        others = [
            name for name in self._places if name.endswith(".bias") and not name.endswith(known)
        ]
        if others:
            name = min(others)
            raise ModelFileError(f"{self._places[name]}: the bias {name} is not supported.")

    @property
    def config(self) -> ModelConfig:
        """Geometry of the model."""
        return self._config

    def read(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """See ``TensorSource.read``."""
        tensor = self._stored(name, shape)
        if tensor.dtype == torch.float8_e4m3fn:
            return self._dequantize(name, tensor)
        if tensor.dtype not in _PLAIN:
            raise ModelFileError(
                f"{self._places[name]}: tensor {name} is {tensor.dtype}, which is not supported."
            )
        return tensor

    @property
    def is_packed(self) -> bool:
        """See ``StoredSource.is_packed``."""
        return False

    @property
    def fp8_block(self) -> tuple[int, int] | None:
        """See ``StoredSource.fp8_block``."""
        return self._fp8_block

    def stored(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """See ``StoredSource.stored``."""
        path = self._place(name)
        tensors, start = self._header(path)
        entry = tensors[name]
        self._check_shape(name, tuple(entry["shape"]), shape)
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise ModelFileError(
                f"{path}: tensor {name} is {entry['dtype']}, which is not supported."
            )
        return StoredTensor(name, path, start + entry["data_offsets"][0], shape, dtype)

    def _dequantize(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if self._fp8_block is None:
            raise ModelFileError(
                f"{self._directory / 'config.json'}: has no quantization_config, but tensor {name} "
                "is FP8."
            )
        rows, columns = self._fp8_block
        blocks = -(-tensor.shape[0] // rows), -(-tensor.shape[1] // columns)
        scales = self._stored(name + "_scale_inv", blocks).float()
        wide = tensor.float()
        for row, row_scales in enumerate(scales):
            spread = row_scales.repeat_interleave(columns)[: tensor.shape[1]]
            wide[row * rows : (row + 1) * rows] *= spread
        return wide

    def _stored(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        path = self._place(name)
        try:
            tensor: torch.Tensor = self._open(path).get_tensor(name)
        except SafetensorError as error:
            raise ModelFileError(f"{path}: tensor {name} is damaged ({error}).") from error
        self._check_shape(name, tuple(tensor.shape), shape)
        return tensor

    def _place(self, name: str) -> Path:
        path = self._places.get(name)
        if path is None:
            raise ModelFileError(f"{self._directory}: tensor {name} is missing.")
        return path

    def _check_shape(self, name: str, found: tuple[int, ...], shape: tuple[int, ...]) -> None:
        if found != shape:
            raise ModelFileError(
                f"{self._places[name]}: tensor {name} has shape {list(found)}, not {list(shape)}."
            )

    def _header(self, path: Path) -> tuple[dict[str, Any], int]:
        """Return the header of a shard, checked by the library, and the offset of its tensors."""
        if path not in self._headers:
            with path.open("rb") as file:
                (size,) = struct.unpack("<Q", file.read(8))
                self._headers[path] = json.loads(file.read(size)), 8 + size
        return self._headers[path]

    def _index(self) -> dict[str, Path]:
        """Map each tensor to its shard, by the headers of the shards themselves."""
        index = self._directory / _INDEX
        if not index.exists():
            path = self._directory / _SINGLE
            return dict.fromkeys(self._open(path).keys(), path)
        listed = read_json(index).get("weight_map")
        if not isinstance(listed, dict) or not all(
            isinstance(shard, str) and shard == Path(shard).name for shard in listed.values()
        ):
            raise ModelFileError(f"{index}: is damaged (weight_map).")
        places: dict[str, Path] = {}
        for shard in sorted(set(listed.values())):
            path = self._directory / shard
            places |= dict.fromkeys(self._open(path).keys(), path)
        missing = sorted(listed.keys() - places.keys())
        if missing:
            shard = listed[missing[0]]
            raise ModelFileError(f"{self._directory / shard}: tensor {missing[0]} is missing.")
        return places

    def _open(self, path: Path) -> Any:
        if path not in self._shards:
            try:
                self._shards[path] = safe_open(path, framework="pt")
            except FileNotFoundError as error:
                raise ModelFileError(f"{path}: the file is missing.") from error
            except (SafetensorError, OSError) as error:
                raise DamagedWeightsError(f"{path}: is truncated or damaged ({error}).") from error
        return self._shards[path]
