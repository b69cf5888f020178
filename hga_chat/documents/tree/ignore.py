"""Decides which files of a tree are left out by ignore files, --include and --exclude."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from hga_chat.documents.types import DocumentError


@dataclass(frozen=True)
class IgnoreRules:
    """The ``.gitignore`` files in force in a folder, outermost first.

    As in git, the innermost file with a matching pattern decides, and nothing below an ignored
    folder can be included again.
    """

    levels: tuple[tuple[Path, tuple[GitIgnoreSpecPattern, ...]], ...] = ()

    def entering(self, folder: Path, *, is_repository: bool = False) -> "IgnoreRules":
        """Return the rules inside ``folder``: these and its own; in a repository, only its own."""
        rules = self
        if is_repository:
            rules = IgnoreRules().with_file(folder / ".git" / "info" / "exclude", folder)
        return rules.with_file(folder / ".gitignore", folder)

    def ignores(self, path: Path, *, is_folder: bool) -> bool:
        """Whether ``path`` is ignored; the folder it is in must not be."""
        for folder, patterns in reversed(self.levels):
            relative = path.relative_to(folder).as_posix() + "/" * is_folder
            for pattern in reversed(patterns):
                # A match that ends earlier matches a parent folder, which was checked before.
                match = pattern.regex.match(relative) if pattern.regex else None
                if match and match.end() == len(relative):
                    return bool(pattern.include)
        return False

    def with_file(self, file: Path, folder: Path) -> "IgnoreRules":
        """Return these rules and those of ``file``, which apply in ``folder``."""
        try:
            # As in git, links to ignore files are not followed.
            is_file = file.is_file() and not file.is_symlink()
            lines = file.read_text("utf-8", "replace").split("\n") if is_file else []
        except OSError:
            lines = []
        patterns = _compile(lines)
        return IgnoreRules((*self.levels, (folder, patterns))) if patterns else self


def rules_around(folder: Path) -> IgnoreRules:
    """Return the rules that the repository around ``folder`` sets for it.

    If the repository ignores ``folder``, there are none: the user asked for it by name.
    """
    root = next((path for path in (folder, *folder.parents) if os.path.exists(path / ".git")), None)
    rules = IgnoreRules()
    if root is None:
        return rules
    current = root
    for part in folder.relative_to(root).parts:
        rules = rules.entering(current, is_repository=current == root)
        current /= part
        if rules.ignores(current, is_folder=True):
            return IgnoreRules()
    return rules


def _compile(lines: Iterable[str]) -> tuple[GitIgnoreSpecPattern, ...]:
    """Compile the lines that git accepts as patterns; skip the others."""
    patterns = []
    for line in lines:
        try:
            pattern = GitIgnoreSpecPattern(_match_to_end(line))
        except (ValueError, re.error):
            continue
        if pattern.include is not None:
            patterns.append(pattern)
    return tuple(patterns)


def _match_to_end(line: str) -> str:
    """Rewrite trailing wildcards so that a match covers the whole path."""
    line = line if line.endswith("\\ ") else line.rstrip()
    negation = "!" if line.startswith("!") else ""
    pattern, slash = line.removeprefix("!"), ""
    if pattern.endswith("/"):
        pattern, slash = pattern[:-1], "/"
    if pattern in ("*", "**"):
        pattern = "?*"
    elif pattern.endswith("/**"):
        pattern += "/*"
    return negation + pattern + slash


@dataclass(frozen=True)
class Globs:
    """The user's ``--include`` and ``--exclude``, in the notation of ignore files.

    They match paths as they are displayed. Hidden files of a folder are loaded only if an include
    glob itself contains a hidden name.
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

    def enters(self, path: str, relative: Path) -> bool:
        """Whether to search a folder: displayed as ``path``, at ``relative`` in its tree."""
        if _is_hidden(relative.name) and not len(self.hidden):
            return False
        return not self.exclude.match_file(path + "/")

    def takes(self, path: str, relative: Path) -> bool:
        """Whether to load a file: displayed as ``path``, at ``relative`` in its tree."""
        if any(map(_is_hidden, relative.parts)) and not self.hidden.match_file(path):
            return False
        if self.include is not None and not self.include.match_file(path):
            return False
        return not self.exclude.match_file(path)


def _is_hidden(part: str) -> bool:
    return part.startswith(".") and part not in (".", "..")


def _compile_globs(globs: Sequence[str], option: str) -> GitIgnoreSpec:
    for glob in globs:
        try:
            GitIgnoreSpec.from_lines([glob])
        except (ValueError, re.error):
            raise DocumentError(f"{option} {glob}: not a valid glob") from None
    return GitIgnoreSpec.from_lines([glob.removeprefix("./") for glob in globs])
