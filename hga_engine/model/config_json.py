"""Parse a Hugging Face ``config.json`` into a ``ModelConfig``."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hga_engine.architectures import ARCHITECTURES
from hga_engine.config import ModelConfig, RopeScaling, yarn_attention_factor
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
    positions, scaling = entries.positions()
    sliding_window = entries.sliding_window(architecture.sliding_window)
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
        max_positions=min(positions, sliding_window or positions),
        rope_base=entries.rope_base(),
        rms_norm_eps=entries.number("rms_norm_eps", 1e-6),
        tie_embeddings=entries.flag("tie_word_embeddings", False),
        num_experts=entries.first_whole("num_experts", "num_local_experts") if experts else 0,
        experts_per_token=entries.whole("num_experts_per_tok") if experts else 0,
        expert_intermediate_size=entries.whole("moe_intermediate_size") if experts else 0,
        normalize_expert_weights=entries.flag("norm_topk_prob", False),
        dense_layers=entries.dense_layers(layers) if experts else frozenset(),
        rope_scaling=scaling,
        sliding_window=sliding_window,
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

    def sliding_window(self, default: int | None) -> int | None:
        """Return the size of the sliding window; None: attention reaches back over all tokens."""
        if "sliding_window" in self._values and self._values["sliding_window"] is None:
            return None
        # Qwen's files state a window that use_sliding_window switches off.
        if default is None:
            return None
        return self.whole("sliding_window", default)

    def rope_base(self) -> float:
        """Return ``rope_theta``, which newer files have inside ``rope_parameters``."""
        rope = self._rope()
        if any(entries.number("partial_rotary_factor", 1.0) != 1 for entries in (self, rope)):
            raise ModelFileError(f"{self._path}: RoPE over part of a head is not supported.")
        return self.number("rope_theta", rope.number("rope_theta", 10_000.0))

    def positions(self) -> tuple[int, RopeScaling | None]:
        """Return the native context, and the RoPE scaling that belongs to it.

        ``max_position_embeddings`` may state the context before or after linear scaling or YaRN;
        with Llama 3's it is that after.
        """
        stated, rope = self.whole("max_position_embeddings"), self._rope()
        kind = rope.get("rope_type") or rope.get("type") or "default"
        if kind == "default":
            return stated, None
        if kind not in ("linear", "yarn", "llama3"):
            raise ModelFileError(
                f"{self._path}: RoPE scaling {kind!r} is not supported. Supported are linear, "
                "yarn and llama3."
            )
        key = "original_max_position_embeddings"
        original = self.whole(key, rope.whole(key, stated))
        factor = rope.number("factor", stated / original if kind == "yarn" else None)
        if kind == "llama3":
            low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
            if low >= high:
                raise ModelFileError(f"{self._path}: high_freq_factor is not above the low one.")
            scaling = RopeScaling(
                "llama3",
                factor,
                original,
                low_frequency_factor=low,
                high_frequency_factor=high,
            )
            return stated, scaling
        native = max(stated, round(original * factor))
        if kind == "linear":
            return native, RopeScaling("linear", factor, original)
        if not rope.flag("truncate", True):
            raise ModelFileError(f"{self._path}: YaRN without truncate is not supported.")
        attention = yarn_attention_factor(factor)
        scale, divisor = rope.get("mscale"), rope.get("mscale_all_dim")
        if scale and divisor:
            scale, divisor = rope.number("mscale"), rope.number("mscale_all_dim")
            attention = (1 + scale * (attention - 1)) / (1 + divisor * (attention - 1))
        scaling = RopeScaling(
            "yarn",
            factor,
            original,
            attention_factor=rope.number("attention_factor", attention),
            beta_fast=rope.number("beta_fast", 32.0),
            beta_slow=rope.number("beta_slow", 1.0),
        )
        return native, scaling

    def _rope(self) -> "_Entries":
        """Return ``rope_parameters``, which older files call ``rope_scaling``."""
        found: dict[str, Any] = {}
        for key in ("rope_scaling", "rope_parameters"):
            found |= self._checked(key, {}, lambda value: isinstance(value, dict))
        return _Entries(self._path, found)

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
