"""Launch kernels with little work on the host, which prefill and questions on a GPU wait for."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from triton.compiler import CompiledKernel

_INT32 = range(-(2**31), 2**31)


class Kernel:
    """A function under ``triton.jit`` that is called in the same way, ``kernel[grid](…)``.

    Triton binds the arguments of each call anew and looks for the compiled kernel by a text of all
    options, which takes longer than many of our kernels run. Here the compiled kernel is found by
    what Triton specialises on: types, alignment, and integers that are 1 or divisible by 16.

    Run-time arguments are given by position, compile-time ones and compiler options by name.
    """

    def __init__(self, function: Any) -> None:
        """Wrap what ``triton.jit`` returns."""
        self.function = function
        self.__doc__ = function.__doc__
        self._known: dict[tuple[Any, ...], tuple[CompiledKernel, tuple[Any, ...]]] = {}

    @property
    def arg_names(self) -> list[str]:
        """Names of all arguments, in order."""
        names: list[str] = self.function.arg_names
        return names

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """Return a function that queues the kernel on a grid of up to three dimensions."""
        return functools.partial(self._queue, grid)

    def _queue(self, grid: tuple[int, ...], *arguments: Any, **named: Any) -> None:
        key = (
            torch.cuda.current_device() if torch.cuda.is_initialized() else -1,
            *map(_specialised, arguments),
            *named.items(),
        )
        known = self._known.get(key)
        if known is None:
            names = self.arg_names[len(arguments) :]
            made = self.function[grid](*arguments, **named)
            # Triton's interpreter compiles nothing.
            if isinstance(made, CompiledKernel):
                self._known[key] = made, tuple(named[name] for name in names)
            return
        compiled, constants = known
        compiled[(*grid, 1, 1)](*arguments, *constants)


def _specialised(argument: Any) -> Any:
    """Return what of a run-time argument a compiled kernel depends on."""
    if isinstance(argument, torch.Tensor):
        return argument.dtype, argument.data_ptr() % 16 == 0
    if type(argument) is int:
        return argument == 1 or (argument % 16 == 0, argument in _INT32)
    return type(argument)
