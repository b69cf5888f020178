"""Processes killed while they save: what is found is the last state, or a beginning of it."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hga_engine.engine import Engine
from tests.support.saved_sessions import BUDGETS, saved
from tests.support.tiny_engine import make_engine, random_tokens, read

CALLS = ("pwrite", "write", "fsync", "replace", "ftruncate", "unlink")
NEVER = 10_000


def change(engine: Engine) -> None:
    """Give up the end of the session, read on and save: pages are written over."""
    engine.truncate(60)
    read(engine, random_tokens(30, seed=5))
    engine.save()


def killed_at(point: int, folder: Path, budget: int | None) -> bool:
    """Change the session in a process that kills itself at its n-th call that changes a file.

    Returns:
        Whether it came that far.
    """
    child = os.fork()
    if child == 0:
        done = 0

        def counted(call: Callable[..., object]) -> Callable[..., object]:
            def run(*args: object, **options: object) -> object:
                nonlocal done
                done += 1
                if done == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **options)

            return run

        try:
            engine = make_engine(saved_dir=folder, host_budget_bytes=budget)
            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            change(engine)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def all_keys(engine: Engine) -> torch.Tensor:
    """[layers, kv_heads, tokens, head_dim]: what pages hold, whose other half is the values."""
    store = engine._store
    layers = range(engine.model_config.num_layers)
    return torch.stack([store.keys(layer, 0, store.length(layer)) for layer in layers])


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_process_killed_at_any_call_leaves_a_session_that_is_right(
    tmp_path: Path, budget: int | None
) -> None:
    before = saved(tmp_path / "before", budget)
    expected: dict[tuple[int, ...], torch.Tensor] = {}
    for tokens, more in ((90, []), (60, []), (60, random_tokens(30, seed=5))):
        engine = make_engine(saved_dir=tmp_path / "before")
        engine.truncate(tokens)
        read(engine, more)
        engine.check()
        expected[tuple(engine.token_ids)] = all_keys(engine)
    found = []
    for point in range(1, NEVER):
        folder = tmp_path / str(point)
        shutil.copytree(tmp_path / "before", folder)
        was_killed = killed_at(point, folder, budget)
        resumed = make_engine(saved_dir=folder, host_budget_bytes=budget)
        found.append(tuple(resumed.token_ids))
        resumed.check()
        assert torch.equal(all_keys(resumed), expected[found[-1]])
        resumed.close()
        shutil.rmtree(folder)
        if not was_killed:
            break
    assert len(found) > 12
    # The old one, its beginning and the new one, in this order.
    assert list(dict.fromkeys(found)) == list(expected)
    assert found[0] == tuple(before)
