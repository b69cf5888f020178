"""Compare this engine with transformers' dense attention on a CPU: prefill and decode.

Both have the same weights (embedded model, adapter merged), the same text and the same threads.

    python -m tools.measure.compare_transformers --context 65536
"""

import argparse
import json
import resource
import sys
import time
from functools import partial
from typing import Any

import torch

from hga_chat.bench.speed import ANSWER_TOKENS, QUESTION_TOKENS, run_speed
from hga_chat.bench.text import standard_text
from hga_chat.models import EMBEDDED_MODEL, pull_model
from hga_engine.config import EngineConfig
from hga_engine.opening import LoadedModel, prepare_model
from hga_kernels.weights import plain

DECODED = 16
ROOM = 2 * (QUESTION_TOKENS + ANSWER_TOKENS)
"""Tokens of a context that the benchmark asks and answers."""


def peak_gib() -> float:
    """Return the most memory that this process ever held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def ours(model: LoadedModel, tokens: list[int]) -> dict[str, Any]:
    """Measure as ``bench speed`` does."""
    context = len(tokens) + ROOM
    found = run_speed(model, tokens, [context], EngineConfig(), partial(print, file=sys.stderr))
    speed = found["context"][context]
    return {
        "read_s": len(tokens) / speed["prefill_tokens_per_s"],
        "read_tokens_per_s": speed["prefill_tokens_per_s"],
        "decode_tokens_per_s": speed["decode_tokens_per_s"],
        "peak_gib": peak_gib(),
    }


def transformers_model(model: LoadedModel) -> Any:
    """Return a transformers model with the same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = model.weights.config
    dense = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_query_heads,
            num_key_value_heads=config.num_kv_heads,
            max_position_embeddings=config.max_positions,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
            tie_word_embeddings=True,
            attn_implementation="sdpa",
        )
    ).to(torch.bfloat16)
    q_size = config.num_query_heads * config.head_dim
    kv_size = config.num_kv_heads * config.head_dim
    dtype = model.weights.dtype
    with torch.no_grad():
        dense.model.embed_tokens.weight.copy_(plain(model.weights.embedding, dtype))
        dense.model.norm.weight.copy_(model.weights.final_norm)
        for layer, weights in zip(dense.model.layers, model.weights.layers, strict=True):
            q, k, v = plain(weights.qkv, dtype).split((q_size, kv_size, kv_size))
            gate, up = plain(weights.gate_up, dtype).chunk(2)
            for target, source in (
                (layer.self_attn.q_proj, q),
                (layer.self_attn.k_proj, k),
                (layer.self_attn.v_proj, v),
                (layer.self_attn.o_proj, plain(weights.output, dtype)),
                (layer.mlp.gate_proj, gate),
                (layer.mlp.up_proj, up),
                (layer.mlp.down_proj, plain(weights.down, dtype)),
                (layer.input_layernorm, weights.attention_norm),
                (layer.post_attention_layernorm, weights.mlp_norm),
            ):
                target.weight.copy_(source)
    return dense.eval()


@torch.inference_mode()
def theirs(model: LoadedModel, tokens: list[int]) -> dict[str, Any]:
    """Measure one dense forward pass over the tokens, then decoding."""
    dense = transformers_model(model)
    began = time.perf_counter()
    out = dense(torch.tensor([tokens]), use_cache=True, logits_to_keep=1)
    read_s = time.perf_counter() - began
    token = out.logits[:, -1].argmax(-1, keepdim=True)
    began = time.perf_counter()
    for _ in range(DECODED):
        out = dense(token, past_key_values=out.past_key_values, use_cache=True)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
    decode_s = time.perf_counter() - began
    return {
        "read_s": read_s,
        "read_tokens_per_s": len(tokens) / read_s,
        "decode_tokens_per_s": DECODED / decode_s,
        "peak_gib": peak_gib(),
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--context", type=int, default=65_536)
    arguments = parser.parse_args()
    imported = peak_gib()
    model = prepare_model(pull_model(EMBEDDED_MODEL, print), device="cpu")
    tokens = model.tokenizer.encode(standard_text())[: arguments.context - ROOM]
    result = {
        "tokens": len(tokens),
        "threads": torch.get_num_threads(),
        "import_peak_gib": imported,
        "hga-chat": ours(model, tokens),
        "transformers": theirs(model, tokens),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
