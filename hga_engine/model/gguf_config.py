"""Parse the metadata of a GGUF file into a ``ModelConfig``."""

from hga_engine.architectures import GGUF_ARCHITECTURES
from hga_engine.config import ModelConfig, RopeScaling, yarn_attention_factor
from hga_engine.errors import DamagedWeightsError, ModelFileError
from hga_engine.model.gguf_file import GgufFile

_DIVISORS = "rope_freqs.weight"
"""What Llama 3's scaling divides each of RoPE's frequencies by."""
_QKV_BIASES = tuple(f".attn_{part}.bias" for part in "qkv")


def read_config(file: GgufFile) -> ModelConfig:
    """Return the geometry that the metadata of a GGUF file states, held against its tensors.

    Raises:
        ModelFileError: it is damaged or describes an unsupported model.
    """
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
    config = ModelConfig(
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
    _check_counts(file, config)
    return config


def _check_counts(file: GgufFile, config: ModelConfig) -> None:
    """Hold the numbers of layers and experts against the tensors, before either takes memory."""
    if not 1 <= config.num_layers <= len(file.tensor_names()):
        raise DamagedWeightsError(
            f"{file.path}: its metadata count {config.num_layers:,} layers, but it has "
            f"{len(file.tensor_names()):,} tensors."
        )
    if config.num_experts:
        held = file.shape(f"blk.{config.num_layers - 1}.ffn_gate_exps.weight")[0]
        if held != config.num_experts:
            raise DamagedWeightsError(
                f"{file.path}: its metadata count {config.num_experts:,} experts, its tensors "
                f"have {held:,}."
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
