"""Classifies the files of a tree by their paths, and sorts them into loading order."""

import re
from enum import IntEnum
from pathlib import Path, PurePath

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
_LOCKS = frozenset(
    {
        "bun.lock",
        "cargo.lock",
        "composer.lock",
        "gemfile.lock",
        "go.sum",
        "package-lock.json",
        "pdm.lock",
        "pipfile.lock",
        "pnpm-lock.yaml",
        "poetry.lock",
        "uv.lock",
        "yarn.lock",
    }
)
_GENERATED_SUFFIXES = (".min.js", ".min.css", ".js.map", ".css.map")
_LICENCES = frozenset({"copying", "licence", "license", "notice"})
_CHANGES = frozenset({"changelog", "changes", "history", "news", "releases"})
_PROSE = frozenset({"", ".md", ".rst", ".txt", ".adoc"})
_ENTRIES = frozenset({"__main__", "app", "cli", "main"})
_CODE = frozenset(
    {
        ".c",
        ".cc",
        ".cjs",
        ".clj",
        ".cpp",
        ".cs",
        ".cts",
        ".cu",
        ".cxx",
        ".dart",
        ".el",
        ".erl",
        ".ex",
        ".exs",
        ".f90",
        ".fs",
        ".go",
        ".groovy",
        ".h",
        ".hh",
        ".hpp",
        ".hs",
        ".hxx",
        ".java",
        ".jl",
        ".js",
        ".jsx",
        ".kt",
        ".kts",
        ".lua",
        ".m",
        ".mjs",
        ".ml",
        ".mm",
        ".mts",
        ".nim",
        ".php",
        ".pl",
        ".proto",
        ".py",
        ".pyi",
        ".pyx",
        ".r",
        ".rb",
        ".rs",
        ".scala",
        ".sh",
        ".sol",
        ".svelte",
        ".swift",
        ".ts",
        ".tsx",
        ".vue",
        ".zig",
    }
)
_DATA = frozenset(
    {
        ".csv",
        ".dat",
        ".geojson",
        ".json",
        ".jsonl",
        ".lock",
        ".map",
        ".ndjson",
        ".pem",
        ".sql",
        ".svg",
        ".tsv",
        ".xml",
    }
)
_TEST_STEM = re.compile(r"conftest|test_.*|.*[._-](test|tests|spec)|.*[a-z](Test|Tests|Spec)")
_LANGUAGE = (
    r"(ar|bg|bn|ca|cs|da|de|el|es|et|fa|fi|fr|he|hi|hr|hu|id|it|ja|ko|lt|lv|nl|no|pl|pt|ro|ru|sk"
    r"|sl|sr|sv|th|tr|uk|vi|zh)([-_][A-Za-z]{2,4})?"
)
_TRANSLATED_FOLDER = re.compile(rf"(?:^|/)(doc|docs|documentation)/{_LANGUAGE}/", re.I)
# Countries stand for their languages as well.
_TRANSLATED_README = re.compile(
    rf"readme[._-]({_LANGUAGE}|br|cn|cz|dk|gr|jp|kr|se|tw|ua)\.(md|rst|txt|adoc)", re.I
)
_MAX_ENTRY_DEPTH = 2


class Kind(IntEnum):
    """The kinds of files, in loading order; ``FILE`` is any file without a more specific kind."""

    README = 0
    MANIFEST = 1
    ENTRY = 2
    FILE = 3
    EXAMPLE = 4
    DATA = 5
    TRANSLATION = 6
    TEST = 7
    LICENCE = 8
    CHANGES = 9
    LOG = 10
    GENERATED = 11


FOLDERS_OF = {
    Kind.TEST: frozenset(
        {"__tests__", "e2e", "fixtures", "spec", "specs", "test", "testdata", "tests"}
    ),
    Kind.EXAMPLE: frozenset(
        {"benchmarks", "demo", "demos", "example", "examples", "sample", "samples", "tutorials"}
    ),
    Kind.TRANSLATION: frozenset({"i18n", "locale", "locales", "translations"}),
}
"""Lower-case names of folders that give all files below them one kind."""


