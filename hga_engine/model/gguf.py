"""Weights from GGUF files."""

import re

import torch

from hga_engine.config import ModelConfig
from hga_engine.model.gguf_config import read_config
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
_EXPERT_TENSOR = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.(\w+)_proj\.weight")
_LAYER_TENSOR = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")


class GgufSource:
    """Tensors of a GGUF file under their Hugging Face names."""

    def __init__(self, file: GgufFile) -> None:
        """Parse the geometry.

        Raises:
            ModelFileError: the file is damaged or not supported.
        """
        self._file = file
        self._config = read_config(file)

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
