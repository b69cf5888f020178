"""The texts for training and checks: installed packages and Debian documents.

Only texts are used whose licence lets anybody use, change and pass them on without conditions on
the result: Python packages by their metadata, and the Debian packages of ``MANUALS``.
"""

import importlib.metadata
import itertools
import json
import lzma
import random
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import cast

HELD_OUT = ("asyncio", "networkx", "werkzeug", "sympy")
"""Python packages that are never trained on."""
HELD_OUT_NOVEL, HELD_OUT_MANUAL = "persuasion", "nettle"
"""The prose and the HTML manual that are never trained on."""

MANUALS = {
    "nodejs": ("usr/share/doc/nodejs/api", "MIT"),
    "postgresql-doc-15": ("usr/share/doc/postgresql-doc-15/html", "PostgreSQL"),
    "sqlite3-doc": ("usr/share/doc/sqlite3", "public domain"),
    "apache2-doc": ("usr/share/doc/apache2-doc/manual/en", "Apache-2.0"),
    "python3.11-doc": ("usr/share/doc/python3.11/html", "PSF-2.0"),
    "nettle-dev": ("usr/share/doc/nettle-dev/nettle.html", "public domain"),
}
"""Debian packages with HTML manuals: where in them, and under which licence."""
NOVELS = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
"""Jane Austen's novels in Debian's r-cran-janeaustenr; public domain, the package MIT."""
_NOVEL = re.compile(r"[a-z]{4,}")

_FREE = re.compile(
    r"MIT|MIT-0|MIT-CMU|0BSD|BSD|BSD.[23].Clause|BSD [23]-Clause License|ISC|Zlib|CC0-1\.0|BSL-1\.0"
    r"|Apache[ -]2\.0|Apache 2\.0 License|Apache Software License|LLVM-exception|PSF-2\.0"
    r"|(?:MIT|BSD|ISC) License|Python Software Foundation License|Unlicense|CNRI-Python"
)
_MOST_CHARS, _LEAST_CHARS = 160_000, 600
_MOST_OF_A_PACKAGE = 3_600_000
_MOST_OF_A_MANUAL = 3_500_000
_MOST_PAGE_BYTES = 700_000
_MOST_HELD_OUT = 700_000
_NOT_READ = re.compile(
    r"(^|/)(tests?|_vendor|vendored|deprecated|__pycache__)/|_pb2|unicode|/lexers/_"
)


@dataclass(frozen=True)
class Text:
    """A document with its origin and licence."""

    path: str
    kind: str
    """code, manual or prose."""
    origin: str
    """The package it is from."""
    licence: str
    text: str
    is_held_out: bool


@dataclass(frozen=True)
class Data:
    """Everything that training and checks use."""

    texts: tuple[Text, ...]
    chats: tuple[tuple[str, str], ...]
    """Prompts with the base model's answers."""

    def of(self, *kinds: str, held_out: bool = False) -> list[Text]:
        """Return the texts of some kinds."""
        return [t for t in self.texts if t.kind in kinds and t.is_held_out == held_out]


def collect(site_packages: Path, stdlib: Path, debian: Iterable[Path]) -> Iterator[Text]:
    """Yield every text there is.

    Args:
        site_packages: of a virtual environment.
        stdlib: folder of Python's own library.
        debian: roots under which Debian packages are installed or unpacked.
    """
    for distribution in importlib.metadata.distributions(path=[str(site_packages)]):
        name, licence = distribution.metadata["Name"], _licence(distribution)
        if name == "hga-chat":
            continue
        if licence is None:
            print(f"{name}: left out, its licence is not one of those known to be free")
            continue
        files = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
        yield from _package(name, licence, site_packages, sorted(files))
    files = [path for path in stdlib.rglob("*.py") if "site-packages" not in path.parts]
    yield from _package("python", "PSF-2.0", stdlib, sorted(files), 2 * _MOST_OF_A_PACKAGE)
    for root in debian:
        for package, (place, licence) in MANUALS.items():
            if (root / place).is_file() or any((root / place).glob("*.html")):
                yield from _manual(package, licence, root / place)
        if (root / NOVELS).exists():
            yield from _novels((root / NOVELS).read_bytes())


def write(path: Path, data: Data) -> None:
    """Write JSON lines, compressed by xz."""
    with lzma.open(path, "wt", preset=5, encoding="utf-8") as file:
        for text in data.texts:
            file.write(json.dumps(asdict(text)) + "\n")
        for prompt, answer in data.chats:
            file.write(json.dumps({"prompt": prompt, "answer": answer}) + "\n")


