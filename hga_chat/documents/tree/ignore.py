"""Decides which files of a tree are left out by ignore files, --include and --exclude.

In a repository, git itself says which files those are. Without git, or in a damaged repository, its
rules are applied here; they do not say what is tracked although it is ignored.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pathspec import GitIgnoreSpec

from hga_chat.documents.tree.wildmatch import Pattern, patterns_of, verdict
from hga_chat.documents.types import DocumentError

_GIT_SECONDS = 60
_OF_REPOSITORY = frozenset(
    {
        "GIT_COMMON_DIR",
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_WORK_TREE",
    }
)
"""Variables that name another repository, as in a hook."""


class Rules(Protocol):
    """Which paths of a tree are left out in a folder."""

    def entering(self, folder: Path, *, is_repository: bool = False) -> "Rules":
        """Return the rules inside ``folder``."""

    def ignores(self, path: Path, *, is_folder: bool) -> bool:
        """Whether ``path`` is ignored; the folder it is in must not be."""

    def tracks(self, path: Path) -> bool:
        """Whether version control holds a file, or a file below a folder."""


@dataclass(frozen=True)
class IgnoreRules:
    """The ignore files in force in a folder, the least important first.

    As in git, the innermost file with a matching pattern decides, and nothing below an ignored
    folder can be included again.
    """

    levels: tuple[tuple[Path, tuple[Pattern, ...]], ...] = ()
    ignore_case: bool = False

    def entering(self, folder: Path, *, is_repository: bool = False) -> Rules:
        """Return the rules inside ``folder``: these and its own; in a repository, only its own."""
        if not is_repository:
            return self.with_file(folder / ".gitignore", folder)
        return git_listing(folder, folder) or repository_rules(folder)

    def ignores(self, path: Path, *, is_folder: bool) -> bool:
        """Whether ``path`` is ignored; the folder it is in must not be."""
        for folder, patterns in reversed(self.levels):
            relative = os.fsencode(path.relative_to(folder).as_posix())
            found = verdict(patterns, relative, is_folder=is_folder)
            if found is not None:
                return found
        return False

    def tracks(self, path: Path) -> bool:  # noqa: ARG002
        """Return False: only git knows."""
        return False

    def with_file(self, file: Path, folder: Path) -> "IgnoreRules":
        """Return these rules and those of ``file``, which apply in ``folder``."""
        # As in git, links in the tree are not followed.
        is_link = file.parent == folder and file.is_symlink()
        patterns = () if is_link else patterns_of(_content(file), ignore_case=self.ignore_case)
        return replace(self, levels=(*self.levels, (folder, patterns))) if patterns else self


@dataclass(frozen=True)
class GitListing:
    """What git lists in a folder of a repository: what it tracks, and what is not ignored."""

    folder: Path
    tracked: frozenset[str]
    """Paths relative to ``folder``, of files and of the folders that they are in."""
    listed: frozenset[str]

    def entering(self, folder: Path, *, is_repository: bool = False) -> Rules:
        """Return the listing of ``folder``: this one, unless it is another repository."""
        return IgnoreRules().entering(folder, is_repository=True) if is_repository else self

    def ignores(self, path: Path, *, is_folder: bool) -> bool:
        """Whether git leaves ``path`` out."""
        if path.relative_to(self.folder).as_posix() in self.listed:
            return False
        # What git could not look into is named by whoever tries next.
        return not is_folder or os.access(path, os.R_OK | os.X_OK)

    def tracks(self, path: Path) -> bool:
        """Whether git tracks a file, or a file below a folder."""
        return path.relative_to(self.folder).as_posix() in self.tracked


def git_listing(root: Path, folder: Path) -> GitListing | None:
    """Return what git lists in ``folder`` of the repository at ``root``; None if git cannot tell.

    The repository's configuration runs no program and reaches no network.
    """
    outputs = []
    for options in (("--cached",), ("--others", "--exclude-standard")):
        output = _git(root, folder, "ls-files", "-z", *options)
        if output is None:
            return None
        outputs.append([os.fsdecode(path) for path in output.split(b"\0") if path])
    tracked = _with_parents(outputs[0])
    return GitListing(folder, tracked, tracked | _with_parents(outputs[1]))


def rules_around(folder: Path) -> Rules:
    """Return the rules that the repository around ``folder`` sets for it.

    If the repository ignores ``folder``, there are none: the user asked for it by name.
    """
    root = next((path for path in (folder, *folder.parents) if os.path.exists(path / ".git")), None)
    if root is None or root == folder:
        return IgnoreRules()
    rules = repository_rules(root)
    current = root
    for part in folder.relative_to(root).parts:
        current /= part
        if rules.ignores(current, is_folder=True):
            return IgnoreRules()
        if current != folder:
            rules = rules.with_file(current / ".gitignore", current)
    return git_listing(root, folder) or rules


def repository_rules(root: Path) -> IgnoreRules:
    """Return the rules of the user, the repository at ``root`` and its outermost folder."""
    common = _git_folder(root / ".git")
    ignore_case = _setting(common / "config", b"ignorecase") == b"true"
    rules = IgnoreRules(ignore_case=ignore_case)
    for file in (_users_file(), common / "info" / "exclude", root / ".gitignore"):
        rules = rules.with_file(file, root)
    return rules


def _git_folder(path: Path) -> Path:
    """Return the folder that all worktrees of a repository share, given its ``.git``."""
    pointer = _content(path).partition(b"gitdir:")[2].strip()
    folder = path.parent / os.fsdecode(pointer) if pointer else path
    common = _content(folder / "commondir").strip()
    return folder / os.fsdecode(common) if common else folder


def _users_file() -> Path:
    """Return the ignore file of the user: git's ``core.excludesFile`` or its default."""
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "git"
    for file in (Path("~/.gitconfig").expanduser(), settings / "config"):
        named = _setting(file, b"excludesfile")
        if named:
            return Path(os.fsdecode(named)).expanduser()
    return settings / "ignore"


