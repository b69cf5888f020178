"""Memory of a GPU: what a session will take of it, and what is in use."""

from dataclasses import dataclass, fields

import torch

from hga_engine.config import ModelConfig, SessionConfig
from hga_engine.errors import GpuMemoryError
from hga_kernels import SELECTION_BYTES, STRATA, min_cache_slots

_MIB = 2**20
_FRAGMENTS = 96 * _MIB
"""What torch's allocator holds beyond what is asked of it, and a captured graph."""


@dataclass(frozen=True)
class DevicePlan:
    """Bytes of GPU memory that a session takes, by purpose."""

    driver: int
    """In use before anything of ours: the CUDA context, and other programs."""
    weights: int
    index: int
    layer_pools: int
    """K/V of the layer that is being computed and of the next one."""
    window: int
    """Sinks and open chunk of all layers, for decoding."""
    page_cache: int
    workspace: int
    cached_pages: int
    """Places of the page cache per layer and KV head."""

    @property
    def total(self) -> int:
        """Bytes in all, as the driver will count them."""
        return sum(getattr(self, part.name) for part in fields(self)[:-1])


def plan_device(
    model: ModelConfig,
    config: SessionConfig,
    weights_bytes: int,
    driver_bytes: int,
    total_bytes: int,
    dtype: torch.dtype,
) -> DevicePlan:
    """Divide the memory of a GPU; the page cache takes what the rest leaves.

    The workspace is the hidden states of a whole context, as far as they do not find room in the
    page cache while a text is read, and what one slice takes: hidden states three times, queries,
    keys and values before and after RoPE, attention's output, the experts' (or the MLP's)
    intermediate and output rows, and the scores of the groups that are chosen from.

    Args:
        model: geometry.
        config: context, routing, slice size and the limit.
        weights_bytes: on the device.
        driver_bytes: in use without them.
        total_bytes: memory of the device.
        dtype: of K/V and hidden states.

    Raises:
        GpuMemoryError: the session does not fit.
    """
    router, context = config.routing, config.cache.context
    groups = -(-context // router.group_size)
    chunks = -(-context // router.chunk_size)
    per_chunk = router.chunk_size // router.group_size
    # Every group has a place, of strata as large as the largest.
    most_pages = -(-chunks // STRATA) * STRATA * per_chunk
    least_pages = min(min_cache_slots(router.decode_budget, per_chunk), most_pages)
    heads = model.num_layers * model.num_kv_heads
    row = model.head_dim * dtype.itemsize
    page = 2 * router.group_size * row
    index = 0
    if router.kind == "hga":
        index = heads * chunks * (row + router.chunk_size * (model.head_dim // 4 + 2))
    elif router.kind == "paper":
        index = heads * chunks * row * (1 + router.chunk_size // router.paper_group_size)
    pools = 2 * model.num_kv_heads * groups * page
    always = router.window_tokens // router.group_size
    window = heads * (always * page + groups * 4)
    workspace = _workspace(model, config, dtype) + _FRAGMENTS
    limit = min(total_bytes, config.cache.device_limit_bytes or total_bytes)
    left = limit - driver_bytes - weights_bytes - index - pools - window - workspace
    hidden = context * model.hidden_size * dtype.itemsize
    # A page, its owner and its stamp.
    pages = min(left // (heads * (page + 8)), most_pages)
    if (pages + always) * heads * page < hidden:
        left, workspace = left - hidden, workspace + hidden
        pages = min(left // (heads * (page + 8)), most_pages)
    if pages < least_pages:
        needed = limit - left + least_pages * heads * (page + 8)
        parts = {
            "weights": weights_bytes,
            "index": index,
            "K/V": pools + window,
            "workspace": workspace,
            "in use before": driver_bytes,
        }
        raise GpuMemoryError(parts, needed, limit, context)
    return DevicePlan(
        driver=driver_bytes,
        weights=weights_bytes,
        index=index,
        layer_pools=pools,
        window=window,
        page_cache=pages * heads * (page + 8),
        workspace=workspace,
        cached_pages=pages,
    )


def _workspace(model: ModelConfig, config: SessionConfig, dtype: torch.dtype) -> int:
    router, context = config.routing, config.cache.context
    tokens = min(config.slice_tokens, context)
    heads = 2 * (model.num_query_heads + model.num_kv_heads) * model.head_dim
    attended = model.num_query_heads * model.head_dim
    if model.num_experts:
        width = model.expert_intermediate_size + model.hidden_size
        mlp = model.experts_per_token * width
    else:
        mlp = 3 * model.intermediate_size
    elements = tokens * (3 * model.hidden_size + heads + attended + mlp)
    angles = context * model.head_dim * 4
    # Selection takes as many blocks at a time as its workspace has room for, but keeps all masses.
    masses = 4 * (
        tokens // router.prefill_block * model.num_kv_heads * context // router.prefill_group_size
    )
    selection = masses + SELECTION_BYTES
    return elements * dtype.itemsize + angles + selection + 4 * model.vocab_size
