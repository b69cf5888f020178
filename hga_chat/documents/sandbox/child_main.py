"""The program of a child process: imports a worker and answers one document after another.

Arguments: the worker's file and its limits on memory (bytes), time (seconds) and answer size
(bytes). A request on standard input is the document's length (eight bytes, big-endian) and the
document. The answer on standard output is the length and text of a JSON object, in the same form.
The process ends with its standard input.
"""

import importlib.util
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

_LENGTH_BYTES = 8
_GRACE_S = 5


def _limit_memory(count: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (count, count))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return  # not available on this system; the other limits still hold


def _import(name: str, file: Path, folder: Path | None = None) -> ModuleType:
    """Import a module, or the package in ``folder``, from its file, not from ``sys.path``."""
    folders = [str(folder)] if folder else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise ImportError(str(file))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Worker:
    """The worker's function, imported with the first document so that errors become answers."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._extract: Callable[[bytes], dict[str, Any]] | None = None

    def __call__(self, data: bytes) -> dict[str, Any]:
        if self._extract is None:
            package = Path(__file__).parents[2]
            _import(package.name, package / "__init__.py", package)
            self._extract = _import("worker", self._file).extract
        return self._extract(data)


def _answer(extract: Callable[[bytes], dict[str, Any]], data: bytes) -> dict[str, Any]:
    try:
        return extract(data)
    except MemoryError:
        return {"failure": "parsing takes too much memory"}
    except Exception as error:  # noqa: BLE001 - a damaged document raises anything
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        return {"failure": cause[:200]}


def main() -> None:
    """Answer documents until there are no more."""
    worker, memory_bytes, seconds, answer_bytes = sys.argv[1:]
    requests = sys.stdin.buffer
    # Only answers go to standard output; what a library prints goes to standard error.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.disable()
    _limit_memory(int(memory_bytes))
    extract = _Worker(Path(worker))
    while header := requests.read(_LENGTH_BYTES):
        data = requests.read(int.from_bytes(header))
        # The parent enforces the limit; the alarm is in case the parent is gone.
        if hasattr(signal, "alarm"):
            signal.alarm(int(float(seconds)) + _GRACE_S)
        body = json.dumps(_answer(extract, data)).encode()
        if len(body) > int(answer_bytes):
            body = json.dumps({"error": "more text than can be loaded"}).encode()
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        answers.write(len(body).to_bytes(_LENGTH_BYTES))
        answers.write(body)
        answers.flush()


if __name__ == "__main__":
    main()
