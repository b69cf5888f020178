"""Measure memory and disk space of this process, this machine and its GPU."""

import os
import resource
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hga_engine.config import PAGES, CacheConfig

if TYPE_CHECKING:
    import torch

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def resident_bytes() -> int:
    """Return the resident memory of this process, or its peak if the system reports only that."""
    try:
        pages = int((_PROC / "self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return peak_resident_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_resident_bytes() -> int:
    """Return the peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def total_memory_bytes() -> int:
    """Return the memory of this machine, or the limit of this process's control group (v2)."""
    limits = [limit for limit, _ in _cgroup_limits()]
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *limits])


def available_memory_bytes() -> int:
    """Return the memory available without swapping, or all memory if that is unknown."""
    available = total_memory_bytes()
    try:
        for line in (_PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    left = [max(limit - used, 0) for limit, used in _cgroup_limits()]
    return min([available, *left])


def free_disk_bytes(directory: Path | None) -> int:
    """Return the free space at a folder, existing or not; None for the temporary folder."""
    folder = Path(tempfile.gettempdir()) if directory is None else directory.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def available_disk_bytes(cache: CacheConfig) -> int:
    """Return the disk space for a session's K/V: free space plus what its file already takes."""
    if cache.saved_dir is None:
        return free_disk_bytes(None)
    try:
        taken = (cache.saved_dir / PAGES).stat().st_blocks * 512
    except OSError:
        taken = 0
    return free_disk_bytes(cache.saved_dir) + taken


def _cgroup_limits() -> list[tuple[int, int]]:
    """Return (limit, used) in bytes of this process's control group (v2) and its ancestors."""
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        return []
    group = _CGROUPS / own.lstrip("/")
    limits = []
    for folder in (group, *group.parents):
        if not folder.is_relative_to(_CGROUPS):
            break
        try:
            limit = int((folder / "memory.max").read_text())  # "max": no limit
            used = int((folder / "memory.current").read_text())
            limits.append((limit, used - _reclaimable(folder)))
        except (OSError, ValueError):
            continue
    return limits


def _reclaimable(folder: Path) -> int:
    """Return the bytes of a control group's file cache that the kernel frees on demand."""
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, count = line.partition(" ")
        if name == "inactive_file":
            return int(count)
    return 0


@dataclass(frozen=True)
class DeviceMemory:
    """Current bytes of GPU memory; zeros without a GPU."""

    used_bytes: int = 0
    """In use by all programs, as the driver counts."""
    total_bytes: int = 0
    reserved_bytes: int = 0
    """Held by torch's allocator."""
    allocated_bytes: int = 0
    """Handed out by torch's allocator."""
    peak_bytes: int = 0
    """Peak use by all programs, as the driver would have counted it."""


def is_gpu(device: "torch.device") -> bool:
    """Whether a device is a GPU."""
    return device.type == "cuda"


def device_memory(device: "torch.device") -> DeviceMemory:
    """Measure the memory of a device."""
    if not is_gpu(device):
        return DeviceMemory()
    import torch

    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    others = total - free - reserved
    return DeviceMemory(
        used_bytes=total - free,
        total_bytes=total,
        reserved_bytes=reserved,
        allocated_bytes=torch.cuda.memory_allocated(device),
        peak_bytes=others + torch.cuda.max_memory_reserved(device),
    )
