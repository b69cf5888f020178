"""Compile every Triton kernel for both kinds of GPU, without one, and report its resources.

python -m tools.measure.compile_kernels [--json] [NAME ...]
"""

import argparse
import importlib
import json
import os
import pkgutil
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

TARGETS = (90, 120)


def builds() -> dict[str, str]:
    """Return the module of every build, by the build's name."""
    from hga_kernels import gpu

    found = {}
    for module in pkgutil.walk_packages(gpu.__path__, "hga_kernels.gpu."):
        for build in getattr(importlib.import_module(module.name), "BUILDS", ()):
            found[build.name] = module.name
    return found


def compile_one(name: str, module: str, target: int) -> dict[str, Any]:
    """Return shared memory, registers and spills of one build on one target."""
    from hga_kernels.gpu.build import SHARED_MEMORY, compile_ahead

    [build] = [b for b in importlib.import_module(module).BUILDS if b.name == name]
    compiled = compile_ahead(build, target)
    return {
        "name": name,
        "target": target,
        "shared_bytes": compiled.shared_bytes,
        "shared_limit": SHARED_MEMORY[target],
        "registers": compiled.registers,
        "local_bytes": compiled.local_bytes,
    }


def main() -> int:
    """Compile and print; fail if a kernel needs more shared memory than there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="builds to compile; default: all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    # Triton's interpreter would take the compiler's place.
    os.environ.pop("TRITON_INTERPRET", None)
    chosen = [
        (name, module, target)
        for name, module in sorted(builds().items())
        if not options.names or name in options.names
        for target in TARGETS
    ]
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(compile_one, *zip(*chosen, strict=True)))
    if options.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            print(
                f"{row['name']:<36} sm_{row['target']:<4} shared {row['shared_bytes']:>7,}"
                f"  registers {row['registers']:>3}  local {row['local_bytes']:>4}"
            )
    return int(any(row["shared_bytes"] > row["shared_limit"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
