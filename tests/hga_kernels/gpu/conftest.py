"""Triton kernels on a GPU where there is one, else in Triton's interpreter on the CPU."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tests.support import interpreter


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the kernels run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def poisoned() -> Iterator[None]:
    """All memory that wrappers ask for is NaN, or a large number, at first."""

    def filled(create: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def run(*args: Any, **kwargs: Any) -> torch.Tensor:
            tensor = create(*args, **kwargs)
            if tensor.is_floating_point():
                return tensor.fill_(math.nan)
            return tensor.fill_(min(2**24, torch.iinfo(tensor.dtype).max))

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", filled(torch.empty))
        patch.setattr(torch, "empty_like", filled(torch.empty_like))
        patch.setattr(torch.Tensor, "new_empty", filled(torch.Tensor.new_empty))
        yield


@pytest.fixture(scope="module")
def few_programs(device: torch.device) -> Iterator[None]:
    """Larger tiles in the interpreter, which takes its time for every program."""
    with pytest.MonkeyPatch.context() as patch:
        if device.type == "cpu":
            interpreter.run_few_programs(patch)
        yield
