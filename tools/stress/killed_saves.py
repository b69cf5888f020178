"""Kill the engine at random moments while it saves, and check the saved state it leaves behind.

Works on the engine alone; ``killed_sessions`` does the same with commands of the program. A process
extends, truncates and saves the session of a tiny model. After each kill the session is resumed. It
must be the one saved last, the one being saved, or a prefix of either that ends with a full group;
and it must answer as a new session with the same tokens does.

    python -m tools.stress.killed_saves [--kills 50] [--seed 0]
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from hga_engine.engine import Engine
from tests.support.tiny_engine import PARTIAL, ask, make_engine, random_tokens

CONTEXT = 1024
LOG_KEPT = 2
# Dense attention, so that K/V depends on the tokens alone and not on how prefill was sliced.
ROUTER = replace(PARTIAL, kind="dense")


def session(folder: Path | None, budget: int | None) -> Engine:
    """Return the session, resumed if it was saved before."""
    return make_engine(
        router=ROUTER, context=CONTEXT, saved_dir=folder, host_budget_bytes=budget, slice_tokens=128
    )


def work(folder: Path, log: Path, budget: int | None, seed: int) -> None:
    """Change and save the session until killed; log the tokens before each save."""
    torch.set_num_threads(1)
    draw = random.Random(seed)
    engine = session(folder, budget)
    while True:
        if engine.num_tokens > CONTEXT - 150 or draw.random() < 0.3:
            engine.truncate(draw.randrange(engine.num_tokens + 1))
        for _ in engine.prefill(random_tokens(draw.randrange(1, 120), seed=draw.randrange(2**31))):
            pass
        with log.open("a") as file:
            file.write(json.dumps(engine.token_ids) + "\n")
        engine.save()


def is_a_beginning(found: list[int], of: list[int]) -> bool:
    """Return whether ``found`` is a whole session, or a prefix that ends with a full group."""
    whole_groups = len(found) % ROUTER.group_size == 0
    return found == of or (whole_groups and found == of[: len(found)])


def says(engine: Engine) -> list[int]:
    """Return the next answer of a session."""
    return ask(engine, random_tokens(5), 4).tokens


def kill_once(folder: Path, budget: int | None, seed: int, draw: random.Random) -> str:
    """Run the process, kill it, check the session, and return what was found, in words."""
    log = folder.with_suffix(f".{seed}.log")
    before = session(folder, budget).token_ids
    log.write_text(json.dumps(before) + "\n")
    arguments = [str(folder), str(log), str(budget or 0), str(seed)]
    child = subprocess.Popen([sys.executable, __file__, "--work", *arguments])
    while len(log.read_text().splitlines()) < LOG_KEPT:
        if child.poll() is not None:
            raise SystemExit(f"the process exited by itself with code {child.returncode}")
        time.sleep(0.01)
    time.sleep(draw.uniform(0, 1.0))
    child.send_signal(signal.SIGKILL)
    child.wait()
    # The last line may be incomplete: its session was not being saved yet.
    lines = log.read_text().splitlines(keepends=True)
    states = [json.loads(line) for line in lines if line.endswith("\n")]
    resumed = session(folder, budget)
    found = resumed.token_ids
    if not any(is_a_beginning(found, of) for of in states[-LOG_KEPT:]):
        raise SystemExit(f"seed {seed}: {len(found)} tokens, which were never saved")
    anew = session(None, None)
    for _ in anew.prefill(found):
        pass
    if says(resumed) != says(anew):
        raise SystemExit(f"seed {seed}: the session of {len(found)} tokens answers differently")
    resumed.close()
    whole = "the last save" if found == states[-1] else "an earlier save or a prefix"
    return f"{len(states) - 1} saves, {len(found)} tokens, {whole}"


def main() -> None:
    """Kill as often as asked; stop at the first damaged session."""
    if sys.argv[1:2] == ["--work"]:
        saved, log, limit, seed = sys.argv[2:]
        work(Path(saved), Path(log), int(limit) or None, int(seed))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        for number in range(options.kills):
            budget = (None, 3 * 20 * 1024)[number % 2]
            folder = Path(place) / ("spilling" if budget else "in_memory")
            print(f"{number + 1}: {kill_once(folder, budget, number, draw)}", flush=True)


if __name__ == "__main__":
    main()
