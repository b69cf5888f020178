"""Kill hga-chat at random moments of prefill, answering and saving, and check what is left.

Works on commands of the program; ``killed_saves`` does the same with the engine alone. Each round
starts a command in a process of its own, sometimes on changed documents, and kills it (``kill -9``)
after a random time or just before a random write. Afterwards no session may be damaged, every turn
ever completed must be there, and each session must continue as a fresh one would: their logits are
compared.

    python -m tools.stress.killed_sessions [--kills 50] [--seed 0]
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

WRITES = ("fsync", "replace", "pwrite", "ftruncate")
TOLERANCE = 0.05
"""Largest difference, relative to the largest logit: bf16, and other slices of prefill."""


def in_child(work: Callable[[], int]) -> int:
    """Run ``work`` in a fork, where everything is imported already; return its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = work()
    except Exception:  # noqa: BLE001 - the parent gets the exit code; the traceback is for people
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def command(*arguments: str, kill_before: int = 0) -> int:
    """Run one command line; kill it before its n-th write unless n is 0."""
    import torch

    from hga_chat.__main__ import main

    torch.set_num_threads(1)
    writes = 0

    def counted(name: str) -> None:
        really = getattr(os, name)

        def write(*given: object, **named: object) -> object:
            nonlocal writes
            writes += 1
            if writes == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)
            return really(*given, **named)

        setattr(os, name, write)

    for name in WRITES:
        counted(name)
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main(list(arguments))
    if code:
        sys.stderr.write(said.getvalue())
    return code


def check() -> int:
    """Return 0 if every session is whole and continues as a fresh one does."""
    import torch

    from hga_chat.conversation.opening import lay_out_saved, open_session, settings_of
    from hga_chat.models import find_model
    from hga_chat.sessions.store import SessionStore
    from hga_chat.settings import load_settings
    from hga_engine.opening import open_engine, prepare_model

    torch.set_num_threads(1)
    settings, store = load_settings({}), SessionStore(1 << 40)
    files = find_model(settings.model)
    model = prepare_model(files)
    for id_ in store.ids():
        saved = store.open(id_)
        own = settings_of(saved.info, settings)
        layout = lay_out_saved(saved, files)
        conversation = open_session(model, own, saved, layout)
        for note in conversation.notes:
            if "damaged" in note:
                sys.stderr.write(f"{note}\n")
                return 1
        list(conversation.prefill())
        tokens, question = conversation.engine.token_ids, model.tokenizer.encode("What now?")
        fresh = open_engine(model, own.engine())
        list(fresh.prefill(tokens))
        found, expected = (
            torch.cat([*engine.logits(question)])[
                -len(question) :
            ]  # the end of an answer may come first
            for engine in (conversation.engine, fresh)
        )
        difference = float((found - expected).abs().max() / expected.abs().max())
        conversation.close()
        fresh.close()
        if not difference < TOLERANCE:
            sys.stderr.write(f"session {id_}: logits differ by {difference:.3f}\n")
            return 1
    return 0


def turns_there() -> dict[str, list[str]]:
    """Return the questions of each session, in order; a damaged file is an error."""
    from hga_chat.sessions.store import SessionStore

    store = SessionStore(1 << 40)
    return {id_: [turn.question for turn in store.turns(id_).turns] for id_ in store.ids()}


class Rounds:
    """Run commands on a few documents and kill most of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.documents = folder / "log"
        self.documents.mkdir()
        for name in "abc":
            text = "".join(f"{name} line {n} is calm.\n" for n in range(12))
            (self.documents / f"{name}.txt").write_text(text)
        self.usual_s = 1.0
        self.asked = 0
        self.kept: dict[str, list[str]] = {}
        """Turns that were completed."""

    def run(self, *arguments: str, kill: bool) -> bool:
        """Run a command; return whether it was killed.

        Raises:
            AssertionError: it failed by itself.
        """
        by_write = kill and self.random.random() < 0.5
        kill_before = self.random.randint(1, 14) if by_write else 0
        began = time.monotonic()
        until = began + (self.random.uniform(0, self.usual_s) if kill and not by_write else 1e9)
        child = in_child(lambda: command(*arguments, kill_before=kill_before))
        ended, status = os.waitpid(child, os.WNOHANG)
        while not ended and time.monotonic() < until:
            time.sleep(0.001)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return True
        assert os.WEXITSTATUS(status) == 0, arguments
        self.usual_s = time.monotonic() - began
        return False

    def round(self, *, kill: bool = True) -> bool:
        """Run one command and check what must hold after it; return whether it was killed."""
        what = self.random.choice(("ingest", "ask", "session", "session"))
        path = str(self.documents)
        self.asked += 1
        question = f"Question {self.asked}?"
        short = ("--max-new-tokens", "4", "--context", "4096", "--budget", "4096")
        target = self.random.choice(sorted(self.kept)) if self.kept else None
        if what == "session" and target is not None:
            killed = self.run("ask", "--session", target, question, *short, kill=kill)
        elif what == "ask":
            killed = self.run("ask", path, question, *short, kill=kill)
        else:
            if self.random.random() < 0.5:
                last = self.documents / "c.txt"
                last.write_text(last.read_text()[:200] + f"Now it is {self.asked}.\n")
            killed = self.run("ingest", "--no-chat", path, *short, kill=kill)
        self.compare(target if what == "session" else None, question, killed=killed)
        return killed

    def compare(self, target: str | None, question: str, *, killed: bool) -> None:
        """Check that no completed turn is missing; the one in flight may be."""
        now = turns_there()
        for id_, turns in self.kept.items():
            allowed = [[*turns, question]] if id_ == target else [turns]
            if killed:
                allowed.append(turns)
            assert now.get(id_) in allowed, (id_, turns, now.get(id_), killed)
        self.kept = now
        if killed:
            _, status = os.waitpid(in_child(check), 0)
            assert status == 0, "a session is damaged"


def main() -> int:
    """Kill as often as asked; return 0 if every check held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from hga_chat.paths import kv_dir
    from tests.support.tiny_model import write_tiny_model

    # Compiled once, not in every run.
    os.environ.setdefault("HGA_KERNELS_CACHE", str(kv_dir().with_name("kernels")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("CONFIG", "DATA", "CACHE"):
            os.environ[f"XDG_{kind}_HOME"] = str(folder / kind.lower())
        os.environ["HGA_CHAT_MODEL"] = str(write_tiny_model(folder / "model"))
        rounds = Rounds(folder, options.seed)
        for _ in range(2):  # the first may compile kernels
            rounds.round(kill=False)
        killed = done = 0
        while killed < options.kills:
            killed += rounds.round()
            done += 1
        turns = sum(map(len, rounds.kept.values()))
        report = {"kills": killed, "commands": done + 2, "sessions": len(rounds.kept)}
        print(json.dumps({**report, "turns": turns}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
