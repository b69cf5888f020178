"""Folders that are skipped: caches, dependencies, vendored code, build output, submodules."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

_CACHES = frozenset(
    {
        ".DS_Store",
        ".git",
        ".gitattributes",
        ".gitignore",
        ".gitmodules",
        ".hg",
        ".svn",
        "__pycache__",
    }
)
_CACHE_SUFFIXES = (".egg-info", ".dist-info")
_INSTALLED = frozenset({"bower_components", "node_modules", "site-packages"})
_VENDORED = frozenset(
    {"3rdparty", "_vendor", "_vendored", "third-party", "third_party", "thirdparty", "vendored"}
)
_BUILT = frozenset({"_build", "build", "dist", "out", "target"})
_BUILT_NAMES = frozenset({"CMakeCache.txt", "build.ninja", "classes", "doctrees"})
_BUILT_STARTS = ("bdist.", "lib.linux-", "lib.macosx-", "lib.win", "temp.")
_BUILT_ENDS = (
    ".a",
    ".class",
    ".egg",
    ".jar",
    ".js.map",
    ".min.css",
    ".min.js",
    ".o",
    ".tar.gz",
    ".whl",
)
_SUBMODULE = re.compile(r"^\s*path\s*=\s*\"?(.+?)\"?\s*$", re.MULTILINE)

NOT_CHECKED_OUT = "a submodule, not checked out; run 'git submodule update --init' to fetch it"


def is_cache(name: str) -> bool:
    """Whether what has this name can be skipped silently: a cache or version control."""
    return name in _CACHES or name.endswith(_CACHE_SUFFIXES)


def skip_reason(name: str, entries: Collection[str]) -> str | None:
    """Return what a folder holds if it is not the work of the tree's authors, else None.

    Args:
        name: The folder's name.
        entries: The names of the files and folders in it.
    """
    if name in _INSTALLED:
        return "installed dependencies"
    if "pyvenv.cfg" in entries:
        return "a virtual environment"
    if "CACHEDIR.TAG" in entries:
        return "a cache"
    # A Python package named vendor is about vendors, unless it lists what it has copied.
    is_vendor = name == "vendor" and ("__init__.py" not in entries or "vendor.txt" in entries)
    if name in _VENDORED or is_vendor:
        return "vendored code"
    return "build output" if name in _BUILT and any(map(_is_built, entries)) else None


def submodules(folder: Path) -> Iterator[Path]:
    """Yield the folders inside ``folder`` that its ``.gitmodules`` names."""
    file = folder / ".gitmodules"
    try:
        text = file.read_text("utf-8", "replace") if file.is_file() else ""
    except OSError:
        return
    for match in _SUBMODULE.finditer(text):
        path = PurePosixPath(match[1])
        if not path.is_absolute() and ".." not in path.parts:
            yield folder / path


def _is_built(name: str) -> bool:
    return (
        name in _BUILT_NAMES or name.startswith(_BUILT_STARTS) or name.lower().endswith(_BUILT_ENDS)
    )
