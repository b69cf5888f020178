"""What the engine runs on, for people."""

import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device_name(device: "torch.device | None" = None) -> str:
    """A GPU by its name; else the processor, and how many threads the engine computes with."""
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
    """One line for each device: what its kernels run as."""
    import hga_kernels

    return hga_kernels.status()
