"""Loads what the user named: files, folders, standard input."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePath
from typing import BinaryIO

from hga_chat.documents.formats import MEGABYTE, format_of
from hga_chat.documents.plain.decode import PROBE_BYTES, is_binary
from hga_chat.documents.plain.valid_text import valid_text
from hga_chat.documents.sandbox.processes import ending_children
from hga_chat.documents.tree.generated import how_generated
from hga_chat.documents.tree.ignore import Globs
from hga_chat.documents.tree.kinds import Kind, kind_of
from hga_chat.documents.tree.walk import Found, os_error_reason, path_text, walk
from hga_chat.documents.types import (
    STANDARD_INPUT,
    Document,
    DocumentError,
    LoadedDocuments,
    Section,
    Skipped,
    UnreadableError,
    failure_reason,
)
from hga_chat.documents.unsupported import unsupported_format

_MAX_SKIPPED_NULS = 1 << 30


@dataclass(frozen=True)
class Loaded:
    """A loaded document and the kind of its file, which decides how early ``--fit`` drops it."""

    document: Document
    kind: Kind


def load_documents(
    paths: Sequence[str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    stdin: BinaryIO | None = None,
) -> LoadedDocuments:
    """Load all of ``iter_documents`` at once; the arguments are the same.

    Raises:
        DocumentError: A path does not exist or nothing can be loaded.
    """
    documents, skipped = [], []
    for entry in iter_documents(paths, include, exclude, stdin):
        if isinstance(entry, Loaded):
            documents.append(entry.document)
        else:
            skipped.append(entry)
    return LoadedDocuments(tuple(documents), tuple(skipped))


def iter_documents(
    paths: Sequence[str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    stdin: BinaryIO | None = None,
) -> Iterator[Loaded | Skipped]:
    """Load files, folders and standard input one document at a time, in order.

    A path that the user names is loaded even if it is hidden, ignored, generated or a link.
    ``include`` selects within folders, ``exclude`` applies everywhere. The documents of a single
    folder are named relative to it; with several paths, they start with the folder as given.

    The first document is loaded before this returns, so that errors are raised here.

    Args:
        paths: Files, folders, or ``-`` for standard input.
        include: Globs in ``.gitignore`` notation; empty means everything.
        exclude: Globs of what to leave out.
        stdin: The stream behind ``-``; None is the process's standard input.

    Raises:
        DocumentError: A path does not exist or nothing can be loaded.
    """
    globs = Globs.parse(include, exclude)
    named = list(_find_all(paths, globs))
    entries = _load_all(named, stdin or sys.stdin.buffer, skip_generated=globs.include is None)
    before: list[Loaded | Skipped] = []
    for entry in entries:
        before.append(entry)
        if isinstance(entry, Loaded):
            return chain(before, entries)
    skipped = [entry for entry in before if isinstance(entry, Skipped)]
    raise DocumentError(_nothing_loaded(paths, skipped, narrowed=bool(include or exclude)))


def _load_all(
    named: Iterable[Found | Skipped | str], stdin: BinaryIO, *, skip_generated: bool
) -> Iterator[Loaded | Skipped]:
    with ending_children():
        for entry in named:
            if isinstance(entry, Skipped):
                yield entry
                continue
            path = entry if isinstance(entry, str) else entry.path
            try:
                if isinstance(entry, Found):
                    document, notes = _load_file(entry)
                    if skip_generated and not entry.is_named:
                        _refuse_generated(document)
                else:
                    document, notes = _load_stream(entry, stdin)
            except BaseException as error:  # noqa: BLE001 - a panic in Rust is no Exception
                yield Skipped(path, valid_text(failure_reason(error)))
                continue
            yield Loaded(document, entry.kind if isinstance(entry, Found) else Kind.FILE)
            yield from (Skipped(path, note) for note in notes)


def _refuse_generated(document: Document) -> None:
    """Raise ``UnreadableError`` for a file that a program wrote."""
    how = how_generated(document.path, document.sections[0].text)
    if how is not None:
        raise UnreadableError(f"{how}; name it with --include to load it")


def _find_all(paths: Sequence[str], globs: Globs) -> Iterator[Found | Skipped | str]:
    """Yield every file behind ``paths`` once, in order; ``-`` stays as it is."""
    seen: set[str | Path] = set()
    for path in paths:
        found: Iterable[Found | str]
        if path == STANDARD_INPUT:
            found = (path,)
        else:
            found, skipped = _find(path, globs, is_only=len(paths) == 1)
            yield from skipped
        for entry in found:
            identity = entry if isinstance(entry, str) else entry.file
            if identity not in seen:
                seen.add(identity)
                yield entry


def _find(path: str, globs: Globs, *, is_only: bool) -> tuple[list[Found], list[Skipped]]:
    """Return the files behind one path, and those that are skipped."""
    given = Path(path)
    if not path:  # Path("") would be the current folder
        raise DocumentError("the path is empty; name a file or folder ('.' for this folder)")
    try:
        resolved = given.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = "no such file or folder"
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            reason = os_error_reason(error)
        raise DocumentError(f"{path}: {reason}") from None
    if resolved.is_dir():
        return walk(resolved, "" if is_only else path_text(given).rstrip("/") + "/", globs)
    name = path_text(given)
    if globs.exclude.match_file(name.lstrip("/")):
        return [], [Skipped(name, "excluded by --exclude")]
    if not resolved.is_file():
        return [], [Skipped(name, "not a regular file; pipe it in and name - instead")]
    return [Found(resolved, name, kind_of(PurePath(name)), is_named=True)], []


def _load_file(found: Found) -> tuple[Document, tuple[str, ...]]:
    try:
        with found.file.open("rb") as stream:
            return _load_stream(found.path, stream)
    except OSError as error:
        raise UnreadableError(os_error_reason(error)) from None


def _load_stream(path: str, stream: BinaryIO) -> tuple[Document, tuple[str, ...]]:
    """Load one document; return it with notes on the parts that could not be loaded.

    Raises:
        UnreadableError: With the reason for skipping the document.
    """
    head = _first_bytes(stream)
    if not head:
        raise UnreadableError("empty")
    kind = format_of(path, head)
    unsupported = unsupported_format(path, head) if kind.is_text else None
    if unsupported is not None:
        raise UnreadableError(unsupported)
    if kind.is_text and is_binary(head):
        raise UnreadableError("binary")
    data = head
    if len(head) >= PROBE_BYTES:  # else it has ended, and a terminal would be read on
        data += stream.read(kind.max_bytes + 1 - len(head))
    if len(data) > kind.max_bytes:
        raise UnreadableError(f"larger than the limit of {kind.max_bytes // MEGABYTE} MB")
    loaded = kind.load(path, data)
    sections = tuple(map(_valid, loaded.sections))
    if not any(section.text.strip() for section in sections):
        raise UnreadableError("empty")
    left_out = tuple(map(valid_text, loaded.left_out))
    title = " ".join(valid_text(loaded.title).split())
    document = Document(path, loaded.format or kind.name, sections, left_out, title)
    return document, tuple(map(valid_text, loaded.notes))


def _valid(section: Section) -> Section:
    """Return a section that can be encoded, whatever a reader has found in a file."""
    page = None if section.page is None else valid_text(section.page)
    return replace(
        section, text=valid_text(section.text), label=valid_text(section.label), page=page
    )


def _first_bytes(stream: BinaryIO) -> bytes:
    """Return the first bytes of a file; of NULs that fill more than these at its beginning, one.

    A log that was truncated while a program wrote to it begins like that.
    """
    head = stream.read(PROBE_BYTES)
    skipped = 0
    while head and skipped < _MAX_SKIPPED_NULS and head.count(0) == len(head):
        skipped += len(head)
        head = stream.read(PROBE_BYTES)
    if not skipped:
        return head
    head = b"\0" + head.lstrip(b"\0")
    return head + stream.read(max(PROBE_BYTES - len(head), 0))


def _nothing_loaded(paths: Sequence[str], skipped: Sequence[Skipped], *, narrowed: bool) -> str:
    if len(paths) == 1 and [entry.path for entry in skipped] == [path_text(Path(paths[0]))]:
        return f"{paths[0]}: {skipped[0].reason}"
    where = paths[0] if len(paths) == 1 else f"{len(paths)} paths"
    counts = Counter(entry.reason for entry in skipped).most_common(4)
    detail = ", ".join(f"{reason}: {count}" for reason, count in counts)
    hint = "; see --include and --exclude" if narrowed else ""
    return f"{where}: nothing to load" + (f" (skipped: {detail})" if detail else "") + hint
