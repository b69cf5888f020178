"""The user's editor: which program it is, and how it is told a line."""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath

_USUAL = ("nano", "vim", "vi")
_PLUS_LINE = (
    {"vi", "vim", "nvim", "view", "nano", "pico", "emacs", "emacsclient", "kak", "micro"}
    | {"joe", "jed", "mg", "ne", "mcedit", "gedit", "geany"}
)  # fmt: skip
"""They take ``+12 FILE``."""
_GOTO = {"code", "code-insiders", "codium", "cursor", "windsurf"}
"""They take ``--goto FILE:12``."""
_COLON = {"hx", "helix", "subl", "sublime_text", "zed", "zeditor", "mate"}
"""They take ``FILE:12``."""
_WAIT = {**dict.fromkeys((*_GOTO, "subl", "sublime_text", "zed", "zeditor", "mate"), "--wait")}
"""The flag with which editors in a window of their own return only once the file is closed."""


def editor(environment: Mapping[str, str]) -> list[str]:
    """Return the command of the user's editor; empty if there is none.

    ``VISUAL`` goes before ``EDITOR``, as everywhere; without both, the first usual one.
    """
    for name in ("VISUAL", "EDITOR"):
        text = environment.get(name, "")
        try:
            command = shlex.split(text)
        except ValueError:
            command = [text]
        if command:
            return command
    return next(([name] for name in _USUAL if shutil.which(name)), [])


def at_line(command: list[str], path: Path, line: int | None) -> list[str]:
    """Return a command that opens a file at a line, counted from 1."""
    name = PurePath(command[0]).stem
    if line is None:
        return [*command, str(path)]
    if name in _PLUS_LINE:
        return [*command, f"+{line}", str(path)]
    if name in _GOTO:
        return [*command, "--goto", f"{path}:{line}"]
    if name in _COLON:
        return [*command, f"{path}:{line}"]
    return [*command, str(path)]


def edit_text(command: list[str], text: str) -> str:
    """Return the text as it is after the user has edited it.

    Raises:
        OSError: the editor cannot be started or reports a failure.
    """
    handle, name = tempfile.mkstemp(prefix="prompt-", suffix=".md")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        edit_file(command, Path(name))
        return Path(name).read_text(encoding="utf-8", errors="replace").rstrip("\n")
    finally:
        Path(name).unlink(missing_ok=True)


def edit_file(command: list[str], path: Path) -> None:
    """Let the user edit a file; return once it is closed.

    Raises:
        OSError: the editor cannot be started or reports a failure.
    """
    wait = _WAIT.get(PurePath(command[0]).stem)
    run([*command, *([wait] if wait and wait not in command else []), str(path)])


def run(command: list[str]) -> None:
    """Run an editor until it returns.

    Raises:
        OSError: it cannot be started or reports a failure.
    """
    with _stopping_with_it():
        code = subprocess.run(command, check=False).returncode
    if code:
        raise OSError(f"{command[0]} ended with exit code {code}")


@contextmanager
def _stopping_with_it() -> Iterator[None]:
    """Let Ctrl+Z in the editor stop this program too, and ``fg`` wake it without taking keys.

    The screen's own handler would read from the terminal again while the editor has it.
    """
    numbers = [getattr(signal, name) for name in ("SIGTSTP", "SIGCONT") if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
