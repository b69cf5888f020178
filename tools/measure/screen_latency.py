"""Measure the screen's latency while a scripted engine answers and keys are pressed.

For prose, a list, a table and code, each 2,000 tokens at 80 and at 300 tokens per second: how late
the event loop is (a task wakes every 2 ms), its longest stretch of CPU time (which other programs
do not lengthen), and the time from a key's arrival to the frame that shows it. Then the time of a
resize with 100 messages, and the memory after many turns. The machine's load, and how late an idle
process wakes, are printed beside the figures.

    python -m tools.measure.screen_latency [--turns 500]
"""

import argparse
import asyncio
import gc
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import quantiles

import torch
from textual import events
from textual.geometry import Size

from hga_chat.documents import Document, LoadedDocuments
from hga_chat.screen.app import ChatApp
from hga_engine.config import SamplingParams
from hga_engine.events import TextDelta
from hga_engine.memory.probes import resident_bytes
from tests.support.scripted import GROUP, ScriptedAnswer
from tests.support.scripted_conversation import ScriptedConversation, section

TOKENS = 2000
SIZE = (120, 40)
WORDS = "the keeper closed the dome because the wind rose above the limit that the handbook gives"
EVERY_S = 0.002
KEY_EVERY_S = 0.2
EVERY_TURNS = 50
SHORT = 300
"""Characters of the answers of many turns."""
DOCUMENT_LINES = 2700
"""Lines of 24 tokens each."""
LAYERS = 28


