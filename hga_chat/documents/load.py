"""Loading what the user named: files, folders, standard input."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePath
from typing import BinaryIO

from hga_chat.documents.formats import MEGABYTE, format_of
from hga_chat.documents.plain.decode import PROBE_BYTES, is_binary
from hga_chat.documents.sandbox.child import children_ended
from hga_chat.documents.tree.generated import generated_by
from hga_chat.documents.tree.ignore import Globs
from hga_chat.documents.tree.kinds import Kind, kind_of
from hga_chat.documents.tree.walk import Found, reason_of, shown, walk
from hga_chat.documents.types import (
    Document,
    DocumentError,
    LoadedDocuments,
    Skipped,
    UnreadableError,
)
from hga_chat.documents.unsupported import foreign_kind

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Read:
    """A document that was read, and what it is to the reader."""

    document: Document
    kind: Kind


def load_documents(
    paths: Sequence[str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    stdin: BinaryIO | None = None,
) -> LoadedDocuments:
    """Read files, folders and standard input, all of them; see ``read_documents``.

    Raises:
        DocumentError: A path does not exist or nothing could be read.
    """
    documents, skipped = [], []
    for entry in read_documents(paths, include, exclude, stdin):
        if isinstance(entry, Read):
            documents.append(entry.document)
        else:
            skipped.append(entry)
    return LoadedDocuments(tuple(documents), tuple(skipped))


def read_documents(
    paths: Sequence[str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    stdin: BinaryIO | None = None,
) -> Iterator[Read | Skipped]:
    """Read files, folders and standard input one by one, in reading order.

    What is named itself is read even if it is hidden, ignored, generated or a link; ``include``
    chooses within folders, ``exclude`` everywhere. Documents of a single folder are named relative
    to it, of several folders with the folder before, files as they were given.

    Everything up to the first document happens at once, so that errors are raised here.

    Args:
        paths: Files, folders, or ``-`` for standard input.
        include: Globs in the notation of ``.gitignore``; empty means all.
        exclude: Globs of what to leave out.
        stdin: Where ``-`` reads from; None is the process's standard input.

    Raises:
        DocumentError: A path does not exist or nothing could be read.
    """
    globs = Globs.parse(include, exclude)
    named = list(_named(paths, globs))
    entries = _read(named, stdin or sys.stdin.buffer, choose_by_content=globs.include is None)
    before: list[Read | Skipped] = []
    for entry in entries:
        before.append(entry)
        if isinstance(entry, Read):
            return chain(before, entries)
    skipped = [entry for entry in before if isinstance(entry, Skipped)]
    raise DocumentError(_nothing_readable(paths, skipped, narrowed=bool(include or exclude)))


def _read(
    named: Iterable[Found | Skipped | str], stdin: BinaryIO, *, choose_by_content: bool
) -> Iterator[Read | Skipped]:
    with children_ended():
        for entry in named:
            if isinstance(entry, Skipped):
                yield entry
                continue
            path = entry if isinstance(entry, str) else entry.path
            try:
                if isinstance(entry, Found):
                    document, notes = _load_file(entry)
                    if choose_by_content and not entry.is_named:
                        _refuse_generated(document)
                else:
                    document, notes = _load(entry, stdin)
            except UnreadableError as error:
                yield Skipped(path, str(error))
                continue
            yield Read(document, entry.kind if isinstance(entry, Found) else Kind.FILE)
            yield from (Skipped(path, note) for note in notes)


def _refuse_generated(document: Document) -> None:
    """Raise ``UnreadableError`` for what a program wrote."""
    how = generated_by(document.path, document.sections[0].text)
    if how is not None:
        raise UnreadableError(f"{how}; name it with --include to read it")


def _named(paths: Sequence[str], globs: Globs) -> Iterator[Found | Skipped | str]:
    """Every file behind ``paths`` once, in reading order; ``-`` stands for itself."""
    seen: set[str | Path] = set()
    for path in paths:
        found: Iterable[Found | str]
        if path == STANDARD_INPUT:
            found = (path,)
        else:
            found, passed_over = _find(path, globs, alone=len(paths) == 1)
            yield from passed_over
        for entry in found:
            identity = entry if isinstance(entry, str) else entry.file
            if identity not in seen:
                seen.add(identity)
                yield entry


def _find(path: str, globs: Globs, *, alone: bool) -> tuple[list[Found], list[Skipped]]:
    """The files behind one path that the user gave."""
    given = Path(path)
    if not path:  # would be the folder one stands in
        raise DocumentError("an empty path; name a file or a folder ('.' is this one)")
    try:
        resolved = given.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = "no such file or folder"
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            reason = reason_of(error)
        raise DocumentError(f"{path}: {reason}") from None
    if resolved.is_dir():
        return walk(resolved, "" if alone else shown(given).rstrip("/") + "/", globs)
    named = shown(given)
    if globs.exclude.match_file(named.lstrip("/")):
        return [], [Skipped(named, "excluded")]
    if not resolved.is_file():
        return [], [Skipped(named, "not a regular file; pass it on standard input with -")]
    return [Found(resolved, named, kind_of(PurePath(named)), is_named=True)], []


def _load_file(found: Found) -> tuple[Document, tuple[str, ...]]:
    try:
        with found.file.open("rb") as stream:
            return _load(found.path, stream)
    except OSError as error:
        raise UnreadableError(reason_of(error)) from None


def _load(path: str, stream: BinaryIO) -> tuple[Document, tuple[str, ...]]:
    """Read one document, and what is to be noted about it.

    Raises:
        UnreadableError: With the reason for skipping it.
    """
    head = stream.read(PROBE_BYTES)
    if not head:
        raise UnreadableError("empty")
    kind = format_of(path, head)
    foreign = foreign_kind(path, head) if kind.is_text else None
    if foreign is not None:
        raise UnreadableError(foreign)
    if kind.is_text and is_binary(head):
        raise UnreadableError("binary")
    data = head + stream.read(kind.max_bytes + 1 - len(head))
    if len(data) > kind.max_bytes:
        raise UnreadableError(f"larger than {kind.max_bytes // MEGABYTE} MB")
    reading = kind.read(path, data)
    if not any(section.text.strip() for section in reading.sections):
        raise UnreadableError("empty")
    return Document(path, reading.format or kind.name, reading.sections), reading.notes


def _nothing_readable(paths: Sequence[str], skipped: Sequence[Skipped], *, narrowed: bool) -> str:
    if len(paths) == 1 and [entry.path for entry in skipped] == [shown(Path(paths[0]))]:
        return f"{paths[0]}: {skipped[0].reason}"
    where = paths[0] if len(paths) == 1 else f"{len(paths)} paths"
    counts = Counter(entry.reason for entry in skipped).most_common(4)
    detail = ", ".join(f"{reason}: {count}" for reason, count in counts)
    hint = "; see --include and --exclude" if narrowed else ""
    return f"{where}: nothing readable" + (f" (skipped: {detail})" if detail else "") + hint
