"""Current memory figures of a session, from its stores and from probes."""

from dataclasses import dataclass

from hga_engine.kv_store.store import TierUsage
from hga_engine.memory import probes
from hga_engine.memory.probes import DeviceMemory


@dataclass(frozen=True)
class MemoryFigures:
    """Bytes in use, by purpose and tier."""

    weights_bytes: int
    index_bytes: int
    kv_device_bytes: int
    kv_host_bytes: int
    kv_disk_bytes: int
    device_peak_bytes: int
    host_peak_bytes: int
    host_resident_bytes: int
    host_total_bytes: int
    kv_host_capacity_bytes: int
    kv_disk_capacity_bytes: int
    device_used_bytes: int = 0
    """GPU memory in use by all programs, as the driver counts it."""
    device_total_bytes: int = 0
    device_reserved_bytes: int = 0
    """GPU memory that torch's allocator holds."""
    device_allocated_bytes: int = 0
    """GPU memory that torch's allocator has handed out."""
    device_planned_bytes: int = 0
    """GPU memory predicted before anything was allocated."""
    page_hits: int = 0
    """Fetched pages that were resident: in GPU memory or, without a GPU, in host memory."""
    page_misses: int = 0
    """Fetched pages that came from the tier below: over PCIe or, without a GPU, from disk."""
    page_bytes: int = 0
    """Bytes of one page."""


def memory_figures(
    weights_bytes: int,
    index_bytes: int,
    planned_bytes: int,
    usage: TierUsage,
    device: DeviceMemory,
) -> MemoryFigures:
    """Collect the current figures of a session and of this process.

    Args:
        weights_bytes: bytes of the model's weights.
        index_bytes: bytes of the routing index.
        planned_bytes: GPU memory predicted for the session; 0 without a GPU.
        usage: bytes per tier of the K/V store.
        device: memory of the GPU; zeros without one.
    """
    return MemoryFigures(
        weights_bytes=weights_bytes,
        index_bytes=index_bytes,
        kv_device_bytes=usage.device_bytes,
        kv_host_bytes=usage.host_bytes,
        kv_disk_bytes=usage.disk_bytes,
        device_peak_bytes=device.peak_bytes,
        device_used_bytes=device.used_bytes,
        device_reserved_bytes=device.reserved_bytes,
        device_allocated_bytes=device.allocated_bytes,
        device_total_bytes=device.total_bytes,
        device_planned_bytes=planned_bytes,
        host_peak_bytes=probes.peak_resident_bytes(),
        host_resident_bytes=probes.resident_bytes(),
        host_total_bytes=probes.total_memory_bytes(),
        kv_host_capacity_bytes=usage.host_capacity_bytes,
        kv_disk_capacity_bytes=usage.disk_capacity_bytes,
        page_hits=usage.page_hits,
        page_misses=usage.page_misses,
        page_bytes=usage.page_bytes,
    )
