"""The cases that ``time_kernels`` times on a GPU, by part."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from hga_kernels.gpu.build import Launch


@dataclass
class Case:
    """Work to time, with the fewest bytes and operations it needs and the error of its result."""

    name: str
    run: Callable[[], object]
    bytes: int = 0
    flops: int = 0
    check: Callable[[], float] | None = None


def changed(case: Case, name: str, change: Callable[[], AbstractContextManager[object]]) -> Case:
    """Return the same case, run within a context that changes something."""

    def within(call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with change():
                return call()

        return run

    return replace(case, name=name, run=within(case.run), check=case.check and within(case.check))


def with_value(case: Case, name: str, table: dict[int, object], value: object) -> Case:
    """Return the same case with another value in a table, for every GPU."""
    return changed(case, name, lambda: patch.dict(table, dict.fromkeys(table, value)))


def with_launch(case: Case, table: dict[int, Launch], launch: Launch) -> Case:
    """Return the same case with another launch, for every GPU."""
    sizes = " ".join(f"{name}={size}" for name, size in launch.sizes.items())
    name = f"{case.name}: {sizes} w{launch.warps} s{launch.stages}"
    name += f" r{launch.registers}" if launch.registers else ""
    return with_value(case, name, table, launch)
