"""Parsers in processes of their own, so that no file can hang this one or eat its memory.

A worker is a Python file with a function ``extract(data: bytes)`` that returns a JSON object:
what it found, or ``{"error": reason}``. Its process serves one document after another and is
started again when it has died; starting one costs more than reading most documents.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hga_chat.documents.types import UnreadableError

_PROGRAM = Path(__file__).with_name("child_main.py")
_LENGTH_BYTES = 8
_EXIT_S = 1.0


@dataclass(frozen=True)
class Limits:
    """What a worker may take for one document."""

    seconds: float = 120.0
    memory_bytes: int = 2 << 30
    answer_bytes: int = 64 << 20


_children: dict[tuple[Path, Limits], "_Child"] = {}
_lock = threading.Lock()


def extract(worker: Path, data: bytes, what: str, limits: Limits) -> dict[str, Any]:
    """Have ``data`` read by a worker.

    Args:
        worker: The worker's file.
        data: The whole document.
        what: Named in the reason when reading fails, as in "damaged PDF".
        limits: Kept by the process.

    Raises:
        UnreadableError: The worker refused the document, failed, died or went over a limit.
    """
    key = worker, limits
    with _lock:
        child = _children.get(key)
        if child is None:
            child = _children[key] = _Child(worker, limits)
        # Whatever goes wrong, an interrupt included, leaves no process behind.
        healthy = False
        try:
            answer = child.ask(data)
            healthy = "failure" not in answer
        finally:
            if not healthy:
                del _children[key]
                child.end()
    if "failure" in answer:
        raise UnreadableError(f"damaged {what}: {answer['failure']}")
    if "error" in answer:
        raise UnreadableError(str(answer["error"]))
    return answer


@contextlib.contextmanager
def ending_children() -> Iterator[None]:
    """End the workers that wait for documents, when there are no more documents for them."""
    try:
        yield
    finally:
        with _lock:
            for child in _children.values():
                child.end()
            _children.clear()


class _Child:
    """One running worker."""

    def __init__(self, worker: Path, limits: Limits) -> None:
        self._limits = limits
        self._timed_out = False
        # By its file and with -P: nothing is imported from the folder the user stands in. In a
        # session of its own: what the worker starts ends with it, and Ctrl-C is ours to handle.
        arguments = (worker, limits.memory_bytes, limits.seconds, limits.answer_bytes)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def ask(self, data: bytes) -> dict[str, Any]:
        """Send a document, return the answer; ``{"failure": cause}`` if there is none."""
        timer = threading.Timer(self._limits.seconds, self._time_out)
        timer.start()
        try:
            body = self._exchange(data)
        finally:
            timer.cancel()
            timer.join()
        if self._timed_out:
            return {"failure": f"not read within {self._limits.seconds:.0f} s"}
        if body is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_S)
            self.end()
            return {"failure": f"the parser ended with {self._process.returncode}"}
        answer: dict[str, Any] = json.loads(body)
        return answer

    def end(self) -> None:
        """End the process and whatever it started."""
        self._kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()

    def _exchange(self, data: bytes) -> bytes | None:
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            return None
        try:
            requests.write(len(data).to_bytes(_LENGTH_BYTES))
            requests.write(data)
            requests.flush()
            length = int.from_bytes(answers.read(_LENGTH_BYTES))
            body = answers.read(length) if length <= self._limits.answer_bytes else b""
        except OSError:
            return None
        return body if body and len(body) == length else None

    def _time_out(self) -> None:
        self._timed_out = True
        self._kill()

    def _kill(self) -> None:
        if self._process.poll() is not None:
            return
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
