"""Compilation of the C kernels for this machine's CPU, by the compiler of the ``ziglang`` wheel."""

import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

_SOURCES = Path(__file__).with_name("c")
_FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno", "-pthread")


class BuildError(Exception):
    """The kernels cannot be compiled; the message says why."""


def _cache_directory() -> Path:
    override = os.environ.get("HGA_KERNELS_CACHE")
    if override:
        return Path(override)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hga-chat" / "kernels"


def _cpu_features() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    except OSError:
        pass
    return platform.processor()


def will_compile() -> bool:
    """Return whether the library for this machine has still to be compiled, and can be."""
    return not _target("native").exists() and importlib.util.find_spec("ziglang") is not None


def _target(cpu: str) -> Path:
    """Return where the library for a CPU is kept; its name changes with whatever it depends on."""
    digest = hashlib.sha256("\0".join((*_FLAGS, cpu, platform.machine(), _cpu_features())).encode())
    for source in sorted(_SOURCES.glob("*.[ch]")):
        digest.update(source.read_bytes())
    return _cache_directory() / f"hga-kernels-{digest.hexdigest()[:16]}.so"


def library_path(cpu: str = "native") -> Path:
    """Return the compiled library, compiling it if it is not in the cache.

    Args:
        cpu: CPU name for the compiler's ``-mcpu``; tests also compile for other CPUs.

    Returns:
        Path of the shared library.

    Raises:
        BuildError: there is no compiler, it failed, or the cache cannot be written.
    """
    target = _target(cpu)
    if target.exists():
        return target
    if importlib.util.find_spec("ziglang") is None:
        raise BuildError("the ziglang package is not installed")
    compiler = (sys.executable, "-m", "ziglang", "cc")
    sources = sorted(_SOURCES.glob("*.c"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            built = Path(folder) / target.name
            run = subprocess.run(
                [*compiler, *_FLAGS, f"-mcpu={cpu}", "-o", str(built), *map(str, sources)],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            if run.returncode:
                lines = run.stderr.strip().splitlines() or ["the compiler gave no reason"]
                raise BuildError(f"the compiler failed: {lines[0]}")
            os.replace(built, target)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"the kernels could not be compiled: {error}") from error
    return target
