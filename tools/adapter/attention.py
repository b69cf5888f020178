"""Find the fastest attention over whole sequences on this GPU."""

import time

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.adapter.model import BaseModel

_MOST_APART = 0.05
"""How far two attentions may differ in bf16, of values of about 1."""


def fastest_attention(base: BaseModel, tokens: int) -> list[SDPBackend] | None:
    """Time all backends on one long sequence, forward and backward; return None on a CPU."""
    if base.device.type != "cuda":
        return None
    config = base.config
    heads = (config.num_query_heads, config.num_kv_heads, config.num_kv_heads)
    inputs = [
        torch.randn(
            (1, tokens, count, config.head_dim), device="cuda", dtype=torch.bfloat16
        ).requires_grad_()
        for count in heads
    ]
    times: dict[SDPBackend, float] = {}
    outputs: list[torch.Tensor] = []
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            for _ in range(3):
                torch.cuda.synchronize()
                began = time.perf_counter()
                with sdpa_kernel([backend]):
                    queries, keys, values = (part.transpose(1, 2) for part in inputs)
                    out = functional.scaled_dot_product_attention(
                        queries, keys, values, is_causal=True, enable_gqa=True
                    )
                out.backward(out.detach())
                torch.cuda.synchronize()
                times[backend] = time.perf_counter() - began
            outputs.append(out.detach())
            if (outputs[0] - outputs[-1]).abs().max() > _MOST_APART:
                raise RuntimeError("differs from the others")
        except RuntimeError as error:
            times.pop(backend, None)
            print(f"{backend.name}: {str(error).splitlines()[0]}", flush=True)
    order = sorted(times, key=lambda backend: times[backend])
    print({backend.name: f"{times[backend] * 1e3:.1f} ms" for backend in order}, flush=True)
    return [*order, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
