"""Kernels compile for both kinds of GPU within their shared memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.measure.compile_kernels import builds

ROOT = Path(__file__).parents[3]


def check(names: list[str]) -> None:
    """Compile in another process: in this one, Triton's interpreter takes the compiler's place."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-m", "tools.measure.compile_kernels", "--json", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert run.stdout, run.stderr
    rows = json.loads(run.stdout)
    assert {(row["name"], row["target"]) for row in rows} == {
        (n, t) for n in names for t in (90, 120)
    }
    assert not [row for row in rows if row["shared_bytes"] > row["shared_limit"]]


def test_a_kernel_of_every_module_compiles_within_shared_memory() -> None:
    check([*{module: name for name, module in builds().items()}.values()])


@pytest.mark.exhaustive
def test_all_kernels_compile_within_shared_memory() -> None:
    check([*builds()])
