"""Where a session's memory is, put together from its parts."""

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
    """Of the GPU, as its driver counts it, by all programs."""
    device_total_bytes: int = 0
    device_reserved_bytes: int = 0
    """Of the GPU, by torch's allocator."""
    device_allocated_bytes: int = 0
    """Of those, in use."""
    device_planned_bytes: int = 0
    """What was predicted before anything was allocated."""
    page_hits: int = 0
    """Pages that were at hand when they were wanted: in the GPU's memory, else in the host's."""
    page_misses: int = 0
    """Pages that had to come from the tier below: over PCIe, else from disk."""
    page_bytes: int = 0
    """Of one page."""


def memory_figures(
    weights_bytes: int,
    index_bytes: int,
    planned_bytes: int,
    usage: TierUsage,
    device: DeviceMemory,
) -> MemoryFigures:
    """Figures of the session and of this process, now.

    Args:
        weights_bytes: of the model.
        index_bytes: of what the router scores against.
        planned_bytes: predicted for the GPU; 0 where there is none.
        usage: of the K/V store.
        device: of the GPU, zeros where there is none.
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
