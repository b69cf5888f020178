"""Merge LoRA adapters (Hu et al., arXiv 2106.09685) into weights as they are loaded."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from hga_engine.config import ModelConfig
from hga_engine.errors import ModelFileError
from hga_engine.model.source import TensorSource

_ADAPTED = re.compile(r"model\.layers\.(\d+)\.(?:self_attn|mlp)\.([a-z]+_proj)\.weight")
_FACTOR = re.compile(r"(\d+)\.(q|k|v|o|gate|up|down)_proj\.(a|b|scale)")


class AdaptedSource:
    """A model's tensors with adapters merged: ``W + b @ a``, computed in float32.

    Adapter files hold ``{layer}.{q,k,v,o,gate,up,down}_proj.a`` [rank, in] and ``.b`` [out, rank].
    Factors in int8 come with a ``.scale`` [rank] float32, the quantisation step of ``a`` times that
    of ``b``: ``W + (b * scale) @ a``. No other scale is applied.
    """

    def __init__(self, source: TensorSource, adapters: Sequence[Path]) -> None:
        """Index the adapter files.

        Raises:
            ModelFileError: a file is missing or damaged, or adapts a weight the model lacks.
        """
        self._source = source
        self._files: dict[str, Path] = {}
        for path in adapters:
            for name in _names(path):
                self._check(path, name)
                self._files[name] = path
        for name, path in self._files.items():
            stem = name.rpartition(".")[0]
            for other in ("a", "b"):
                if f"{stem}.{other}" not in self._files:
                    raise ModelFileError(f"{path}: {name} has no matching {stem}.{other}.")

    @property
    def config(self) -> ModelConfig:
        """Geometry of the model."""
        return self._source.config

    def read(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """See ``TensorSource.read``."""
        weight = self._source.read(name, shape)
        match = _ADAPTED.fullmatch(name)
        if match is None or f"{match[1]}.{match[2]}.a" not in self._files:
            return weight
        stem = f"{match[1]}.{match[2]}"
        first, second = self._factor(f"{stem}.a"), self._factor(f"{stem}.b")
        scale = self._scale(stem, second.shape[1])
        if first.shape[1:] + second.shape[:1] != (shape[1], shape[0]) or (
            first.shape[0] != second.shape[1]
        ):
            raise ModelFileError(
                f"{self._files[f'{stem}.a']}: {stem} does not fit {name} of shape {list(shape)}."
            )
        return torch.addmm(weight.float(), second * scale, first)

    def _check(self, path: Path, name: str) -> None:
        match = _FACTOR.fullmatch(name)
        if match is None or int(match[1]) >= self.config.num_layers:
            raise ModelFileError(f"{path}: {name} is not part of this model's layers.")
        if name in self._files:
            raise ModelFileError(f"{path}: {name} is also in {self._files[name].name}.")

    def _factor(self, name: str) -> torch.Tensor:
        factor = self._tensor(name)
        path, scale = self._files[name], f"{name.rpartition('.')[0]}.scale"
        if factor.dim() != 2:
            raise ModelFileError(f"{path}: {name} is not a matrix.")
        if not factor.is_floating_point() and scale not in self._files:
            raise ModelFileError(f"{path}: {name} has no matching {scale}.")
        return factor.float()

    def _scale(self, stem: str, rank: int) -> torch.Tensor:
        name = f"{stem}.scale"
        if name not in self._files:
            return torch.ones(rank)
        scale = self._tensor(name)
        if scale.shape != (rank,):
            raise ModelFileError(
                f"{self._files[name]}: {name} does not have one value for each of {rank} ranks."
            )
        return scale.float()

    def _tensor(self, name: str) -> torch.Tensor:
        path = self._files[name]
        try:
            with safe_open(path, framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{path}: {name} is damaged ({error}).") from error
        return tensor


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: the adapter is missing.") from error
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: the adapter is damaged ({error}).") from error
