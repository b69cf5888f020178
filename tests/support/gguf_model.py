"""Transformers models as GGUF files, with the names and row orders of llama.cpp's converter."""

import gguf
import numpy as np
import torch

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
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
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
}
"""Hugging Face's names to GGUF's."""
ARCHITECTURES = {"mistral": "llama", "qwen3_moe": "qwen3moe"}
"""Hugging Face's ``model_type`` to GGUF's architecture, where they differ."""


def gguf_name(name):
    """Return the name of a parameter in GGUF files."""
    stem, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):  # experts, in transformers one parameter for all
        stem, kind = name, "weight"
    if stem.startswith("model.layers."):
        layer, inner = stem.removeprefix("model.layers.").split(".", 1)
        return f"blk.{layer}.{NAMES[inner]}.{kind}"
    return f"{NAMES[stem]}.{kind}"


def interleave(tensor, heads):
    """Put q and k rows in llama.cpp's order: rows 0, half, 1, half + 1, ... of each head."""
    rows = tensor.reshape(heads, -1, *tensor.shape[1:])
    half = rows.shape[1] // 2
    order = [row for pair in zip(range(half), range(half, 2 * half), strict=True) for row in pair]
    return rows[:, order].reshape(tensor.shape)


def write_gguf(model, path, kind=gguf.GGMLQuantizationType.F32, metadata=(), tensors=()):
    """Write a transformers model to GGUF.

    Args:
        model: of an architecture that the engine supports.
        path: of the file.
        kind: of every matrix.
        metadata: calls of the writer: the method's name, then its arguments.
        tensors: name and values of tensors that are added.

    Returns:
        The weights in the file, for transformers.
    """
    config = model.config
    architecture = ARCHITECTURES.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(path, architecture)
    head_dim = getattr(config, "head_dim", None)
    head_dim = head_dim or config.hidden_size // config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    if architecture == "llama":
        writer.add_rope_dimension_count(head_dim)
    if architecture == "qwen3moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_token_list([f"token {number}" for number in range(config.vocab_size)])
    for add, *values in metadata:
        getattr(writer, add)(*values)
    held = {}
    for name, parameter in model.named_parameters():
        weight = parameter.detach().float().numpy()
        if name.endswith(("norm.weight", ".bias", "mlp.gate.weight")):
            held[name], packed, stored = weight, weight, gguf.GGMLQuantizationType.F32
        else:
            packed, stored = gguf.quantize(weight, kind), kind
            held[name] = gguf.dequantize(packed, kind)
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            packed = interleave(packed, heads)
        if name.endswith("gate_up_proj"):
            stem = name.removesuffix("gate_up_proj")
            gate, up = np.split(packed, 2, axis=1)
            pieces = {stem + "gate_proj": gate, stem + "up_proj": up}
        else:
            pieces = {name: packed}
        for piece, data in pieces.items():
            writer.add_tensor(gguf_name(piece), np.ascontiguousarray(data), raw_dtype=stored)
    for name, tensor in tensors:
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {name: torch.from_numpy(np.array(weight)) for name, weight in held.items()}
