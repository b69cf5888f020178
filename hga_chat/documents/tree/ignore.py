"""Which files of a tree are left out: ignore files and globs."""

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

    As in git, the innermost file that says anything about a path decides, and nothing below an
    ignored folder can be taken back in.
    """

    levels: tuple[tuple[Path, tuple[GitIgnoreSpecPattern, ...]], ...] = ()

    def entering(self, folder: Path, *, is_repository: bool = False) -> "IgnoreRules":
        """Return the rules inside ``folder``: these and its own; a repository has only its own."""
        rules = self
        if is_repository:
            rules = IgnoreRules().reading(folder / ".git" / "info" / "exclude", folder)
        return rules.reading(folder / ".gitignore", folder)

    def ignores(self, path: Path, *, is_folder: bool) -> bool:
        """Whether ``path``, which stands in a folder that is not ignored, is ignored."""
        for folder, patterns in reversed(self.levels):
            relative = path.relative_to(folder).as_posix() + "/" * is_folder
            for pattern in reversed(patterns):
                # The whole path: a match that ends earlier is that of a folder around it, which
                # was judged before.
                match = pattern.regex.match(relative) if pattern.regex else None
                if match and match.end() == len(relative):
                    return bool(pattern.include)
        return False

    def reading(self, file: Path, folder: Path) -> "IgnoreRules":
        """Return these rules and those that ``file`` sets in ``folder``."""
        try:
            # As in git, ignore files are not read through links.
            is_file = file.is_file() and not file.is_symlink()
            lines = file.read_text("utf-8", "replace").split("\n") if is_file else []
        except OSError:
            lines = []
        patterns = _compile(lines)
        return IgnoreRules((*self.levels, (folder, patterns))) if patterns else self


def rules_around(folder: Path) -> IgnoreRules:
    """Return the rules that the repository around ``folder`` sets for it.

    A folder that the repository ignores was asked for by name: then there are none.
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
    """Compile the patterns that git would accept; a broken line is no rule."""
    patterns = []
    for line in lines:
        try:
            pattern = GitIgnoreSpecPattern(_spelled_out(line))
        except (ValueError, re.error):
            continue
        if pattern.include is not None:
            patterns.append(pattern)
    return tuple(patterns)


def _spelled_out(line: str) -> str:
    """Write trailing wildcards so that what they match is matched to its end."""
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

    They are matched against paths as they are shown. In a folder, names that begin with a dot
    are read only where an include glob names such a one itself.
    """

    include: GitIgnoreSpec | None
    hidden: GitIgnoreSpec
    exclude: GitIgnoreSpec
    named: frozenset[str]
    """Names that stand in the include globs."""

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
        """Whether the folder shown as ``path``, at ``relative`` to its tree, is looked into."""
        if _is_hidden(relative.name) and not len(self.hidden):
            return False
        return not self.exclude.match_file(path + "/")

    def takes(self, path: str, relative: Path) -> bool:
        """Whether the file shown as ``path``, at ``relative`` to its tree, is read."""
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