def read(path: Path) -> Data:
    """Read what ``write`` wrote."""
    texts, chats = [], []
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            if "prompt" in entry:
                chats.append((entry["prompt"], entry["answer"]))
            else:
                texts.append(Text(**entry))
    return Data(tuple(texts), tuple(chats))


def licences(data: Data) -> dict[str, str]:
    """Return the licence of each origin in the training set."""
    return {text.origin: text.licence for text in data.texts if not text.is_held_out}


def _licence(distribution: importlib.metadata.Distribution) -> str | None:
    """Return the licence in the metadata if every part of it is known to be free."""
    # The protocol ``PackageMetadata`` leaves out ``get``.
    metadata = cast(Message, distribution.metadata)
    said = metadata.get("License-Expression")
    if not said:
        classes = [c for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
        said = " AND ".join(c.split(" :: ")[-1] for c in classes) or metadata.get("License", "")
    parts = [part.strip("() ") for part in re.split(r" AND | OR | WITH ", said)]
    return said if parts and all(_FREE.fullmatch(part) for part in parts) else None


def _package(
    name: str, licence: str, root: Path, files: list[Path], most: int = _MOST_OF_A_PACKAGE
) -> Iterator[Text]:
    """Yield sources of a package: a random choice if they exceed ``most`` characters."""
    chosen = [path for path in files if path.suffix in {".py", ".md", ".rst"}]
    random.Random(name).shuffle(chosen)
    left = {True: _MOST_HELD_OUT, False: most}
    for path in chosen:
        shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        if _NOT_READ.search(shown) or ".dist-info" in shown or not path.is_file():
            continue
        text = path.read_text("utf-8", errors="replace").replace("\r\n", "\n")
        held_out = name in HELD_OUT or any(part in shown for part in HELD_OUT)
        if _LEAST_CHARS <= len(text) <= min(_MOST_CHARS, left[held_out]) and "\ufffd" not in text:
            left[held_out] -= len(text)
            kind = "code" if path.suffix == ".py" else "manual"
            yield Text(shown, kind, name, licence, text, held_out)


def _manual(package: str, licence: str, place: Path) -> Iterator[Text]:
    """Yield the pages of an HTML manual, as the product loads them."""
    # Training needs none of what reads documents.
    from hga_chat.documents import load_documents

    pages = [place] if place.is_file() else sorted(place.rglob("*.html"))
    pages = [page for page in pages if page.stat().st_size <= _MOST_PAGE_BYTES]
    random.Random(package).shuffle(pages)
    sizes = itertools.accumulate(page.stat().st_size for page in pages)
    pages = [p for p, size in zip(pages, sizes, strict=True) if size <= 5 * _MOST_OF_A_MANUAL]
    documents = load_documents(list(map(str, pages))).documents
    left, held_out = _MOST_OF_A_MANUAL, package.startswith(HELD_OUT_MANUAL)
    for document in documents:
        text = "".join(section.text for section in document.sections)
        most = left if held_out else min(_MOST_CHARS, left)
        path = Path(document.path).name
        if _LEAST_CHARS <= len(text) <= most and not any(part in path for part in HELD_OUT):
            left -= len(text)
            yield Text(path, "manual", package, licence, text, held_out)


def _novels(packed: bytes) -> Iterator[Text]:
    """Yield character vectors of an R database: a length, then a zlib stream of strings."""
    at = 0
    while at < len(packed):
        stream = zlib.decompressobj()
        raw = stream.decompress(packed[at + 4 :])
        at = len(packed) - len(stream.unused_data)
        lines = list(_strings(raw))
        title = next((line for line in lines if line.strip()), "")
        name = "-".join(re.findall(r"[a-z]+", title.lower()))
        if len(lines) > 1_000 and _NOVEL.search(name):
            text = "\n".join(lines) + "\n"
            yield Text(
                f"{name}.txt",
                "prose",
                "r-cran-janeaustenr",
                "public domain",
                text,
                name == HELD_OUT_NOVEL,
            )


def _strings(raw: bytes) -> Iterator[str]:
    """Yield strings of a vector in R's XDR format (R Internals, 1.8): type 9, length, bytes."""
    at = 0
    while (at := raw.find(b"\x00\x04\x00\x09", at)) >= 0:
        size = int.from_bytes(raw[at + 4 : at + 8], "big")
        yield raw[at + 8 : at + 8 + size].decode("utf-8", "replace")
        at += 8 + size
