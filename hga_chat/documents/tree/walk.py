"""Finds the files of a folder, in loading order, and those that are skipped."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hga_chat.documents.tree.ignore import Globs, is_hidden, rules_around
from hga_chat.documents.tree.kinds import Kind, is_generated, kind_of, loading_order, project_of
from hga_chat.documents.tree.skipped_folders import (
    NOT_CHECKED_OUT,
    is_cache,
    skip_reason,
    submodules,
)
from hga_chat.documents.types import DocumentError, Skipped

MAX_FILES = 20_000
HIDDEN = "hidden; name it with --include to load it"


@dataclass(frozen=True)
class Found:
    """A file to load, the path to display and its kind."""

    file: Path
    path: str
    kind: Kind
    is_named: bool = False
    """Whether the user named this very file, so that it is loaded even if generated."""


def walk(root: Path, prefix: str, globs: Globs) -> tuple[list[Found], list[Skipped]]:
    """List the files below ``root`` to load, in loading order, and those skipped with reasons.

    Links are not followed: a target inside the tree is loaded at its own place. Ignored files,
    caches and files that the globs leave out are not mentioned.

    Args:
        root: The folder.
        prefix: Prefix of the displayed paths, which are relative to ``root``.
        globs: The user's --include and --exclude.

    Raises:
        DocumentError: ``root`` cannot be listed or has too many files.
    """
    resolved = root.resolve()
    try:
        os.scandir(resolved).close()
    except OSError as error:
        raise DocumentError(f"{root}: {os_error_reason(error)}") from None
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
    project = project_of(resolved)
    kinds = {path: kind_of(path, project) for path in found}
    found.sort(key=lambda path: loading_order(path, kinds[path]))
    skipped.sort(key=lambda entry: (entry.reason == HIDDEN, entry.path))
    files = [Found(resolved / path, prefix + path_text(path), kinds[path]) for path in found]
    return files, skipped


def path_text(path: Path) -> str:
    """Return ``path`` as valid Unicode, whatever bytes the file system has for it."""
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")


def os_error_reason(error: OSError) -> str:
    """Return the system's reason why a file could not be opened, in lower case."""
    return (error.strerror or str(error)).lower()


def _entries(root: Path, prefix: str, globs: Globs) -> Iterator[Path | Skipped]:
    """Yield files relative to ``root`` and what is skipped, in no particular order."""
    folders = [(root, rules_around(root))]
    missing: set[Path] = set()
    while folders:
        folder, outside = folders.pop()
        relative = folder.relative_to(root)
        name = prefix + path_text(relative)
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            yield Skipped(name, os_error_reason(error))
            continue
        names = {entry.name for entry in entries}
        if folder in missing and not names:
            yield Skipped(f"{name}/", NOT_CHECKED_OUT)
        if ".gitmodules" in names:
            missing.update(submodules(folder))
        what = skip_reason(folder.name, names)
        if what is not None and folder != root and folder.name not in globs.named:
            yield Skipped(f"{name}/", f"{what}; name it with --include to load it")
            continue
        rules = outside.entering(folder, is_repository=".git" in names)
        for entry in entries:
            path, below = folder / entry.name, relative / entry.name
            name = prefix + path_text(below)
            is_folder = entry.is_dir(follow_symlinks=False)
            if globs.excludes(name, is_folder=is_folder) or rules.ignores(
                path, is_folder=is_folder
            ):
                continue
            tracked = rules.tracks(path)
            if is_folder and is_cache(entry.name):
                if tracked:
                    yield Skipped(f"{name}/", "a cache")
            elif (
                is_hidden(below)
                and not tracked
                and not globs.names_hidden(name, is_folder=is_folder)
            ):
                if globs.include is None and not is_cache(entry.name):
                    yield Skipped(name + "/" * is_folder, HIDDEN)
            elif is_folder:
                folders.append((path, rules))
            elif globs.includes(name):
                reason = _skip_file_reason(entry, path, root, globs)
                if reason is None:
                    yield below
                elif reason:
                    yield Skipped(name, reason)


def _skip_file_reason(entry: os.DirEntry[str], path: Path, root: Path, globs: Globs) -> str | None:
    """Return why a file is skipped; empty to skip it silently, None to load it."""
    if entry.is_symlink():
        return "" if _points_into(path, root) else "a link to outside the folder"
    if not entry.is_file(follow_symlinks=False):
        return "not a regular file"
    if globs.include is None and is_generated(entry.name):
        return "generated; name it with --include to load it"
    return None


def _points_into(link: Path, root: Path) -> bool:
    try:
        return link.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return True  # a link to itself points nowhere
