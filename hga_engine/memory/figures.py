"""Where a session's memory is, put together from its parts."""

from hga_engine.events import MemoryFigures
from hga_engine.kv_store import TierUsage
from hga_engine.memory import ledger
from hga_engine.memory.device_plan import DeviceMemory


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
        host_peak_bytes=ledger.peak_resident_bytes(),
        host_resident_bytes=ledger.resident_bytes(),
        host_total_bytes=ledger.total_memory_bytes(),
        kv_host_capacity_bytes=usage.host_capacity_bytes,
        kv_disk_capacity_bytes=usage.disk_capacity_bytes,
        page_hits=usage.page_hits,
        page_misses=usage.page_misses,
        page_bytes=usage.page_bytes,
    )
