"""Counts how many files of a tree import each other file, by their import lines.

Lines are found by patterns instead of parsed: counts need not be exact, and every version of a
language counts. Languages: Python, JavaScript and TypeScript, Go, Rust, Java and its kin, C and
C++, Ruby.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

_SEARCHED_CHARS = 20_000
_Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A module by the parts of its path, without a suffix."""

    parts: _Parts
    is_exact: bool = False
    """Whether they are the whole path rather than its end."""
    is_folder: bool = False
    """Whether all files of that folder are meant."""
    is_top: bool = False
    """Whether what is before their end must not be a package: ``import typing`` is not for the
    package's own ``typing``."""


_Choices = tuple[_Wanted, ...]
"""Modules that an import may mean; the first that exists counts."""

_PYTHON = re.compile(
    r"^[ \t]*(?:from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]*(\([^)]*\)|[^\n#;]+)"
    r"|import[ \t]+([\w.]+(?:[ \t]+as[ \t]+\w+)?(?:[ \t]*,[ \t]*[\w.]+(?:[ \t]+as[ \t]+\w+)?)*))",
    re.MULTILINE,
)
_NAME = re.compile(r"(?<!\w)(?:as[ \t]+\w+|(\w[\w.]*))")
_SCRIPT = re.compile(r"(?:\bfrom|\bimport|\brequire)\s*\(?\s*['\"]([^'\"\n]+)['\"]")
_SCRIPT_SUFFIX = re.compile(r"\.(?:[cm]?[jt]sx?|vue|svelte)$")
_GO_BLOCK = re.compile(r"^import\s*(\([^)]*\)|[^\n]+)", re.MULTILINE)
_GO_PATH = re.compile(r'"([^"\n]+)"')
_GO_MODULE = re.compile(r"^module\s+(\S+)", re.MULTILINE)
_RUST_MODULE = re.compile(r"^[ \t]*(?:pub(?:\([^)]*\))?[ \t]+)?mod[ \t]+(\w+)[ \t]*;", re.MULTILINE)
_RUST_PATH = re.compile(r"\b(crate|super)::(\w+(?:::\w+)*)")
_RUST_GROUP = re.compile(r"\buse[ \t]+crate::\{([^;]*)\}[ \t]*;")
_JAVA = re.compile(r"^import[ \t]+(?:static[ \t]+)?([\w.]+)", re.MULTILINE)
_C = re.compile(r"^[ \t]*#[ \t]*include[ \t]*[<\"]([^>\"\n]+)[>\"]", re.MULTILINE)
_RUBY = re.compile(r"^[ \t]*require(_relative)?[ \t(]+['\"]([^'\"\n]+)['\"]", re.MULTILINE)
_WHOLE_FOLDER = frozenset({"__init__", "index", "mod"})
_RUST_ROOTS = frozenset({"lib", "main", "mod"})


class Imports:
    """Which files import which, as they are added."""

    def __init__(self) -> None:
        """Begin without files."""
        self._wanted: dict[int, set[_Choices]] = {}
        self._exact: defaultdict[_Parts, list[int]] = defaultdict(list)
        self._folders: defaultdict[_Parts, list[int]] = defaultdict(list)
        self._by_name: defaultdict[str, list[_Parts]] = defaultdict(list)
        self._modules: list[tuple[_Parts, _Parts]] = []
        """Names of Go modules, and the folders of their files."""

    def add(self, number: int, path: str, text: str) -> None:
        """Add a file by its number, path and text."""
        pure = PurePosixPath(path)
        folder = pure.parent.parts
        if pure.name == "go.mod" and (found := _GO_MODULE.search(text[:_SEARCHED_CHARS])):
            self._modules.append((tuple(found[1].split("/")), folder))
        language = _LANGUAGES.get(pure.suffix.lower())
        if language is None:
            return
        self._add_name((*folder, pure.stem), number)
        if pure.stem in _WHOLE_FOLDER:
            self._add_name(folder, number)
        if not pure.stem.endswith("_test"):
            self._folders[folder].append(number)
        self._wanted[number] = set(language(pure, text[:_SEARCHED_CHARS]))

    def _add_name(self, parts: _Parts, number: int) -> None:
        if not parts:
            return
        if parts not in self._exact:
            self._by_name[parts[-1]].append(parts)
        self._exact[parts].append(number)

    def counts(self) -> Counter[int]:
        """Return by how many other files each file is imported."""
        counts: Counter[int] = Counter()
        for number, wanted in self._wanted.items():
            found: set[int] = set()
            for choices in wanted:
                found.update(next(filter(None, map(self._files_of, choices)), ()))
            counts.update(found - {number})
        return counts

    def _files_of(self, wanted: _Wanted) -> list[int]:
        parts = wanted.parts
        if wanted.is_folder:
            for name, folder in self._modules:
                if parts[: len(name)] == name:
                    return self._folders.get((*folder, *parts[len(name) :]), [])
            return []
        if wanted.is_exact:
            return self._exact.get(parts, [])
        if not parts:
            return []
        ends = [
            one
            for one in self._by_name.get(parts[-1], ())
            if one[-len(parts) :] == parts
            and not (wanted.is_top and one[: -len(parts)] in self._exact)
        ]
        return self._exact[min(ends, key=lambda one: (len(one), one))] if ends else []


