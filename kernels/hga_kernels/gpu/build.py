"""How kernels are built: launch sizes by compute capability, and compiling without a GPU."""

import functools
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.compiler import compile as compile_kernel

from hga_kernels.gpu.launch import Kernel

SHARED_MEMORY = {90: 232_448, 120: 101_376}
"""Bytes of shared memory that a block may use, by compute capability (H100, RTX 5090)."""
_ALIGNED = [["tt.divisibility", 16]]
GROUP_SIZES = (2, 4, 8, 16)
"""Sizes of a group, and of a page, that the kernels take, in tokens."""
OVERLAP = {90: True, 120: True}
"""Whether kernels start before the previous one has ended, by compute capability."""


@dataclass(frozen=True)
class Launch:
    """Compile-time sizes of a kernel, its warps and its pipeline stages."""

    sizes: Mapping[str, int]
    warps: int = 4
    stages: int = 3
    registers: int = 0
    """Registers that a thread may use, so that more programs fit; 0: no limit."""

    def compiler_options(self) -> dict[str, int]:
        """Return the compiler's options besides the sizes."""
        options = {"num_warps": self.warps, "num_stages": self.stages}
        return {**options, "maxnreg": self.registers} if self.registers else options

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of a kernel call."""
        return {**self.sizes, **self.compiler_options()}


Launches = Mapping[int, Launch]
"""By compute capability."""


@dataclass(frozen=True)
class Build:
    """One form in which the engine uses a kernel, for compiling it without a GPU."""

    name: str
    kernel: Kernel
    """A ``Kernel``."""
    types: Mapping[str, str]
    """Triton types of the run-time arguments: "*bf16", "*fp8e4nv", "i32", …"""
    launches: Launches
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Compile-time arguments besides the sizes: the model's geometry."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler reports about a kernel."""

    shared_bytes: int
    registers: int
    local_bytes: int
    """Local memory of a thread: spilled registers."""


@functools.cache
def capability(device: torch.device | None = None) -> int:
    """Return the compute capability of a GPU as one number: 90 for an H100, 120 for an RTX 5090."""
    if not torch.cuda.is_available():
        # For Triton's interpreter, any will do.
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor


def pick(launches: Launches, capability: int) -> Launch:
    """Return the launch for a GPU: its own, else that of the nearest below, else the lowest.

    Args:
        launches: to choose from.
        capability: compute capability of the GPU.
    """
    below = [known for known in launches if known <= capability]
    return launches[max(below) if below else min(launches)]


def launches_for(by_limit: dict[int, dict[int, Launch]], size: int) -> dict[int, Launch]:
    """Return the launches of the smallest limit >= size, or those of the largest limit."""
    return by_limit[min((limit for limit in by_limit if size <= limit), default=max(by_limit))]


def status() -> str:
    """Say in words which launches this machine's GPU gets."""
    known = capability()
    chosen = max([made for made in SHARED_MEMORY if made <= known] or [min(SHARED_MEMORY)])
    return f"Triton {triton.__version__}, launches of sm_{chosen} on sm_{known}"


def overlap(device: torch.device) -> dict[str, Any]:
    """Return the keyword arguments of a kernel that has the constant OVERLAPS.

    Such a kernel starts before the previous one in the stream has ended ("programmatic dependent
    launch"). Until it has waited for that, it may only read what no kernel writes.
    """
    if not torch.cuda.is_available():
        return {"OVERLAPS": False}
    known = [known for known in OVERLAP if known <= capability(device)]
    overlaps = bool(known) and OVERLAP[max(known)]
    return {"OVERLAPS": overlaps, "launch_pdl": overlaps}


def compile_ahead(build: Build, target: int) -> Compiled:
    """Compile a kernel for a GPU that this machine need not have.

    Args:
        build: the form of the kernel.
        target: compute capability.

    Raises:
        RuntimeError: the kernel does not compile.
    """
    launch = pick(build.launches, target)
    constants = {**build.constants, **launch.sizes}
    types = {
        name: "constexpr" if name in constants else build.types[name]
        for name in build.kernel.arg_names
    }
    pointers = [i for i, name in enumerate(build.kernel.arg_names) if types[name].startswith("*")]
    source = ASTSource(build.kernel.function, types, constants, {(i,): _ALIGNED for i in pointers})
    compiled = compile_kernel(
        source,
        target=GPUTarget("cuda", target, 32),
        options=launch.compiler_options(),
    )
    registers, local = _resources(compiled.asm["cubin"])
    return Compiled(compiled.metadata.shared, registers, local)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Return registers and local bytes of a thread, by the disassembler that Triton ships."""
    tool = Path(get_ptxas(90).path).parent / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", shown)
    return (int(found[1]), int(found[2])) if found else (0, 0)
