"""Where a session lives: the tiers of its K/V, and its index."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hga_engine.attention.index import RoutingIndex
from hga_engine.config import ModelConfig, SessionConfig
from hga_engine.kv_store.store import KVStore
from hga_engine.kv_store.tiered import TieredKVStore
from hga_engine.memory.device_plan import DevicePlan, DeviceUse, plan_device
from hga_engine.memory.probes import device_memory, is_gpu
from hga_engine.model.types import ModelWeights

if TYPE_CHECKING:
    from hga_engine.kv_store.device import DeviceKVStore


@dataclass(frozen=True)
class Tiers:
    """What holds the tokens of one session."""

    host: TieredKVStore
    """Host memory and disk: the truth."""
    device: "DeviceKVStore | None"
    """In front of ``host`` where there is a GPU."""
    index: RoutingIndex
    planned_bytes: int
    """GPU memory planned for the session and the weights, as the driver counts it."""

    @property
    def store(self) -> KVStore:
        """What K/V is read and written through."""
        return self.host if self.device is None else self.device

    def close(self) -> None:
        """Give memory and files back."""
        self.store.close()
        self.index.close()
        if self.device is not None:
            # The next plan counts what the driver says is free.
            torch.cuda.empty_cache()


def make_tiers(
    weights: ModelWeights, model: ModelConfig, config: SessionConfig, dtype: torch.dtype
) -> Tiers:
    """Return empty tiers on the device of the weights.

    Args:
        weights: of the model.
        model: geometry with the RoPE scaling of the session.
        config: routing, context and budgets.
        dtype: of K/V.

    Raises:
        OutOfMemoryError: the GPU has too little memory.
        KVStoreError: the disk tier cannot be set up.
        MemoryError: host memory cannot be pinned.
    """
    routing, device = config.routing, weights.final_norm.device
    plan = plan_session(weights, config, dtype) if is_gpu(device) else None
    host = TieredKVStore(model, routing, config.cache, dtype, is_pinned=plan is not None)
    index = RoutingIndex(model, routing, config.cache.context, dtype, device)
    if plan is None:
        return Tiers(host, None, index, 0)
    # Needs triton, so it is imported only where there is a GPU.
    from hga_engine.kv_store.device import DeviceKVStore

    on_device = DeviceKVStore(model, routing, host, dtype, device, plan.cached_pages)
    return Tiers(host, on_device, index, plan.total)


def plan_session(weights: ModelWeights, config: SessionConfig, dtype: torch.dtype) -> DevicePlan:
    """Plan the GPU memory of a session beside the weights.

    Args:
        weights: of the model, on the GPU.
        config: routing, context and budgets.
        dtype: of K/V.

    Raises:
        OutOfMemoryError: it has too little.
    """
    torch.cuda.empty_cache()
    device = weights.final_norm.device
    now, held = device_memory(device), weights.device_bytes()
    use = DeviceUse(now.total_bytes, weights=held, other=now.used_bytes - held)
    return plan_device(weights.config, config, use, dtype, weights.dtype)
