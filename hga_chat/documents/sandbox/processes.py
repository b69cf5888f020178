"""Starts and ends the child processes that run parsers, and sends documents to them.

A worker is a Python file with a function ``extract(data: bytes)`` that returns a JSON object: the
result, or ``{"error": reason}``. ``child_main.py`` is the program of its process. A process
handles one document after another, because starting one takes longer than parsing most documents;
if it dies, the next document starts a new one.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hga_chat.documents.sandbox.limits import Limits
from hga_chat.documents.types import UnreadableError

_PROGRAM = Path(__file__).with_name("child_main.py")
_LENGTH_BYTES = 8
_EXIT_S = 1.0


_children: dict[tuple[Path, Limits], "_Child"] = {}
_lock = threading.Lock()


def extract(worker: Path, data: bytes, what: str, limits: Limits) -> dict[str, Any]:
    """Return a worker's answer for a document.

    Args:
        worker: The worker's file.
        data: The whole document.
        what: The kind of document to name if parsing fails, as in "damaged PDF".
        limits: Limits of the worker's process.

    Raises:
        UnreadableError: The worker refused the document, failed, died or exceeded a limit.
    """
    key = worker, limits
    with _lock:
        child = _children.get(key)
        if child is None:
            child = _children[key] = _Child(worker, limits)
        # No error, not even an interrupt, may leave a process behind.
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
    """End all child processes when the block ends."""
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
        # By path and with -P, so that nothing is imported from the current folder. In a session of
        # its own, so that its own children end with it and Ctrl-C reaches only this process.
        arguments = (worker, limits.memory_bytes, limits.seconds, limits.answer_bytes)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def ask(self, data: bytes) -> dict[str, Any]:
        """Send a document and return the answer, or ``{"failure": cause}`` if there is none."""
        timer = threading.Timer(self._limits.seconds, self._time_out)
        timer.start()
        try:
            body = self._exchange(data)
        finally:
            timer.cancel()
            timer.join()
        if self._timed_out:
            return {"failure": f"parsing took more than {self._limits.seconds:.0f} s"}
        if body is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_S)
            self.end()
            return {"failure": f"the parser exited with status {self._process.returncode}"}
        answer: dict[str, Any] = json.loads(body)
        return answer

    def end(self) -> None:
        """End the process and everything it started."""
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
