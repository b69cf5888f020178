"""What the engine runs on, for people."""

import platform
from pathlib import Path


def device_name() -> str:
    """The processor, and how many threads the engine computes with."""
    import torch

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
