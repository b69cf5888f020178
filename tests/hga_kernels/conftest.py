"""The kernels compiled for this machine's CPU and for x86-64-v3, one after the other."""

import math
import platform
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from hga_kernels.cpu import build, library

ON_X86 = platform.machine() in ("x86_64", "AMD64")
VARIANTS = [
    "native",
    pytest.param("x86_64_v3", marks=pytest.mark.skipif(not ON_X86, reason="not an x86-64 CPU")),
]


def poisoned(create: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Wrap a function that allocates a tensor, so that the tensor is filled with NaN or 123."""

    def run(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = create(*args, **kwargs)
        return tensor.fill_(math.nan if tensor.is_floating_point() else 123)

    return run


# Module scope lets hypothesis run many examples with one library.
@pytest.fixture(scope="module", params=VARIANTS)
def compiled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make the wrappers use one library, and poison the memory they allocate."""
    opened = library.open_library(build.library_path(request.param), 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "_load", lambda: opened)
        patch.setattr(torch, "empty", poisoned(torch.empty))
        patch.setattr(torch, "empty_like", poisoned(torch.empty_like))
        yield