def kind_of(path: PurePath, project: str = "") -> Kind:
    """Return the kind of a file.

    Args:
        path: Path relative to its tree.
        project: The likely name of the tree's main module, from ``project_of``.
    """
    name, stem, suffix = path.name.lower(), path.name.lower().split(".")[0], path.suffix.lower()
    if is_generated(name):
        return Kind.GENERATED
    folders = [folder.lower() for folder in path.parts[:-1]]
    if FOLDERS_OF[Kind.TEST].intersection(folders) or (
        is_code(path) and _TEST_STEM.fullmatch(path.stem)
    ):
        return Kind.TEST
    if _is_translation(path, folders):
        return Kind.TRANSLATION
    if stem == "readme":
        return Kind.README
    if name in _MANIFESTS:
        return Kind.MANIFEST
    if suffix == ".log":
        return Kind.LOG
    if stem in _CHANGES and suffix in _PROSE:
        return Kind.CHANGES
    if stem in _LICENCES and not folders:
        return Kind.LICENCE
    if FOLDERS_OF[Kind.EXAMPLE].intersection(folders):
        return Kind.EXAMPLE
    if is_code(path) and _is_entry(stem, suffix, folders, project):
        return Kind.ENTRY
    return Kind.DATA if suffix in _DATA else Kind.FILE


def is_code(path: PurePath) -> bool:
    """Whether a file is source code by its name."""
    return path.suffix.lower() in _CODE


def is_prose(path: PurePath) -> bool:
    """Whether a file is text for people by its name."""
    return path.suffix.lower() in _PROSE - {""}


def is_generated(name: str) -> bool:
    """Whether a file's name says that it is a lock file or minified."""
    lowered = name.lower()
    return lowered in _LOCKS or lowered.endswith(_GENERATED_SUFFIXES)


def project_of(root: Path) -> str:
    """Return the likely name of a tree's main module: ``my_app`` for ``My-App-1.2``."""
    return re.sub(r"[-_.]v?\d[\w.+-]*$", "", root.name.lower()).replace("-", "_")


def loading_order(path: PurePath, kind: Kind) -> tuple[tuple[int, str, str], ...]:
    """Return the sort key of a file in its tree.

    The readme and the manifests of the tree come first, then entry points, then folder by folder
    with a folder's own files before its subfolders, then tests, and finally files that often
    change: K/V of the text before an edit stays valid.
    """
    *folders, name = path.parts
    part = kind
    if Kind.FILE < kind < Kind.TEST or (kind < Kind.ENTRY and folders):
        part = Kind.FILE
    # A folder sorts after the files beside it.
    places = [(Kind.FILE + 1, folder.lower(), folder) for folder in folders]
    return ((part, "", ""), *places, (min(kind, Kind.FILE), name.lower(), name))


def _is_translation(path: PurePath, folders: list[str]) -> bool:
    return bool(
        path.suffix.lower() in (".po", ".pot")
        or FOLDERS_OF[Kind.TRANSLATION].intersection(folders)
        or _TRANSLATED_FOLDER.search("".join(f"{folder}/" for folder in path.parts[:-1]))
        or _TRANSLATED_README.fullmatch(path.name)
    )


def _is_entry(stem: str, suffix: str, folders: list[str], project: str) -> bool:
    """Whether a source file is the entry point of a program or library."""
    if len(folders) > _MAX_ENTRY_DEPTH:
        return False
    if stem in _ENTRIES or stem == project or (stem == "index" and not folders):
        return True
    if stem == "lib" and suffix == ".rs":
        return folders == ["src"]
    return stem == "__init__" and folders[-1:] == [project] and folders[:-1] in ([], ["src"])
