"""Weights of the llama architecture from GGUF files."""

import re

import torch

from hga_engine.config import ModelConfig
from hga_engine.errors import ModelFileError
from hga_engine.model.gguf_file import GgufFile

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
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER_TENSOR = re.compile(r"model\.layers\.(\d+)\.(.+)\.weight")


class GgufSource:
    """Tensors of a GGUF file under their Hugging Face names, dequantised to float32."""

    def __init__(self, file: GgufFile) -> None:
        """Parse the geometry.

        Raises:
            ModelFileError: the file is damaged or not supported.
        """
        self._file = file
        self._config = _read_config(file)

    @property
    def config(self) -> ModelConfig:
        """Geometry of the model."""
        return self._config

    def read(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """See ``TensorSource.read``."""
        tensor = torch.from_numpy(self._file.tensor(_stored_name(name), shape))
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            return _restore_halves(tensor, self._config.head_dim)
        return tensor


def _stored_name(name: str) -> str:
    match = _LAYER_TENSOR.fullmatch(name)
    return f"blk.{match[1]}.{_INNER[match[2]]}.weight" if match else _OUTER[name]


def _restore_halves(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Undo the row order that llama.cpp gives the q and k weights of llama.

    llama.cpp's RoPE rotates neighbouring rows of a head together (0 with 1), Hugging Face's the two
    halves (0 with head_dim / 2), so the GGUF converter interleaves the halves.
    """
    pairs = weight.view(-1, head_dim // 2, 2, weight.shape[1])
    return pairs.transpose(1, 2).flatten(0, 2)


def _read_config(file: GgufFile) -> ModelConfig:
    architecture = file.value("general.architecture", str)
    if architecture != "llama":
        raise ModelFileError(
            f"{file.path}: GGUF files of architecture {architecture!r} are not supported. The "
            "model's safetensors directory may be."
        )
    _refuse_unsupported(file)
    hidden = file.value("llama.embedding_length", int)
    heads = file.value("llama.attention.head_count", int)
    kv_heads = file.value("llama.attention.head_count_kv", int, heads)
    if min(hidden, heads, kv_heads) < 1 or heads % kv_heads:
        raise ModelFileError(
            f"{file.path}: {heads} query heads and {kv_heads} KV heads do not fit together."
        )
    head_dim = file.value("llama.attention.key_length", int, hidden // heads)
    if head_dim < 2 or file.value("llama.rope.dimension_count", int, head_dim) != head_dim:
        raise ModelFileError(f"{file.path}: RoPE over part of a head is not supported.")
    return ModelConfig(
        architecture="llama",
        num_layers=file.value("llama.block_count", int),
        hidden_size=hidden,
        num_query_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=file.value("llama.feed_forward_length", int),
        vocab_size=len(file.values("tokenizer.ggml.tokens", str)),
        max_positions=file.value("llama.context_length", int),
        rope_base=file.value("llama.rope.freq_base", float, 10_000.0),
        rms_norm_eps=file.value("llama.attention.layer_norm_rms_epsilon", float),
        tie_embeddings=not file.has_tensor("output.weight"),
    )


def _refuse_unsupported(file: GgufFile) -> None:
    scaling = file.value("llama.rope.scaling.type", str, "none")
    if scaling != "none" or file.has_tensor("rope_freqs.weight"):
        raise ModelFileError(f"{file.path}: RoPE scaling is not supported.")
    if file.value("llama.expert_count", int, 0):
        raise ModelFileError(f"{file.path}: experts in GGUF files are not supported.")
    biases = [name for name in file.tensor_names() if name.endswith(".bias")]
    if biases:
        raise ModelFileError(f"{file.path}: biases are not supported ({biases[0]}).")
