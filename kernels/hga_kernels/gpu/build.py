"""How a kernel is built for a GPU: sizes by compute capability, and compiling without one."""

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

SHARED_MEMORY = {90: 232_448, 120: 101_376}
"""Bytes of shared memory a block may use, by compute capability (H100, RTX 5090)."""
_ALIGNED = [["tt.divisibility", 16]]
GROUP_SIZES = (2, 8, 16)
"""Tokens of a group, and of a page, that kernels take."""
OVERLAP = {90: True, 120: True}
"""Whether a kernel that reads weights begins before the one ahead has ended, by capability."""


@dataclass(frozen=True)
class Launch:
    """Compile-time sizes of a kernel, its warps and its pipeline stages."""

    sizes: Mapping[str, int]
    warps: int = 4
    stages: int = 3
    registers: int = 0
    """Most that a thread may have, so that more programs fit; 0: as many as it takes."""

    def compiler_options(self) -> dict[str, int]:
        """What the compiler is told besides the sizes."""
        options = {"num_warps": self.warps, "num_stages": self.stages}
        return {**options, "maxnreg": self.registers} if self.registers else options

    def options(self) -> dict[str, Any]:
        """Keyword arguments of a kernel call."""
        return {**self.sizes, **self.compiler_options()}


Launches = Mapping[int, Launch]
"""By compute capability."""


@dataclass(frozen=True)
class Build:
    """One form of a kernel that the engine uses, so that it can be compiled without a GPU."""

    name: str
    kernel: Any
    """The function under ``triton.jit``."""
    types: Mapping[str, str]
    """Triton types of the run-time arguments: "*bf16", "*fp8e4nv", "i32", …"""
    launches: Launches
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Compile-time arguments besides the sizes: the model's geometry."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a kernel."""

    shared_bytes: int
    registers: int
    local_bytes: int
    """Of local memory a thread: registers that were spilled."""


@functools.cache
def capability(device: torch.device | None = None) -> int:
    """Compute capability of a GPU as one number: 90 for an H100, 120 for an RTX 5090."""
    if not torch.cuda.is_available():
        # Triton's interpreter: any will do.
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor


def pick(launches: Launches, capability: int) -> Launch:
    """The launch for a GPU: its own, else that of the nearest one below, else the lowest.

    Args:
        launches: what there is to choose from.
        capability: compute capability of the GPU.
    """
    below = [known for known in launches if known <= capability]
    return launches[max(below) if below else min(launches)]


def launches_for(by_most: dict[int, dict[int, Launch]], size: int) -> dict[int, Launch]:
    """Those for a size, of launches by the most that each are for; the last ones for more."""
    return by_most[min((most for most in by_most if size <= most), default=max(by_most))]


def status() -> str:
    """One line for people: which launches this machine's GPU gets."""
    known = capability()
    chosen = max([made for made in SHARED_MEMORY if made <= known] or [min(SHARED_MEMORY)])
    return f"Triton {triton.__version__}, launches of sm_{chosen} on sm_{known}"


def overlap(device: torch.device) -> dict[str, Any]:
    """Keyword arguments of a kernel that has the constant OVERLAPS.

    Such a kernel is launched before the one ahead of it in the stream has ended ("programmatic
    dependent launch"). It may read what no kernel writes; then it waits.
    """
    if not torch.cuda.is_available():
        return {"OVERLAPS": False}
    known = [known for known in OVERLAP if known <= capability(device)]
    overlaps = bool(known) and OVERLAP[max(known)]
    return {"OVERLAPS": overlaps, "launch_pdl": overlaps}


def compile_ahead(build: Build, target: int) -> Compiled:
    """Compile a kernel for a GPU that need not be here.

    Args:
        build: the kernel's form.
        target: compute capability.

    Raises:
        RuntimeError: it does not compile.
    """
    launch = pick(build.launches, target)
    constants = {**build.constants, **launch.sizes}
    types = {
        name: "constexpr" if name in constants else build.types[name]
        for name in build.kernel.arg_names
    }
    places = [i for i, name in enumerate(build.kernel.arg_names) if types[name].startswith("*")]
    source = ASTSource(build.kernel, types, constants, {(i,): _ALIGNED for i in places})
    compiled = compile_kernel(
        source,
        target=GPUTarget("cuda", target, 32),
        options=launch.compiler_options(),
    )
    registers, local = _resources(compiled.asm["cubin"])
    return Compiled(compiled.metadata.shared, registers, local)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of local memory a thread, by the disassembler that comes with Triton."""
    tool = Path(get_ptxas(90).path).parent / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", shown)
    return (int(found[1]), int(found[2])) if found else (0, 0)
