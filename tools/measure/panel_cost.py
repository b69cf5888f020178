"""Measure what the panels cost: the embedded model answers with panels shown and folded, in turn.

Each answer is taken back before the next, so that all do the same work. Prints the speeds of each
pair, the median slowdown with panels and its quartiles, and the CPU time of the screen's thread in
both cases, per token and as a share of decoding time; other programs disturb it less than speeds.

    python -m tools.measure.panel_cost [--pairs 8]
"""

import argparse
import asyncio
import os
import time
from pathlib import Path
from statistics import median, quantiles

from hga_chat.cli.prepare import prepare, start_on_documents
from hga_chat.output import Output
from hga_chat.screen.app import ChatApp
from hga_chat.settings import load_settings
from hga_engine.config import SamplingParams

HANDBOOK = os.path.relpath(Path(__file__).parents[2] / "assets" / "samples" / "handbook")
QUESTION = "What happened during the storm, and what was learned from it?"
PANELS = ("documents", "map", "memory")
TOKENS = 200


async def until_free(app: ChatApp) -> None:
    """Wait until a question can be asked."""
    while not app.flow.is_free:
        if app.flow.state == "failed" or not app.is_running:
            raise SystemExit(app.transcript.card)
        await asyncio.sleep(0.05)


async def answer(app: ChatApp, *, with_panels: bool) -> tuple[float, float]:
    """Return tokens per second, and CPU seconds of the screen's thread per token."""
    for name in PANELS:
        app.panels.side.set_class(not with_panels, f"-no-{name}")
    await asyncio.sleep(0.5)
    computed = time.thread_time()
    app.flow.send(QUESTION)
    await until_free(app)
    computed = time.thread_time() - computed
    speed = app.panels.speed.tokens_per_s
    app.flow.take_back()
    await asyncio.sleep(0.5)
    return speed, computed / TOKENS


async def measure(pairs: int) -> None:
    """Measure pairs of answers in one session."""
    settings, output = load_settings({"no_save": True}), Output(quiet=True)
    prepared = prepare([HANDBOOK], settings, output)
    start = start_on_documents(prepared, [HANDBOOK], output)
    app = ChatApp(start.open, SamplingParams(max_new_tokens=TOKENS, ignore_end=True), "night")
    async with app.run_test(size=(120, 40)):
        await until_free(app)
        await answer(app, with_panels=True)
        found = []
        for number in range(pairs):
            # The order alternates, so that drift favours neither.
            order = (True, False) if number % 2 == 0 else (False, True)
            both = {shown: await answer(app, with_panels=shown) for shown in order}
            (shown, _), (folded, _) = both[True], both[False]
            load = os.getloadavg()[0]
            print(f"shown {shown:5.1f}, folded {folded:5.1f} tok/s, load {load:.1f}", flush=True)
            found.append(both)
    low, slower, high = quantiles((1 - both[True][0] / both[False][0] for both in found), n=4)
    print(f"median pair: {slower:+.2%} slower with panels, quartiles {low:+.2%} and {high:+.2%}")
    for name, shown in (("with", True), ("without", False)):
        token = median(both[shown][1] for both in found)
        share = median(both[shown][0] * both[shown][1] for both in found)
        print(
            f"{name} panels the screen's thread computes {token * 1e3:.2f} ms a token, {share:.1%}"
        )
    app.engine.join(60)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8, help="at least two")
    asyncio.run(measure(parser.parse_args().pairs))


if __name__ == "__main__":
    main()
