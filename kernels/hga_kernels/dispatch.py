"""Choose between functions of one name: the GPU's, the CPU's, or the plain definition."""

import importlib
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def dispatch(
    plain: Callable[Arguments, Result],
    cpu: Callable[Arguments, Result | None] | None = None,
    gpu: str | None = None,
) -> Callable[Arguments, Result]:
    """Return a function that calls the fast one for the device of its first argument.

    A fast function returns None for tensors it does not take; then the plain one is called.

    Args:
        plain: the definition in plain torch.
        cpu: its namesake for tensors on the CPU.
        gpu: module below ``hga_kernels.gpu`` that has its namesake, imported when it is needed.
    """

    @wraps(plain)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        fast: Any = cpu
        if is_on_gpu(args[0]):
            fast = _on_gpu(gpu, plain.__name__) if gpu else None
        result: Result | None = fast(*args, **kwargs) if fast else None
        return plain(*args, **kwargs) if result is None else result

    return run


def is_on_gpu(argument: object) -> bool:
    """Tell whether an argument is a tensor in GPU memory."""
    return isinstance(argument, torch.Tensor) and argument.is_cuda


def _on_gpu(module: str, name: str) -> Callable[..., Any]:
    # After the first call this is a look-up in sys.modules.
    found: Callable[..., Any] = getattr(importlib.import_module(f"hga_kernels.gpu.{module}"), name)
    return found
