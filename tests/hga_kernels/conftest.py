"""The compiled kernels of this machine's CPU and those that run anywhere, in turn."""

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
    def run(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = create(*args, **kwargs)
        return tensor.fill_(math.nan if tensor.is_floating_point() else 123)

    return run


# Of the module, so that hypothesis may run many examples with one library.
@pytest.fixture(scope="module", params=VARIANTS)
def compiled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Wrappers use one library, and all memory they ask for is NaN or 123 at first."""
    opened = library.open_library(build.library_path(request.param), 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "_load", lambda: opened)
        patch.setattr(torch, "empty", poisoned(torch.empty))
        patch.setattr(torch, "empty_like", poisoned(torch.empty_like))
        yield