def _setting(file: Path, name: bytes) -> bytes | None:
    """Return the value of a setting in the ``core`` section of a git configuration file."""
    section, value = b"", None
    for line in _content(file).split(b"\n"):
        line = line.strip()
        if line.startswith(b"["):
            section = line.lower()
        key, _, found = line.partition(b"=")
        if section == b"[core]" and key.strip().lower() == name:
            value = found.strip().strip(b'"')
    return value


def _content(file: Path) -> bytes:
    """Return what is in a file; nothing if it cannot be read."""
    try:
        return file.read_bytes() if file.is_file() else b""
    except (OSError, ValueError):
        return b""


def _git(root: Path, folder: Path, *arguments: str) -> bytes | None:
    """Return the output of git in ``folder`` of the repository at ``root``; None if it fails."""
    program = shutil.which("git")
    # Git must not find a repository further out where this one is damaged.
    if program is None or os.pathsep in str(root):
        return None
    environment = {name: value for name, value in os.environ.items() if name not in _OF_REPOSITORY}
    environment["GIT_CEILING_DIRECTORIES"] = str(root.parent)
    # What could run or be fetched is switched off, so any owner's repository will do.
    safe = ("-c", "core.fsmonitor=", "-c", "protocol.allow=never", "-c", "safe.directory=*")
    try:
        return subprocess.run(
            [program, "-C", folder, *safe, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_GIT_SECONDS,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _with_parents(paths: Iterable[str]) -> frozenset[str]:
    """Return paths and all folders that they are in."""
    found: set[str] = set()
    for path in paths:
        path = path.rstrip("/")  # a repository inside
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return frozenset(found)


@dataclass(frozen=True)
class Globs:
    """The user's ``--include`` and ``--exclude``, in the notation of ignore files.

    They match paths as they are displayed. Hidden files of a folder are loaded if they are tracked
    or an include glob itself contains a hidden name.
    """

    include: GitIgnoreSpec | None
    hidden: GitIgnoreSpec
    exclude: GitIgnoreSpec
    named: frozenset[str]
    """All path components of the include globs."""

    @classmethod
    def parse(cls, include: Sequence[str], exclude: Sequence[str]) -> "Globs":
        """Compile the globs.

        Raises:
            DocumentError: A glob is malformed.
        """
        hidden = [glob for glob in include if any(map(_is_hidden, Path(glob).parts))]
        return cls(
            _compile_globs(include, "--include") if include else None,
            _compile_globs(hidden, "--include"),
            _compile_globs(exclude, "--exclude"),
            frozenset(part for glob in include for part in Path(glob).parts),
        )

    def excludes(self, path: str, *, is_folder: bool) -> bool:
        """Whether --exclude leaves out what is displayed as ``path``."""
        return self.exclude.match_file(path + "/" * is_folder)

    def names_hidden(self, path: str, *, is_folder: bool) -> bool:
        """Whether a hidden file is named, or a hidden folder may have one that is."""
        return bool(len(self.hidden) if is_folder else self.hidden.match_file(path))

    def includes(self, path: str) -> bool:
        """Whether --include, if there is any, names the file displayed as ``path``."""
        return self.include is None or self.include.match_file(path)


def is_hidden(path: Path) -> bool:
    """Whether a path relative to its tree, or a folder that it is in, has a hidden name."""
    return any(map(_is_hidden, path.parts))


def _is_hidden(part: str) -> bool:
    return part.startswith(".") and part not in (".", "..")


def _compile_globs(globs: Sequence[str], option: str) -> GitIgnoreSpec:
    for glob in globs:
        try:
            GitIgnoreSpec.from_lines([glob])
        except (ValueError, re.error):
            raise DocumentError(f"{option} {glob}: not a valid glob") from None
    return GitIgnoreSpec.from_lines([glob.removeprefix("./") for glob in globs])
