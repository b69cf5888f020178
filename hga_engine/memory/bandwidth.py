"""How fast a model will decode: the bytes it reads a token over the bandwidth of memory."""

import time
from dataclasses import replace
from functools import cache

import torch

from hga_engine.config import ModelConfig, Routing
from hga_engine.memory import ledger

_COPIED_BYTES = 64 << 20
"""Of each copy that measures; more than caches hold."""
_COPIES = 4
_LAYER_S = {"cpu": 150e-6, "cuda": 30e-6}
"""Time of a layer beside that of its bytes. Two cores of an AMD EPYC that copy 28 GB/s decode
smollm2-64k at 4K in 14 ms a token, of which its 311 MB take 11, and Qwen2.5-Coder-1.5B in 38 to 44,
of which 1,017 MB take 36; one H200 decodes Qwen3-30B-A3B in FP8 at 4K in 2.23 ms a token, of which
its 3.37 GB take 0.8."""
_DRAWN_PART = 3
"""A query draws a third of the budget: Qwen2.5-Coder-1.5B does at 64K, on average."""


@cache
def memory_bandwidth(device: torch.device) -> float:
    """Measure the bandwidth of a device's memory in bytes a second, by copies; cached.

    Takes about 50 ms on a CPU.
    """
    source = torch.ones(_COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)  # the first touches fresh pages
    fastest = min(_copy_s(source, target) for _ in range(_COPIES))
    return 2 * _COPIED_BYTES / fastest


def _copy_s(source: torch.Tensor, target: torch.Tensor) -> float:
    if source.is_cuda:
        torch.cuda.synchronize(source.device)
    began = time.perf_counter()
    target.copy_(source)
    if source.is_cuda:
        torch.cuda.synchronize(source.device)
    return time.perf_counter() - began


def decode_bytes(model: ModelConfig, weights: int, routing: Routing, tokens: int) -> int:
    """Return the bytes that one decoded token reads.

    Of the weights, all but the embedding (unless it is the head as well) and the experts that are
    not chosen; the index of all tokens; and K and V of the window and what is drawn, in bf16.

    Args:
        model: geometry of the model.
        weights: bytes of all weights.
        routing: budget and groups.
        tokens: tokens in the session.
    """
    chosen = replace(model, num_experts=model.experts_per_token)
    dense, whole = (ledger.weights_bytes(config, torch.bfloat16) for config in (chosen, model))
    table = 0 if model.tie_embeddings else 2 * model.vocab_size * model.hidden_size
    attended = min(tokens, routing.window_tokens + routing.budget_tokens // _DRAWN_PART)
    if routing.kind == "dense":
        attended = tokens
    kv = 2 * 2 * model.num_layers * model.num_kv_heads * model.head_dim * attended
    index = ledger.index_bytes(model, routing, tokens, torch.bfloat16)
    return weights * (dense - table) // whole + kv + index


def decode_rate(model: ModelConfig, bytes_a_token: int, device: torch.device) -> float:
    """Return about how many tokens a second a device decodes.

    Args:
        model: geometry of the model.
        bytes_a_token: see ``decode_bytes``.
        device: where the model computes.
    """
    return 1 / (bytes_a_token / memory_bandwidth(device) + model.num_layers * _LAYER_S[device.type])