def _python(path: PurePosixPath, text: str) -> Iterator[_Choices]:
    folder = path.parent.parts
    for dots, module, names, modules in _PYTHON.findall(text):
        if modules:
            for name in filter(None, _NAME.findall(modules)):
                parts = tuple(name.split("."))
                yield tuple(_Wanted(parts[:end], is_top=True) for end in range(len(parts), 0, -1))
            continue
        base = folder[: len(folder) - len(dots) + 1] if dots else ()
        parts = (*base, *filter(None, module.split(".")))
        for name in filter(None, _NAME.findall(names)):
            choices = (*parts, name), parts
            yield tuple(_Wanted(one, bool(dots), is_top=not dots) for one in choices)


def _script(path: PurePosixPath, text: str) -> Iterator[_Choices]:
    for name in _SCRIPT.findall(text):
        plain = _SCRIPT_SUFFIX.sub("", name)
        if plain.startswith("."):
            yield (_Wanted(_joined(path.parent.parts, plain), is_exact=True),)
        elif plain.startswith(("@/", "~/")):
            yield (_Wanted(tuple(plain[2:].split("/"))),)


def _go(_: PurePosixPath, text: str) -> Iterator[_Choices]:
    for block in _GO_BLOCK.findall(text):
        for name in _GO_PATH.findall(block):
            yield (_Wanted(tuple(name.split("/")), is_folder=True),)


def _rust(path: PurePosixPath, text: str) -> Iterator[_Choices]:
    folder = path.parent.parts
    own = folder if path.stem in _RUST_ROOTS else (*folder, path.stem)
    for name in _RUST_MODULE.findall(text):
        yield (_Wanted((*own, name), is_exact=True),)
    root = folder
    while root and root[-1] != "src":
        root = root[:-1]
    paths = [*_RUST_PATH.findall(text)]
    for group in _RUST_GROUP.findall(text):
        paths += [("crate", name.strip()) for name in re.split(r",(?![^{]*\})", group)]
    for start, name in paths:
        base = root if start == "crate" else own[:-1]
        parts = tuple(re.findall(r"\w+", name.split("{")[0]))
        yield tuple(_Wanted((*base, *parts[:n]), True) for n in range(len(parts), 0, -1))


def _java(_: PurePosixPath, text: str) -> Iterator[_Choices]:
    for name in _JAVA.findall(text):
        parts = tuple(name.split("."))
        yield _Wanted(parts), _Wanted(parts[:-1])


def _c(path: PurePosixPath, text: str) -> Iterator[_Choices]:
    for name in _C.findall(text):
        plain = str(PurePosixPath(name).with_suffix(""))
        relative = _Wanted(_joined(path.parent.parts, plain), is_exact=True)
        yield relative, _Wanted(tuple(part for part in plain.split("/") if part not in {".", ".."}))


def _ruby(path: PurePosixPath, text: str) -> Iterator[_Choices]:
    for is_relative, name in _RUBY.findall(text):
        plain = name.removesuffix(".rb")
        if is_relative or plain.startswith("."):
            yield (_Wanted(_joined(path.parent.parts, plain), is_exact=True),)
        else:
            yield (_Wanted(tuple(plain.split("/"))),)


def _joined(folder: _Parts, relative: str) -> _Parts:
    parts = list(folder)
    for part in relative.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return tuple(parts)


def _suffixes(
    suffixes: str, language: Callable[..., Iterable[_Choices]]
) -> Iterator[tuple[str, Callable[..., Iterable[_Choices]]]]:
    return ((suffix, language) for suffix in suffixes.split())


_LANGUAGES = dict(
    (
        *_suffixes(".py .pyi .pyx", _python),
        *_suffixes(".js .jsx .mjs .cjs .ts .tsx .mts .cts .vue .svelte", _script),
        *_suffixes(".go", _go),
        *_suffixes(".rs", _rust),
        *_suffixes(".java .kt .kts .scala .groovy", _java),
        *_suffixes(".c .cc .cpp .cxx .h .hh .hpp .hxx .m .mm .cu", _c),
        *_suffixes(".rb", _ruby),
    )
)
