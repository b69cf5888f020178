"""Finding the files of a folder, in the order in which they are read."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hga_chat.documents.ignore import (
    Globs,
    is_generated,
    is_skipped_folder,
    rules_around,
)
from hga_chat.documents.types import DocumentError, Skipped

MAX_FILES = 20_000

_MANIFESTS = frozenset(
    {
        "build.gradle",
        "build.gradle.kts",
        "cargo.toml",
        "cmakelists.txt",
        "composer.json",
        "gemfile",
        "go.mod",
        "makefile",
        "package.json",
        "pom.xml",
        "pyproject.toml",
        "requirements.txt",
        "setup.cfg",
        "setup.py",
    }
)
_LAST = ("changelog", "changes", "copying", "history", "licence", "license", "news", "notice")


@dataclass(frozen=True)
class Found:
    """A file to read and what to call it."""

    file: Path
    path: str


def walk(root: Path, prefix: str, globs: Globs) -> tuple[list[Found], list[Skipped]]:
    """List the files below ``root`` worth reading, in reading order, and what is passed over.

    Links are not followed: what they point to inside the tree is read at its own place. Ignored
    and hidden files and what the globs leave out are not mentioned.

    Args:
        root: The folder.
        prefix: Put before each path, which is relative to ``root``.
        globs: The user's choice.

    Raises:
        DocumentError: ``root`` cannot be listed or has too many files.
    """
    resolved = root.resolve()
    try:
        os.scandir(resolved).close()
    except OSError as error:
        raise DocumentError(f"{root}: {reason_of(error)}") from None
    found: list[Path] = []
    skipped: list[Skipped] = []
    for entry in _entries(resolved, prefix, globs):
        if isinstance(entry, Skipped):
            skipped.append(entry)
        else:
            found.append(entry)
        if len(found) > MAX_FILES:
            raise DocumentError(
                f"{root}: more than {MAX_FILES:,} files; name a smaller folder or use --include"
            )
    found.sort(key=_reading_order)
    skipped.sort(key=lambda entry: entry.path)
    return [Found(resolved / path, prefix + shown(path)) for path in found], skipped


def shown(path: Path) -> str:
    """Return ``path`` as valid text, whatever bytes the file system has for it."""
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")


def reason_of(error: OSError) -> str:
    """Return the reason for skipping a file that could not be read."""
    return (error.strerror or str(error)).lower()


def _entries(root: Path, prefix: str, globs: Globs) -> Iterator[Path | Skipped]:
    """Files relative to ``root``, and what is skipped, in no particular order."""
    folders = [(root, rules_around(root))]
    while folders:
        folder, outside = folders.pop()
        rules = outside.entering(folder)
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            yield Skipped(prefix + shown(folder.relative_to(root)), reason_of(error))
            continue
        for entry in entries:
            path = folder / entry.name
            relative = path.relative_to(root)
            name = prefix + shown(relative)
            if entry.is_dir(follow_symlinks=False):
                if (
                    globs.enters(name, relative)
                    and not is_skipped_folder(path)
                    and not rules.ignores(path, is_folder=True)
                ):
                    folders.append((path, rules))
            elif globs.takes(name, relative) and not rules.ignores(path, is_folder=False):
                reason = _passed_over(entry, path, root, globs)
                if reason is None:
                    yield relative
                elif reason:
                    yield Skipped(name, reason)


def _passed_over(entry: os.DirEntry[str], path: Path, root: Path, globs: Globs) -> str | None:
    """Why a file is not read; empty if that need not be told."""
    if entry.is_symlink():
        return "" if _points_into(path, root) else "link to somewhere outside the folder"
    if not entry.is_file(follow_symlinks=False):
        return "not a regular file"
    if globs.include is None and is_generated(entry.name):
        return "generated; name it with --include to read it"
    return None


def _points_into(link: Path, root: Path) -> bool:
    try:
        return link.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return True  # a link to itself points nowhere


def _reading_order(path: Path) -> tuple[tuple[int, str, str], ...]:
    """Sort key: readme, manifests, files, folders, and at the end licences and change logs."""
    *folders, name = path.parts
    lowered = name.lower()
    stem = lowered.split(".")[0]
    if stem == "readme":
        rank = 0
    elif lowered in _MANIFESTS:
        rank = 1
    else:
        rank = 4 if not folders and stem in _LAST else 2
    return (*((3, folder.lower(), folder) for folder in folders), (rank, lowered, name))
