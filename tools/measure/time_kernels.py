"""Time every kernel on this machine's GPU against the least time its bytes and operations take.

Prints one line per case: microseconds, the share of the floor, and the error against the reference
where a case has a check. With ``--candidates``, the launches that modules offer are timed as well.

    python -m tools.measure.time_kernels [--candidates] [--group TOKENS] [PART ...]
"""

import argparse
import importlib
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

PARTS = Path(__file__).with_name("gpu_times")
BYTES_PER_S = 3.0e12
FLOPS_PER_S = 8.0e14
"""Copy bandwidth and bf16 throughput, as measured on an H100."""
REPLAYS = 10
GROUPED = ("attend", "select")
"""Parts whose kernels depend on the group size."""


def microseconds(run: Callable[[], object], launches: int) -> float:
    """Return the median time of one call, in a CUDA graph where it can be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for _ in range(launches):
                run()
        replay = graph.replay
    except RuntimeError:
        torch.cuda.synchronize()
        launches = 1

        def replay() -> None:
            run()

    times: list[float] = []
    for _ in range(REPLAYS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / launches)
    return median(times[2:])


def main() -> int:
    """Time and print; fail if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--candidates", action="store_true")
    parser.add_argument("--group", type=int, default=4, choices=(2, 4, 8, 16), metavar="TOKENS")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    parts = options.parts or sorted(
        path.stem for path in PARTS.glob("*.py") if path.stem != "__init__"
    )
    rows, failed = [], False
    for part in parts:
        module = importlib.import_module(f"tools.measure.gpu_times.{part}")
        cases = module.candidates if options.candidates else module.cases
        setting = (options.group,) if part in GROUPED else ()
        try:
            listed = list(cases(torch.device("cuda"), *setting))
        except Exception:  # noqa: BLE001 - the other parts still run
            traceback.print_exc()
            failed = True
            continue
        for case in listed:
            row: dict[str, object] = {"part": part, "name": case.name}
            try:
                if case.check is not None:
                    row["error"] = case.check()
                took = microseconds(case.run, 8)
                floor = max(case.bytes / BYTES_PER_S, case.flops / FLOPS_PER_S) * 1e6
                row |= {"us": took, "floor_us": floor}
                error = f"  error {row['error']:.1e}" if "error" in row else ""
                share = f"{floor / took:4.0%} of floor" if floor else ""
                print(f"{part:<8} {case.name:<44} {took:9.1f} us  {share}{error}", flush=True)
            except Exception as problem:  # noqa: BLE001 - the other cases still run
                failed = True
                row["problem"] = repr(problem)[:300]
                print(f"{part:<8} {case.name:<44} FAILED {row['problem']}", flush=True)
            rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
