"""JSON files that are replaced atomically and carry a checksum."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hga_chat.sessions.types import SessionError

FORMAT = "hga-chat session"
VERSION = 1


def write_sealed(path: Path, content: object) -> None:
    """Replace a JSON file atomically, with its checksum; only its owner can read it.

    If the process is killed, the file is either the old or the new one.

    Raises:
        OSError: the disk is full or cannot be written; the old file is unchanged.
    """
    sealed = {
        "format": FORMAT,
        "version": VERSION,
        "sha256": hashlib.sha256(_encode(content)).hexdigest(),
        "content": content,
    }
    temporary = path.with_name(f".{path.name}.new")
    try:
        opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(opened, "wb") as file:
            file.write(_encode(sealed))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_sealed(path: Path) -> Any:
    """Return the content of a file that ``write_sealed`` wrote.

    Raises:
        SessionError: the file is missing, damaged or of another version; the text names it.
    """
    try:
        sealed = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
        is_ours = sealed["format"] == FORMAT
        version, digest, content = sealed["version"], sealed["sha256"], sealed["content"]
    except OSError as error:
        raise SessionError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, TypeError, KeyError, RecursionError):
        raise SessionError(f"{path}: is damaged.") from None
    if is_ours and version != VERSION:
        raise SessionError(f"{path}: has format {version}; this version reads {VERSION}.")
    if not is_ours or hashlib.sha256(_encode(content)).hexdigest() != digest:
        raise SessionError(f"{path}: is damaged (its checksum differs).")
    return content


def _encode(value: object) -> bytes:
    # Lone surrogates, from file names that are not UTF-8, are kept.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def disk_bytes(folder: Path) -> int:
    """Return the bytes that a folder's files occupy on disk, without holes."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except OSError:  # removed in the meantime
                continue
    return total
