"""The memory ledger: predict what a session takes before anything is allocated."""

import torch

from hga_engine.config import ModelConfig, Routing, SessionConfig
from hga_engine.errors import DiskSpaceError, HostMemoryError
from hga_engine.prediction import Ledger
from hga_kernels import FP8_BLOCK

_MIB = 2**20
_MOVED_AT_A_TIME = 2 * 8 * _MIB
_PAGE_RECORD = 20
"""Most bytes that the stores keep about a page: its slot, last use and checksum."""


def weights_bytes(model: ModelConfig, dtype: torch.dtype) -> int:
    """Return the bytes of a model's weights.

    Args:
        model: geometry of the model.
        dtype: type of the linear weights. FP8 adds a float32 scale per 128 x 128 block;
            embeddings, output head, norms and expert gates are then bfloat16.
    """
    is_fp8 = dtype.itemsize == 1
    other = 2 if is_fp8 else dtype.itemsize

    def linear(rows: int, columns: int) -> int:
        scales = -(-rows // FP8_BLOCK) * -(-columns // FP8_BLOCK) * 4 if is_fp8 else 0
        return rows * columns * dtype.itemsize + scales

    def mlp(width: int) -> int:
        return 2 * linear(width, hidden) + linear(hidden, width)

    hidden = model.hidden_size
    queries = model.num_query_heads * model.head_dim
    kv = model.num_kv_heads * model.head_dim
    attention = linear(queries, hidden) + 2 * linear(kv, hidden) + linear(hidden, queries)
    norms = 2 * hidden + (2 * model.head_dim if model.traits.has_qk_norm else 0)
    total = model.num_layers * (attention + norms * other)
    for layer in range(model.num_layers):
        if model.has_experts(layer):
            total += model.num_experts * (mlp(model.expert_intermediate_size) + hidden * other)
        else:
            total += mlp(model.intermediate_size)
    tables = 1 if model.tie_embeddings else 2
    return total + (tables * model.vocab_size + 1) * hidden * other


def parameter_count(model: ModelConfig) -> int:
    """Return the parameters of a model; experts count whether or not they are chosen."""
    return weights_bytes(model, torch.bfloat16) // 2


def index_bytes(model: ModelConfig, routing: Routing, context: int, dtype: torch.dtype) -> int:
    """Return the bytes of the routing index of a full context.

    Per layer and KV head: with the router ``hga`` a summary of ``head_dim`` elements per chunk, and
    ``head_dim / 4`` bytes of codes and a 2-byte scale per token; with ``paper`` a summary per chunk
    and one per group; nothing with ``dense``.
    """
    summary = model.head_dim * dtype.itemsize
    if routing.kind == "hga":
        chunk = summary + routing.chunk_size * (model.head_dim // 4 + 2)
    elif routing.kind == "paper":
        chunk = summary * (1 + routing.chunk_size // routing.paper_group_size)
    else:
        chunk = 0
    return model.num_layers * model.num_kv_heads * -(-context // routing.chunk_size) * chunk


def predict(
    model: ModelConfig,
    weights: int,
    config: SessionConfig,
    dtype: torch.dtype,
    device_type: str = "cpu",
    hidden_dtype: torch.dtype | None = None,
) -> Ledger:
    """Predict the host memory and disk space of a session with a full context.

    K/V takes ``2 * layers * kv_heads * head_dim`` elements per token, in whole groups.

    The workspace holds the hidden states of a whole context; a slice's activations in float32
    (three times the hidden size, queries, keys, values and the output of attention, and the three
    intermediates of the MLP or of all chosen experts); scores and K/V of one query block in
    float32; logits twice; and, with a host budget, one whole layer of K/V, which is resident while
    it is open, and the pages in transit.

    Args:
        model: geometry of the model.
        weights: bytes of the weights in host memory.
        config: context, slice, routing and host budget.
        dtype: type of K/V.
        device_type: "cpu" or "cuda"; `plan_device` predicts the memory of a GPU.
        hidden_dtype: type of hidden states; None: that of K/V.
    """
    router, context = config.routing, config.cache.context
    groups = -(-context // router.group_size)
    heads = model.num_layers * model.num_kv_heads
    page = 2 * router.group_size * model.head_dim * dtype.itemsize
    kv_layer = model.num_kv_heads * groups * page
    kv = model.num_layers * kv_layer

    budget = config.cache.host_budget_bytes
    spills = budget is not None and budget < kv
    kv_host = min(kv, max(budget, heads * page)) if budget is not None else kv

    workspace = context * model.hidden_size * (hidden_dtype or dtype).itemsize
    workspace += heads * groups * _PAGE_RECORD
    workspace += 4 * (_slice_elements(model, config) + _block_elements(model, config))
    workspace += 4 * 2 * model.vocab_size
    if spills:
        workspace += kv_layer + _MOVED_AT_A_TIME
    index = index_bytes(model, router, context, dtype)
    if device_type != "cpu":
        index, workspace = 0, _MOVED_AT_A_TIME
    kv_saved = kv if config.cache.saved_dir is not None else 0
    return Ledger(weights, index, kv_host, kv if spills else 0, workspace, context, kv_saved)


def check(ledger: Ledger, available_host_bytes: int, free_disk_bytes: int) -> None:
    """Refuse a session that cannot fit.

    Args:
        ledger: the prediction.
        available_host_bytes: host memory that the session may take, weights included.
        free_disk_bytes: free space where the disk tier lives.

    Raises:
        HostMemoryError: host memory is short.
        DiskSpaceError: disk space is short.
    """
    if ledger.total_host > available_host_bytes:
        raise HostMemoryError(ledger, available_host_bytes)
    if ledger.kv_disk > free_disk_bytes:
        raise DiskSpaceError(ledger, free_disk_bytes)


def _slice_elements(model: ModelConfig, config: SessionConfig) -> int:
    """Count the elements of one slice's activations."""
    heads = 2 * (model.num_query_heads + model.num_kv_heads) * model.head_dim
    expert = 3 * model.expert_intermediate_size + model.hidden_size
    mlp = max(3 * model.intermediate_size, model.experts_per_token * expert)
    tokens = min(config.slice_tokens, config.cache.context)
    return tokens * (3 * model.hidden_size + heads + mlp)


def _block_elements(model: ModelConfig, config: SessionConfig) -> int:
    """Count the elements of the scores and the gathered K/V of one query block."""
    router, context = config.routing, config.cache.context
    attended = min(
        router.window_tokens + router.prefill_budget * router.prefill_group_size, context
    )
    if router.kind == "dense":
        attended = context
    scored = -(-router.prefill_block // router.scoring_stride) * context
    exact = router.prefill_block * attended
    gathered = 2 * model.num_kv_heads * attended * model.head_dim
    return model.num_query_heads * (scored + exact) + gathered
