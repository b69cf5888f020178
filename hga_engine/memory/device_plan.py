"""Plan how a session divides the memory of a GPU."""

from dataclasses import dataclass, fields

import torch

from hga_engine.config import ModelConfig, SessionConfig
from hga_engine.errors import GpuMemoryError
from hga_engine.memory.ledger import index_bytes
from hga_kernels import SELECTION_BYTES, STRATA, min_cache_slots

_MIB = 2**20
_FRAGMENTS = 96 * _MIB
"""Memory that torch's allocator holds beyond what is requested, and that of a captured graph."""


@dataclass(frozen=True)
class DeviceUse:
    """Bytes of a GPU's memory when a session is planned."""

    total: int
    """All memory of the GPU."""
    weights: int
    """The model's weights on the GPU."""
    other: int
    """In use besides the weights, as the driver counts: the CUDA context and other programs."""


@dataclass(frozen=True)
class DevicePlan:
    """Planned bytes of GPU memory by purpose."""

    driver: int
    """In use besides the weights: the CUDA context and other programs."""
    weights: int
    index: int
    layer_pools: int
    """K/V of the layer in use and of the next one."""
    window: int
    """Sinks and open chunk of all layers, for decoding."""
    page_cache: int
    workspace: int
    cached_pages: int
    """Slots of the page cache per layer and KV head; the only number that is not in bytes."""

    @property
    def total(self) -> int:
        """Bytes in all, as the driver counts them."""
        return sum(getattr(self, part.name) for part in fields(self)[:-1])


def plan_device(
    model: ModelConfig,
    config: SessionConfig,
    use: DeviceUse,
    dtype: torch.dtype,
    hidden_dtype: torch.dtype | None = None,
) -> DevicePlan:
    """Divide the memory of a GPU; the page cache takes what the other purposes leave.

    The workspace holds the hidden states of a whole context, unless they fit in the page cache
    during prefill, and the memory of one slice: hidden states three times, queries, keys and values
    before and after RoPE, the output of attention, the intermediate and output rows of the experts
    (or the MLP), the scores of the groups to select from and, if weights are packed, those of one
    layer in ``dtype``.

    Args:
        model: geometry of the model.
        config: context, routing, slice size and memory limit.
        use: memory of the GPU, and what is in use.
        dtype: type of K/V.
        hidden_dtype: type of hidden states; None: that of K/V.

    Raises:
        GpuMemoryError: the session does not fit.
    """
    router, context = config.routing, config.cache.context
    groups = -(-context // router.group_size)
    chunks = -(-context // router.chunk_size)
    per_chunk = router.chunk_size // router.group_size
    # A slot for every group, with all strata as large as the largest.
    most_pages = -(-chunks // STRATA) * STRATA * per_chunk
    least_pages = min(min_cache_slots(router.decode_budget, per_chunk), most_pages)
    heads = model.num_layers * model.num_kv_heads
    page = 2 * router.group_size * model.head_dim * dtype.itemsize
    index = index_bytes(model, router, context, dtype)
    pools = 2 * model.num_kv_heads * groups * page
    window_pages = router.window_tokens // router.group_size
    window = heads * (window_pages * page + groups * 4)
    wide = hidden_dtype or dtype
    workspace = _workspace(model, config, dtype, wide) + _FRAGMENTS
    limit = min(use.total, config.cache.device_limit_bytes or use.total)
    left = limit - use.other - use.weights - index - pools - window - workspace
    hidden = context * model.hidden_size * wide.itemsize
    # One cached page of every head, with its owner and its stamp.
    slot = heads * (page + 8)
    pages = min(left // slot, most_pages)
    if (pages + window_pages) * heads * page < hidden:
        left, workspace = left - hidden, workspace + hidden
        pages = min(left // slot, most_pages)
    if pages < least_pages:
        needed = limit - left + least_pages * slot
        parts = {
            "weights": use.weights,
            "index": index,
            "K/V": pools + window,
            "workspace": workspace,
            "other use": use.other,
        }
        raise GpuMemoryError(parts, needed, limit, context)
    return DevicePlan(
        driver=use.other,
        weights=use.weights,
        index=index,
        layer_pools=pools,
        window=window,
        page_cache=pages * slot,
        workspace=workspace,
        cached_pages=pages,
    )


def _workspace(
    model: ModelConfig, config: SessionConfig, dtype: torch.dtype, wide: torch.dtype
) -> int:
    """Return the bytes of a slice, of selection and of the logits.

    Hidden states, the QKV product and the outputs of experts are ``wide``, all else is ``dtype``.
    They are wider with packed weights, of which those of one layer are unpacked to ``dtype``.
    """
    router, context = config.routing, config.cache.context
    tokens = min(config.slice_tokens, context)
    heads = (model.num_query_heads + model.num_kv_heads) * model.head_dim
    attended = model.num_query_heads * model.head_dim
    outputs, mlp = 3 * model.hidden_size + heads, 3 * model.intermediate_size
    if model.num_experts:
        mlp = model.experts_per_token * model.expert_intermediate_size
        outputs += model.experts_per_token * model.hidden_size
    row = outputs * wide.itemsize + (heads + attended + mlp) * dtype.itemsize
    angles = context * model.head_dim * 4
    # Selection takes the query blocks in batches that fit its workspace, but keeps all scores.
    scores = 4 * (
        tokens // router.prefill_block * model.num_kv_heads * context // router.prefill_group_size
    )
    selection = scores + SELECTION_BYTES
    unpacked = _layer_elements(model) * dtype.itemsize if wide != dtype else 0
    return tokens * row + angles + selection + 4 * model.vocab_size + unpacked


def _layer_elements(model: ModelConfig) -> int:
    """Return the elements of the linear weights of a layer."""
    heads = 2 * (model.num_query_heads + model.num_kv_heads) * model.head_dim
    mlp = 3 * (model.num_experts * model.expert_intermediate_size or model.intermediate_size)
    return model.hidden_size * (heads + mlp)
