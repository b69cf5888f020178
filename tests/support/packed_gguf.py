"""Tiny GGUF files with random blocks of any format, written by the ``gguf`` library."""

import gguf
import numpy as np

from tests.support.packed_weights import random_rows

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, WIDTH, VOCABULARY, LAYERS = 256, 4, 2, 64, 512, 40, 2
EXPERTS = 3

_SCALES = {"MXFP4": (0, 1), "TQ1_0": (52, 2), "TQ2_0": (64, 2), "IQ2_XS": (0, 2)}
"""Where blocks of formats without kernels have their scale, and in how many bytes."""


def random_tensor(kind, shape, seed):
    """Return the bytes of a tensor as the library takes them, or plain numbers for F32."""
    rng = np.random.default_rng(seed)
    if kind == "F32":
        return rng.normal(0, 0.1, shape).astype(np.float32)
    *stack, columns = shape
    rows = int(np.prod(stack))
    if kind == "BF16":
        numbers = rng.normal(0, 0.1, (rows, columns)).astype(np.float32)
        return gguf.quantize(numbers, gguf.GGMLQuantizationType.BF16).reshape(*stack, -1)
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    if kind not in _SCALES:
        return random_rows(kind, rows, columns // block, seed).numpy().reshape(*stack, -1)
    data = rng.integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
    at, wide = _SCALES[kind]
    if wide == 1:  # a power of two: 2^-24 to 2^-4
        data[..., at] = rng.integers(104, 124, data.shape[:-1])
    else:
        scales = rng.normal(0, 0.1, (*data.shape[:-1], 1)).astype(np.float16)
        data[..., at : at + 2] = scales.view(np.uint8)
    return data.reshape(*stack, -1)


def tensors(architecture, kind_of):
    """Return the type and bytes of each tensor of a tiny model, by name.

    Args:
        architecture: "llama" or "qwen3moe".
        kind_of: gives the type of a matrix by its name.
    """
    shapes = {"token_embd": (VOCABULARY, HIDDEN), "output_norm": (HIDDEN,)}
    shapes["output"] = VOCABULARY, HIDDEN
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        shapes |= {block + "attn_norm": (HIDDEN,), block + "ffn_norm": (HIDDEN,)}
        shapes |= {block + "attn_q": (HEADS * HEAD_DIM, HIDDEN)}
        shapes |= {block + f"attn_{part}": (KV_HEADS * HEAD_DIM, HIDDEN) for part in "kv"}
        shapes |= {block + "attn_output": (HIDDEN, HEADS * HEAD_DIM)}
        experts = (EXPERTS,) if architecture == "qwen3moe" else ()
        suffix = "_exps" if experts else ""
        for part in ("gate", "up"):
            shapes[f"{block}ffn_{part}{suffix}"] = (*experts, WIDTH, HIDDEN)
        shapes[f"{block}ffn_down{suffix}"] = (*experts, HIDDEN, WIDTH)
        if experts:
            shapes |= {block + "ffn_gate_inp": (EXPERTS, HIDDEN)}
            shapes |= {block + f"attn_{part}_norm": (HEAD_DIM,) for part in "qk"}
    found = {}
    for seed, (stem, shape) in enumerate(shapes.items()):
        is_plain = len(shape) == 1 or stem.endswith("gate_inp")
        kind = "F32" if is_plain else kind_of(stem)
        found[stem + ".weight"] = kind, random_tensor(kind, shape, seed)
    return found


def write(path, architecture="llama", kind_of=lambda name: "Q4_K", metadata=(), held=None):
    """Write a tiny model and return its ``tensors``.

    Args:
        path: of the file.
        architecture: "llama" or "qwen3moe".
        kind_of: gives the type of a matrix by its name.
        metadata: calls of the writer: the method's name, then its arguments.
        held: the tensors to write, if they are not those of ``tensors``.
    """
    found = tensors(architecture, kind_of) if held is None else held
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    if architecture == "qwen3moe":
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(WIDTH)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list([f"token {number}" for number in range(VOCABULARY)])
    for add, *values in metadata:
        getattr(writer, add)(*values)
    for name, (kind, data) in found.items():
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def numbers(tensor):
    """Dequantise one of ``tensors`` with the library."""
    kind, data = tensor
    return np.array(gguf.dequantize(data, gguf.GGMLQuantizationType[kind]))
