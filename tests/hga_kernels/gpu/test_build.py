"""Every kernel compiles for both kinds of GPU within their shared memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_all_kernels_compile_within_shared_memory() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-m", "tools.measure.compile_kernels", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert run.stdout, run.stderr
    rows = json.loads(run.stdout)
    assert {row["target"] for row in rows} == {90, 120}
    assert not [row for row in rows if row["shared_bytes"] > row["shared_limit"]]
