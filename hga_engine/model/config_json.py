"""Parse a Hugging Face ``config.json`` into a ``ModelConfig``."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hga_engine.architectures import ARCHITECTURES
from hga_engine.config import ModelConfig
from hga_engine.errors import ModelFileError


@dataclass(frozen=True)
class CheckpointConfig:
    """The parsed contents of ``config.json``."""

    model: ModelConfig
    fp8_block: tuple[int, int] | None
    """Rows and columns of a block of FP8 weights with one scale; None if weights are not FP8."""


def read_config(directory: Path) -> CheckpointConfig:
    """Parse ``config.json``.

    Raises:
        ModelFileError: the file is missing or damaged, or describes an unsupported model.
    """
    path = directory / "config.json"
    entries = _Entries(path, read_json(path))
    name = entries.get("model_type")
    architecture = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if architecture is None:
        raise ModelFileError(
            f"{path}: architecture {name!r} is not supported. Supported are "
            f"{', '.join(ARCHITECTURES)}."
        )
    entries.refuse_unsupported()
    heads = entries.whole("num_attention_heads")
    kv_heads = entries.whole("num_key_value_heads", heads)
    hidden = entries.whole("hidden_size")
    head_dim = entries.whole("head_dim", architecture.head_dim or hidden // heads)
    if heads % kv_heads or head_dim % 2:
        raise ModelFileError(
            f"{path}: {heads} query heads and {kv_heads} KV heads of dimension {head_dim} do not "
            "fit together."
        )
    layers = entries.whole("num_hidden_layers")
    experts = architecture.has_experts
    model = ModelConfig(
        architecture=architecture.name,
        num_layers=layers,
        hidden_size=hidden,
        num_query_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=entries.whole("intermediate_size"),
        vocab_size=entries.whole("vocab_size"),
        max_positions=entries.whole("max_position_embeddings"),
        rope_base=entries.rope_base(),
        rms_norm_eps=entries.number("rms_norm_eps", 1e-6),
        tie_embeddings=entries.flag("tie_word_embeddings", False),
        num_experts=entries.first_whole("num_experts", "num_local_experts") if experts else 0,
        experts_per_token=entries.whole("num_experts_per_tok") if experts else 0,
        expert_intermediate_size=entries.whole("moe_intermediate_size") if experts else 0,
        normalize_expert_weights=entries.flag("norm_topk_prob", False),
        dense_layers=entries.dense_layers(layers) if experts else frozenset(),
    )
    if model.experts_per_token > model.num_experts:
        raise ModelFileError(f"{path}: num_experts_per_tok is above num_experts.")
    return CheckpointConfig(model, entries.fp8_block())


def read_json(path: Path) -> dict[str, Any]:
    """Load a JSON object from a file.

    Raises:
        ModelFileError: the file is missing or does not hold a JSON object.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: is damaged ({error}).") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: is damaged (not a JSON object).")
    return value


class _Entries:
    """Type-checked access to entries; null counts as absent."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self._path = path
        self._values = values

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def _checked(self, key: str, default: Any, is_right: Callable[[Any], bool]) -> Any:
        value = self._values.get(key)
        if value is None:
            value = default
        if value is None:
            raise ModelFileError(f"{self._path}: {key} is missing.")
        if not is_right(value):
            raise ModelFileError(f"{self._path}: {key} has the invalid value {value!r}.")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        return int(self._checked(key, default, lambda value: type(value) is int and value > 0))

    def first_whole(self, *keys: str) -> int:
        present = [key for key in keys if self._values.get(key) is not None]
        return self.whole(present[0] if present else keys[0])

    def number(self, key: str, default: float | None = None) -> float:
        return float(
            self._checked(key, default, lambda value: type(value) in (int, float) and value > 0)
        )

    def flag(self, key: str, default: bool) -> bool:
        return bool(self._checked(key, default, lambda value: type(value) is bool))

    def refuse_unsupported(self) -> None:
        for key in ("attention_bias", "mlp_bias", "use_sliding_window"):
            if self.flag(key, False):
                raise ModelFileError(f"{self._path}: {key} is not supported.")
        if self._values.get("hidden_act", "silu") != "silu":
            raise ModelFileError(
                f"{self._path}: activation {self._values['hidden_act']!r} is not supported."
            )
        kinds = set(self._values.get("layer_types") or ()) - {"full_attention"}
        if kinds:
            raise ModelFileError(
                f"{self._path}: layers of type {sorted(kinds)[0]} are not supported."
            )

    def rope_base(self) -> float:
        """Return ``rope_theta``, which newer files have inside ``rope_parameters``."""
        base = 10_000.0
        for key in ("rope_scaling", "rope_parameters"):
            values = self._checked(key, {}, lambda value: isinstance(value, dict))
            kind = values.get("rope_type", values.get("type", "default"))
            if kind != "default":
                raise ModelFileError(f"{self._path}: RoPE scaling {kind!r} is not supported.")
            base = _Entries(self._path, values).number("rope_theta", base)
            if values.get("partial_rotary_factor", 1) != 1:
                raise ModelFileError(f"{self._path}: RoPE over part of a head is not supported.")
        if self.number("partial_rotary_factor", 1.0) != 1:
            raise ModelFileError(f"{self._path}: RoPE over part of a head is not supported.")
        return self.number("rope_theta", base)

    def dense_layers(self, layers: int) -> frozenset[int]:
        """Return the layers of a mixture-of-experts model that have no experts."""
        step = self.whole("decoder_sparse_step", 1)
        listed = self._checked(
            "mlp_only_layers",
            [],
            lambda value: isinstance(value, list) and all(type(layer) is int for layer in value),
        )
        return frozenset(layer for layer in range(layers) if layer in listed or (layer + 1) % step)

    def fp8_block(self) -> tuple[int, int] | None:
        quantization = self._checked(
            "quantization_config", {}, lambda value: isinstance(value, dict)
        )
        if not quantization:
            return None
        method = quantization.get("quant_method")
        if method != "fp8" or quantization.get("fmt", "e4m3") != "e4m3":
            raise ModelFileError(
                f"{self._path}: quantization {method!r} is not supported. Only FP8 (e4m3) is."
            )
        block = quantization.get("weight_block_size")
        if (
            not isinstance(block, list)
            or len(block) != 2
            or not all(type(size) is int and size > 0 for size in block)
        ):
            raise ModelFileError(
                f"{self._path}: weight_block_size has the invalid value {block!r}."
            )
        return block[0], block[1]
