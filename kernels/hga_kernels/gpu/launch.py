"""Launch kernels with little work on the host, which prefill and questions on a GPU wait for."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from triton.compiler import CompiledKernel

_ALIGNED = 16
"""Bytes of a pointer, and steps of an integer, that Triton specialises on."""
_LARGEST = 2**31


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
        key = (*specialised(arguments), *named.items())
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


def specialised(arguments: tuple[Any, ...]) -> list[Any]:
    """Return what a compiled kernel depends on of its run-time arguments, and their devices."""
    key: list[Any] = []
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            is_aligned = argument.data_ptr() % _ALIGNED == 0
            key += (argument.dtype, argument.get_device(), is_aligned)
        elif type(argument) is int:
            is_wide = not -_LARGEST <= argument < _LARGEST
            key.append(argument == 1 or (argument % _ALIGNED == 0, is_wide))
        else:
            key.append(type(argument))
    return key


def cdiv(number: int, step: int) -> int:
    """Return ``number / step``, rounded up."""
    return -(-number // step)


def next_power_of_2(number: int) -> int:
    """Return the smallest power of two that is not below ``number``."""
    return 1 << max(number - 1, 0).bit_length()
