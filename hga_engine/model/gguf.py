"""Weights from GGUF files."""

import re

import torch

from hga_engine.architectures import GGUF_ARCHITECTURES
from hga_engine.config import ModelConfig, RopeScaling, yarn_attention_factor
from hga_engine.errors import ModelFileError
from hga_engine.model.gguf_file import GgufFile
from hga_engine.model.source import StoredTensor, restore_halves

_OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
}
_PLAIN = {"F32": torch.float32, "BF16": torch.bfloat16}
_DIVISORS = "rope_freqs.weight"
"""What Llama 3's scaling divides each of RoPE's frequencies by."""
_EXPERT_TENSOR = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.(\w+)_proj\.weight")
_LAYER_TENSOR = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
_QKV_BIASES = tuple(f".attn_{part}.bias" for part in "qkv")


class GgufSource:
    """Tensors of a GGUF file under their Hugging Face names."""

    def __init__(self, file: GgufFile) -> None:
        """Parse the geometry.

        Raises:
            ModelFileError: the file is damaged or not supported.
        """
        self._file = file
        self._config = _read_config(file)
        _check_counts(file, self._config)

    @property
    def config(self) -> ModelConfig:
        """Geometry of the model."""
        return self._config

    @property
    def is_packed(self) -> bool:
        """See ``StoredSource.is_packed``."""
        return any(kind not in _PLAIN for kind in self._file.kinds())

    @property
    def fp8_block(self) -> None:
        """GGUF files have no FP8 weights."""

    def stored(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """See ``StoredSource.stored``."""
        own, whole, expert = self._place(name, shape)
        entry = self._file.entry(own, whole)
        offset = entry.offset if expert is None else entry.offset + entry.size // whole[0] * expert
        kind = _PLAIN.get(entry.kind.name, entry.kind.name)
        return StoredTensor(own, entry.path, offset, shape, kind, self._interleaved(name))

    def read(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """See ``TensorSource.read``. The tensor is dequantised to float32."""
        tensor = torch.from_numpy(self._file.tensor(*self._place(name, shape)))
        interleaved = self._interleaved(name)
        return restore_halves(tensor, interleaved) if interleaved else tensor

    def _place(self, name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...], int | None]:
        """Return the tensor that holds a tensor, its shape and which of its entries it is."""
        match = _EXPERT_TENSOR.fullmatch(name)
        if match is None:
            return _stored_name(name), shape, None
        stacked = (self._config.num_experts, *shape)
        return f"blk.{match[1]}.ffn_{match[3]}_exps.weight", stacked, int(match[2])

    def _interleaved(self, name: str) -> int:
        is_rotated = "q_proj" in name or "k_proj" in name
        is_swapped = is_rotated and self._config.traits.interleaves_gguf
        return self._config.head_dim if is_swapped else 0


def _stored_name(name: str) -> str:
    match = _LAYER_TENSOR.fullmatch(name)
    return f"blk.{match[1]}.{_INNER[match[2]]}.{match[3]}" if match else _OUTER[name]


def _read_config(file: GgufFile) -> ModelConfig:
    name = file.value("general.architecture", str)
    architecture = GGUF_ARCHITECTURES.get(name)
    if architecture is None:
        raise ModelFileError(
            f"{file.path}: architecture {name!r} is not supported. Supported are "
            f"{', '.join(GGUF_ARCHITECTURES)}."
        )
    _refuse_unsupported(file, name)
    hidden = file.value(f"{name}.embedding_length", int)
    heads = file.value(f"{name}.attention.head_count", int)
    kv_heads = file.value(f"{name}.attention.head_count_kv", int, heads)
    if min(hidden, heads, kv_heads) < 1 or heads % kv_heads:
        raise ModelFileError(
            f"{file.path}: {heads} query heads and {kv_heads} KV heads do not fit together."
        )
    head_dim = file.value(f"{name}.attention.key_length", int, hidden // heads)
    value_dim = file.value(f"{name}.attention.value_length", int, head_dim)
    if head_dim < 2 or head_dim % 2 or value_dim != head_dim:
        raise ModelFileError(
            f"{file.path}: keys of dimension {head_dim} and values of dimension {value_dim} are "
            "not supported."
        )
    if file.value(f"{name}.rope.dimension_count", int, head_dim) != head_dim:
        raise ModelFileError(f"{file.path}: RoPE over part of a head is not supported.")
    has_experts = architecture.has_experts
    experts = file.value(f"{name}.expert_count", int) if has_experts else 0
    chosen = file.value(f"{name}.expert_used_count", int) if has_experts else 0
    if has_experts and not 1 <= chosen <= experts:
        raise ModelFileError(f"{file.path}: {chosen} of {experts} experts cannot be chosen.")
    positions, scaling = _positions(file, name, head_dim)
    return ModelConfig(
        architecture=architecture.name,
        num_layers=file.value(f"{name}.block_count", int),
        hidden_size=hidden,
        num_query_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=file.value(f"{name}.feed_forward_length", int),
        vocab_size=file.shape("token_embd.weight")[0],
        max_positions=positions,
        rope_base=file.value(f"{name}.rope.freq_base", float, 10_000.0),
        rms_norm_eps=file.value(f"{name}.attention.layer_norm_rms_epsilon", float),
        tie_embeddings=not file.has_tensor("output.weight"),
        num_experts=experts,
        experts_per_token=chosen,
        expert_intermediate_size=(
            file.value(f"{name}.expert_feed_forward_length", int) if has_experts else 0
        ),
        normalize_expert_weights=file.value(f"{name}.expert_weights_norm", bool, True),
        rope_scaling=scaling,
    )


def _check_counts(file: GgufFile, config: ModelConfig) -> None:
    """Hold the numbers of layers and experts against the tensors, before either takes memory."""
    if not 1 <= config.num_layers <= len(file.tensor_names()):
        raise ModelFileError(
            f"{file.path}: its metadata count {config.num_layers:,} layers, but it has "
            f"{len(file.tensor_names()):,} tensors. Fetch it again."
        )
    if config.num_experts:
        held = file.shape(f"blk.{config.num_layers - 1}.ffn_gate_exps.weight")[0]
        if held != config.num_experts:
            raise ModelFileError(
                f"{file.path}: its metadata count {config.num_experts:,} experts, its tensors "
                f"have {held:,}. Fetch it again."
            )


def _positions(file: GgufFile, name: str, head_dim: int) -> tuple[int, RopeScaling | None]:
    """Return the native context, and the RoPE scaling that belongs to it."""
    stated = file.value(f"{name}.context_length", int)
    prefix = f"{name}.rope.scaling."
    factor = file.value(prefix + "factor", float, file.value(f"{name}.rope.scale_linear", float, 1))
    kind = file.value(prefix + "type", str, "linear")
    if factor in (0, 1):
        kind = "none" if kind in ("linear", "yarn") else kind
    if file.has_tensor(_DIVISORS):
        if kind != "none":
            raise ModelFileError(f"{file.path}: has {_DIVISORS} beside {kind} RoPE scaling.")
        # llama.cpp's converter computes them from Llama 3's factors.
        values = [float(value) for value in file.tensor(_DIVISORS, (head_dim // 2,))]
        if min(values) <= 0:
            raise ModelFileError(f"{file.path}: tensor {_DIVISORS} is damaged.")
        if max(values) == min(values) == 1:
            return stated, None
        return stated, RopeScaling("llama3", max(values), 0, divisors=tuple(values))
    if kind == "none":
        return stated, None
    if kind not in ("linear", "yarn") or factor < 1:
        raise ModelFileError(
            f"{file.path}: RoPE scaling {kind!r} by {factor:g} is not supported. Supported are "
            f"linear and yarn, and Llama 3's in the tensor {_DIVISORS}."
        )
    original = file.value(prefix + "original_context_length", int, stated)
    if original < 1:
        raise ModelFileError(f"{file.path}: {prefix}original_context_length is damaged.")
    native, own = (
        max(stated, round(original * factor)),
        file.value(prefix + "attn_factor", float, 1),
    )
    if kind == "linear":
        return native, RopeScaling("linear", factor, original, attention_factor=own)
    scaling = RopeScaling(
        "yarn",
        factor,
        original,
        attention_factor=own
        * file.value(prefix + "yarn_attn_factor", float, yarn_attention_factor(factor)),
        beta_fast=file.value(prefix + "yarn_beta_fast", float, 32.0),
        beta_slow=file.value(prefix + "yarn_beta_slow", float, 1.0),
    )
    return native, scaling


def _refuse_unsupported(file: GgufFile, name: str) -> None:
    architecture = GGUF_ARCHITECTURES[name]
    if file.value(f"{name}.expert_count", int, 0) and not architecture.has_experts:
        raise ModelFileError(f"{file.path}: experts of architecture {name} are not supported.")
    known = _QKV_BIASES if architecture.has_qkv_bias else ()
    for tensor in file.tensor_names():
        if tensor.endswith(".bias") and not tensor.endswith(known):
            raise ModelFileError(f"{file.path}: the bias {tensor} is not supported.")