def prose() -> str:
    """Return paragraphs of eighty words."""
    words = WORDS.split()
    return "\n\n".join(
        " ".join(words[(n + m) % len(words)] for n in range(80)) for m in range(TOKENS // 80)
    )


def bullets() -> str:
    """Return a list of five-word items."""
    return "\n".join(f"- item {n} of the list" for n in range(TOKENS // 6))


def table() -> str:
    """Return a table of four columns."""
    rows = "\n".join(f"| row{n} | value{n} | more | end |" for n in range(TOKENS // 17))
    return f"| name | value | what | where |\n|---|---|---|---|\n{rows}"


def code() -> str:
    """Return one long fence."""
    lines = "\n".join(f"    total{n} = total + {n}" for n in range(TOKENS // 7))
    return f"```python\ndef f(total):\n{lines}\n```"


KINDS = {"prose": prose, "list": bullets, "table": table, "code": code}


def short(turn: int) -> str:
    """Return an answer that no other turn has, of each kind in turn."""
    make = list(KINDS.values())[turn % len(KINDS)]
    return re.sub(r"wind|\d+", lambda found: f"{found[0]} {turn}", make())[:SHORT]


class PacedConversation(ScriptedConversation):
    """Answer no faster than a given number of tokens per second."""

    def __init__(self, answers: list[ScriptedAnswer], tokens_per_s: float) -> None:
        super().__init__(answers)
        answer = self.engine.answer

        def paced(*arguments):  # type: ignore[no-untyped-def]
            began = time.perf_counter()
            for number, event in enumerate(answer(*arguments)):
                wait = began + number / tokens_per_s - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                yield event

        self.engine.answer = paced  # type: ignore[method-assign]


async def until(condition) -> None:  # type: ignore[no-untyped-def]
    """Wait until a condition holds."""
    while not condition():
        await asyncio.sleep(0.01)


async def watch(lates: list[float], stretches: list[float]) -> None:
    """Record how late a task wakes, and the CPU time of the thread meanwhile."""
    while True:
        began, computed = time.perf_counter(), time.thread_time()
        await asyncio.sleep(EVERY_S)
        lates.append(time.perf_counter() - began - EVERY_S)
        stretches.append(time.thread_time() - computed)


IDLE = f"""
import time
worst = 0.0
while True:
    began = time.perf_counter()
    time.sleep({EVERY_S})
    late = time.perf_counter() - began - {EVERY_S}
    if late > worst:
        worst = late
        print(worst, flush=True)
"""


@contextmanager
def watched_machine() -> Iterator[Callable[[], float]]:
    """Run a process that only sleeps; report its latest wake-up."""
    process = subprocess.Popen([sys.executable, "-c", IDLE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None

    def worst() -> float:
        process.terminate()
        return float(process.communicate()[0].split()[-1])

    try:
        yield worst
    finally:
        process.kill()
        process.wait()


async def press(app: ChatApp, echoes: list[float]) -> None:
    """Press keys now and then, and record when the screen shows them."""
    while True:
        await asyncio.sleep(KEY_EVERY_S)
        before, began = len(app.prompt.text), time.perf_counter()
        app.post_message(events.Key("x", "x"))
        while len(app.prompt.text) == before:
            await asyncio.sleep(0.0005)
        drawn = asyncio.Event()
        app.call_after_refresh(drawn.set)
        await drawn.wait()
        echoes.append(time.perf_counter() - began)
        if len(app.prompt.text) > 60:
            app.prompt.text = ""


def report(name: str, values: list[float]) -> str:
    """Return the 95th percentile and the maximum, in milliseconds."""
    p95 = quantiles(values, n=100)[94]
    return f"{name} p95 {p95 * 1e3:6.1f} ms, worst {max(values) * 1e3:6.1f} ms"


async def measure(kind: str, tokens_per_s: float) -> None:
    """Measure one answer."""
    script = PacedConversation([], tokens_per_s)
    reads = {script.group_of("The whale"): 1.0, 12: 0.4}
    script.engine._answers = [ScriptedAnswer(KINDS[kind](), reads)]
    app = ChatApp(script.make, SamplingParams(max_new_tokens=10 * TOKENS))
    async with app.run_test(size=SIZE):
        await until(lambda: app.flow.state == "ready")
        await answered(app, script, f"{kind:6} {tokens_per_s:4.0f} tok/s")
    app.engine.join(10)


async def answered(app: ChatApp, script: PacedConversation, name: str) -> None:
    """Watch one answer as it is written."""
    with watched_machine() as others:
        app.flow.send("How?")
        await asyncio.sleep(0.3)
        gc.collect()
        lates: list[float] = []
        stretches: list[float] = []
        echoes: list[float] = []
        tasks = [
            asyncio.create_task(watch(lates, stretches)),
            asyncio.create_task(press(app, echoes)),
        ]
        began = time.perf_counter()
        await until(lambda: app.flow.state == "ready")
        await asyncio.sleep(0.5)  # what is done once an answer is complete counts as well
        took = time.perf_counter() - began
        for task in tasks:
            task.cancel()
        print(
            f"{name}  {report('stall', lates)}, {max(stretches) * 1e3:5.1f} computed  "
            f"{report('echo', echoes)}  ({took:.1f} s, session {script.engine.num_tokens:,}, "
            f"load {os.getloadavg()[0]:.1f}, idle process {others() * 1e3:.1f} ms late)",
            flush=True,
        )


async def resize() -> None:
    """Measure resizes with a hundred messages."""
    texts = [KINDS[kind]()[:1200] for kind in KINDS for _ in range(13)][:50]
    script = ScriptedConversation([ScriptedAnswer(text, {12: 1.0}) for text in texts])
    app = ChatApp(script.make, SamplingParams(max_new_tokens=10 * TOKENS))
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: app.flow.state == "ready")
        for number in range(50):
            app.flow.send(f"Question {number}?")
            await until(lambda: app.flow.state == "ready")
        times, computed = [], []
        for width, height in [(80, 24), (200, 60), (100, 40), (120, 40), (90, 30)] * 2:
            began, before = time.perf_counter(), time.thread_time()
            app._driver._size = size = Size(width, height)  # type: ignore[union-attr]
            app.post_message(events.Resize(size, size))
            # ``resize_terminal`` would wait until the process has been idle for a while.
            await until(lambda size=size: app.screen.size == size)
            await pilot.pause(0)
            drawn = asyncio.Event()
            app.call_after_refresh(drawn.set)
            await drawn.wait()
            times.append(time.perf_counter() - began)
            computed.append(time.thread_time() - before)
            await pilot.pause(0.3)
        print(
            f"resize with 100 messages: worst {max(times) * 1e3:.0f} ms, "
            f"{max(computed) * 1e3:.0f} computed",
            flush=True,
        )
    app.engine.join(10)


class ReadingConversation(ScriptedConversation):
    """Full documents at 64K, of which every token reads a fifth; a few groups stand out."""

    def __init__(self, turns: int) -> None:
        lines = "".join(f"line {n} of the log says {WORDS}\n" for n in range(DOCUMENT_LINES))
        loaded = LoadedDocuments((Document("log.txt", "text", (section("log.txt", lines),)),), ())
        answers = [ScriptedAnswer(short(turn)) for turn in range(turns)]
        super().__init__(answers, loaded=loaded, context=2**20)
        assert self.layout is not None
        self._groups = len(self.layout.token_ids) // GROUP
        self._answer = self.engine.answer
        self.engine.answer = self._traced  # type: ignore[method-assign]
        self.engine.layer_mass = self._layer_mass  # type: ignore[method-assign]

    def _layer_mass(self) -> torch.Tensor:
        return torch.rand(LAYERS, self._groups)

    def _traced(self, *arguments):  # type: ignore[no-untyped-def]
        for event in self._answer(*arguments):
            if isinstance(event, TextDelta):
                mass = torch.rand(self._groups).mul(5).sub(4).clamp_min(0) / self._groups
                mass[torch.randint(self._groups, (3,))] += 0.1
                always = torch.zeros(self._groups)
                always[[0, *range(self._groups - 4, self._groups)]] = 0.1
                trace = replace(event.trace, bin_mass=mass, window_mass=always)
                event = replace(event, trace=trace)
            yield event


async def memory(turns: int) -> None:
    """Measure the memory after many turns with short answers."""
    script = ReadingConversation(turns)
    app = ChatApp(script.make, SamplingParams(max_new_tokens=10 * TOKENS))
    async with app.run_test(size=SIZE):
        await until(lambda: app.flow.state == "ready")
        for number in range(turns):
            app.flow.send(f"Question {number}?")
            await until(lambda: app.flow.state == "ready")
            if (number + 1) % EVERY_TURNS == 0:
                mib = resident_bytes() / 2**20
                print(f"after {number + 1:3} turns: {mib:4.0f} MiB resident", flush=True)
    app.engine.join(10)


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=500, help="turns of the memory measurement")
    parser.add_argument("--kind", choices=KINDS, help="only this kind of answer")
    parser.add_argument("--memory", action="store_true", help="only the memory after many turns")
    options = parser.parse_args()
    if options.memory:
        asyncio.run(memory(options.turns))
        return
    for kind in [options.kind] if options.kind else KINDS:
        for tokens_per_s in (80, 300):
            asyncio.run(measure(kind, tokens_per_s))
    if options.kind is None:
        asyncio.run(resize())
        asyncio.run(memory(options.turns))


if __name__ == "__main__":
    main()
