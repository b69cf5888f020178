"""Measure transformers' dense attention on this GPU, with random weights of Qwen3-30B-A3B.

Prefill and decoding in bf16, as transformers has no FP8 kernels of its own. Compare with
``hga-chat bench speed --synthetic qwen3-30b-a3b``.

    python -m tools.measure.compare_transformers_gpu --context 4096,65536
"""

import argparse
import json
import math
import time
from typing import Any

import torch

from hga_chat.bench.speed import ANSWER_TOKENS, QUESTION_TOKENS
from hga_chat.models import geometry_of

DECODED = 16
ROOM = 2 * (QUESTION_TOKENS + ANSWER_TOKENS)
"""Tokens of a context that the benchmark asks and answers."""


def random_model(layers: int | None) -> Any:
    """Return the model, created on the device."""
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    geometry = geometry_of("qwen3-30b-a3b")
    config = Qwen3MoeConfig(
        vocab_size=geometry.vocab_size,
        hidden_size=geometry.hidden_size,
        intermediate_size=geometry.intermediate_size,
        num_hidden_layers=layers or geometry.num_layers,
        num_attention_heads=geometry.num_query_heads,
        num_key_value_heads=geometry.num_kv_heads,
        head_dim=geometry.head_dim,
        max_position_embeddings=geometry.max_positions,
        rms_norm_eps=geometry.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": geometry.rope_base},
        tie_word_embeddings=False,
        num_experts=geometry.num_experts,
        num_experts_per_tok=geometry.experts_per_token,
        moe_intermediate_size=geometry.expert_intermediate_size,
        norm_topk_prob=True,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config,
            dtype=torch.bfloat16,
            attn_implementation="sdpa",
            experts_implementation="grouped_mm",
        )
    model.to_empty(device="cuda")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.fill_(1)
            else:
                weight.normal_(0, 1 / math.sqrt(weight.shape[-1]))
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to("cuda")
    return model.eval()


@torch.inference_mode()
def measure(model: Any, context: int) -> dict[str, float]:
    """Measure one dense forward pass over the text, then greedy decoding."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    tokens = torch.randint(model.config.vocab_size, (1, context - ROOM), device="cuda")
    began = time.perf_counter()
    out = model(tokens, use_cache=True, logits_to_keep=1)
    torch.cuda.synchronize()
    read_s = time.perf_counter() - began
    token = out.logits[:, -1:].argmax(-1)
    for step in range(DECODED + 1):
        if step == 1:
            torch.cuda.synchronize()
            began = time.perf_counter()
        out = model(token, past_key_values=out.past_key_values, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
    torch.cuda.synchronize()
    return {
        "read_s": read_s,
        "prefill_tokens_per_s": tokens.shape[1] / read_s,
        "decode_tokens_per_s": DECODED / (time.perf_counter() - began),
        "peak_beside_weights_bytes": torch.cuda.max_memory_allocated() - held,
        "weights_bytes": held,
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--context", default="4096,65536")
    parser.add_argument("--layers", type=int)
    arguments = parser.parse_args()
    model = random_model(arguments.layers)
    contexts = [int(part) for part in arguments.context.split(",")]
    measure(model, contexts[0])
    results = {context: measure(model, context) for context in contexts}
    print(json.dumps({"device": torch.cuda.get_device_name(), "context": results}, indent=1))


if __name__ == "__main__":
    main()
