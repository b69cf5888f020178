"""Weights from a directory in the Hugging Face layout: config.json and safetensors."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from hga_engine.config import ModelConfig
from hga_engine.errors import ModelFileError
from hga_engine.model.config_json import read_config, read_json

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PLAIN = (torch.bfloat16, torch.float16, torch.float32)


class DirectorySource:
    """Tensors of a single or sharded safetensors checkpoint, mapped into memory as they are read.

    FP8 weights (e4m3 with one ``weight_scale_inv`` a block, as in Qwen3-30B-A3B-Instruct-2507-FP8)
    come out in float32.
    """

    def __init__(self, directory: Path) -> None:
        """Read config.json, the index and the headers of all shards.

        Raises:
            ModelFileError: a file is missing, damaged or asks for what is not supported.
        """
        self._directory = directory
        if not directory.is_dir():
            raise ModelFileError(f"{directory}: there is no such directory.")
        config = read_config(directory)
        self._config = config.model
        self._fp8_block = config.fp8_block
        self._shards: dict[Path, Any] = {}
        self._places = self._index()
        biases = sorted(name for name in self._places if name.endswith(".bias"))
        if biases:
            raise ModelFileError(
                f"{self._places[biases[0]]}: biases are not supported ({biases[0]})."
            )

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

    def _dequantize(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if self._fp8_block is None:
            raise ModelFileError(
                f"{self._directory / 'config.json'}: has no quantization_config for the FP8 "
                f"tensor {name}."
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
        path = self._places.get(name)
        if path is None:
            raise ModelFileError(f"{self._directory}: tensor {name} is missing.")
        try:
            tensor: torch.Tensor = self._open(path).get_tensor(name)
        except SafetensorError as error:
            raise ModelFileError(f"{path}: tensor {name} is damaged ({error}).") from error
        if tuple(tensor.shape) != shape:
            raise ModelFileError(
                f"{path}: tensor {name} has shape {list(tensor.shape)}, not {list(shape)}."
            )
        return tensor

    def _index(self) -> dict[str, Path]:
        """Which shard each tensor is in, by the headers of the shards themselves."""
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
                raise ModelFileError(
                    f"{path}: is truncated or damaged ({error}). Fetch it again."
                ) from error
        return self._shards[path]
