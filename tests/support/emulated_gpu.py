"""A GPU played by the CPU: kernels in Triton's interpreter; CUDA's streams, events and graphs.

A graph is captured as CUDA does it: nothing is computed, but what would be launched is noted with
the tensors it was given, and a replay does just that. Whatever Python decides during the capture
thus stays as it was then, and to ask for a value that is on the device is an error.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime.interpreter import GridExecutor, interpreter_builder

from hga_engine.memory.probes import DeviceMemory
from tests.support import interpreter

MEMORY = DeviceMemory(used_bytes=1 << 30, total_bytes=8 << 30)


class Event:
    """An event of work that is done when its call returns."""

    def record(self, stream: object = None) -> None:
        pass

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


class Stream:
    """A stream whose work is done when its call returns."""

    def __init__(self, device: object = None) -> None:
        pass

    def wait_stream(self, stream: object) -> None:
        pass

    def wait_event(self, event: object) -> None:
        pass

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


class Graph:
    """Work that was captured."""

    capturing: "Graph | None" = None

    def __init__(self) -> None:
        self.work: list[Callable[[], object]] = []

    def replay(self) -> None:
        for work in self.work:
            work()


class _Capture(TorchDispatchMode):
    """Notes what torch is asked to do."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host waits for a value"
        if func._schema.is_mutable:
            self._graph.work.append(partial(func, *args, **kwargs))
            return kwargs.get("out", args[0])
        found = func(*args, **kwargs)
        given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
        made = [out.untyped_storage().data_ptr() not in given for out in _tensors(found)]
        if all(made) and not func._schema.name.startswith("aten::empty"):
            self._graph.work.append(partial(_repeat, func, args, kwargs, found))
        return found


def _tensors(of: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(of) if isinstance(leaf, torch.Tensor)]


def _repeat(func: Any, args: Any, kwargs: Any, found: Any) -> None:
    """Compute into the tensors that those behind in the graph read."""
    for old, new in zip(_tensors(found), _tensors(func(*args, **kwargs)), strict=True):
        old.copy_(new)


@contextmanager
def _capture(graph: Graph, stream: object = None) -> Iterator[None]:
    Graph.capturing = graph
    try:
        with _Capture(graph):
            yield
    finally:
        Graph.capturing = None


_run = GridExecutor.__call__


def _launch(kernel: GridExecutor, *args: Any, **kwargs: Any) -> None:
    if Graph.capturing is None:
        _run(kernel, *args, **kwargs)
    else:
        Graph.capturing.work.append(partial(_run, kernel, *args, **kwargs))


@contextmanager
def emulated_gpu() -> Iterator[None]:
    """The CPU is taken for a GPU, by engines and by kernels."""
    zeros, zeros_like = torch.zeros, torch.zeros_like

    def plain_zeros(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        return zeros(*args, **kwargs)

    def plain_zeros_like(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        return zeros_like(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        interpreter.run_few_programs(patch)
        patch.setattr(GridExecutor, "__call__", _launch)
        # Tests of the kernels see to it.
        unchecked = replace(interpreter_builder.options, sanitize_overflow=False)
        patch.setattr(interpreter_builder, "options", unchecked)
        # The package has a function of the module's name.
        dispatching = sys.modules["hga_kernels.dispatch"]
        patch.setattr(dispatching, "is_on_gpu", lambda given: isinstance(given, torch.Tensor))
        for module in ("attention.index", "compiling", "memory.probes", "pace", "tiers"):
            patch.setattr(f"hga_engine.{module}.is_gpu", lambda device: True)
        for module in ("engine", "tiers"):
            patch.setattr(f"hga_engine.{module}.device_memory", lambda device: MEMORY)
        patch.setattr("hga_engine.kv_store.tiered.pin", lambda tensor, owner: None)
        patch.setattr(torch, "zeros", plain_zeros)
        patch.setattr(torch, "zeros_like", plain_zeros_like)
        stand_ins = {
            "CUDAGraph": Graph,
            "Event": Event,
            "Stream": Stream,
            "current_stream": Stream,
            "empty_cache": lambda: None,
            "graph": _capture,
            "stream": nullcontext,
            "synchronize": lambda device=None: None,
        }
        for name, stand_in in stand_ins.items():
            patch.setattr(torch.cuda, name, stand_in)
        yield
