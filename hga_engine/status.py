"""Descriptions for people of what the engine runs on."""

import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device_name(device: "torch.device | None" = None) -> str:
    """Return the name of a GPU, or the CPU's name and the engine's number of threads."""
    import torch

    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {torch.get_num_threads()} threads"


def kernel_status() -> dict[str, str]:
    """Describe each device's kernels in one line."""
    import hga_kernels

    return hga_kernels.status()
