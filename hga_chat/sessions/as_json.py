"""Converts the parts of a session to JSON values and back."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from hga_chat.documents import Document, LoadedDocuments, Section, Skipped
from hga_chat.scope import Scope
from hga_chat.sessions.files import read_sealed
from hga_chat.sessions.types import (
    Origin,
    SavedDocuments,
    SavedTurn,
    SavedTurns,
    SessionError,
    SessionInfo,
)
from hga_chat.sources import Source
from hga_engine.events import Finished

_T = TypeVar("_T")


def load(path: Path, build: Callable[[Any], _T]) -> _T:
    """Read a sealed file and build what it describes.

    Raises:
        SessionError: the file is missing, damaged or of another version; the text names it.
    """
    content = read_sealed(path)
    try:
        return build(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SessionError(f"{path}: was saved by another version ({error!r}).") from error


def info_as_json(info: SessionInfo) -> dict[str, Any]:
    """Return the content of ``session.json``."""
    return asdict(info)


def info_from_json(content: Any) -> SessionInfo:
    """Reverse ``info_as_json``."""
    fields = _with_tuples(content["origin"], "paths", "include", "exclude")
    if "budget" in fields:  # earlier versions counted groups of 16 tokens
        fields["budget_tokens"] = 16 * fields.pop("budget")
    origin = Origin(**fields)
    return SessionInfo(**{**_with_tuples(content, "given"), "origin": origin})


def documents_as_json(documents: SavedDocuments) -> dict[str, Any]:
    """Return the content of ``documents.json``."""
    entries = [
        {
            "path": document.path,
            "format": document.format,
            "tokens": tokens,
            **_size_and_sum(document),
            "left_out": document.left_out,
            "sections": [asdict(section) for section in document.sections],
        }
        for document, tokens in zip(documents.loaded.documents, documents.tokens, strict=True)
    ]
    return {"documents": entries, "skipped": [asdict(entry) for entry in documents.loaded.skipped]}


def _size_and_sum(document: Document) -> dict[str, Any]:
    text = "".join(section.text for section in document.sections).encode("utf-8", "surrogatepass")
    return {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}


def documents_from_json(content: Any) -> SavedDocuments:
    """Reverse ``documents_as_json``."""
    entries = content["documents"]
    documents = tuple(
        Document(
            entry["path"],
            entry["format"],
            tuple(map(_section, entry["sections"])),
            tuple(entry.get("left_out", ())),
        )
        for entry in entries
    )
    skipped = tuple(Skipped(**entry) for entry in content["skipped"])
    loaded = LoadedDocuments(documents, skipped)
    return SavedDocuments(loaded, tuple(entry["tokens"] for entry in entries))


def _section(entry: Any) -> Section:
    lines = entry["lines"]
    return Section(**{**entry, "lines": None if lines is None else tuple(lines)})


def turns_as_json(saved: SavedTurns) -> dict[str, Any]:
    """Return the content of ``turns.json``."""
    content = asdict(saved)
    for turn in content["turns"]:
        # What is empty is left out, as earlier versions wrote it.
        if not turn["thought"]:
            del turn["thought"]
        if not any(turn["scope"].values()):
            del turn["scope"]
    if not content["dropped"]:
        del content["dropped"]
    return content


def turns_from_json(content: Any) -> SavedTurns:
    """Reverse ``turns_as_json``."""
    dropped = tuple(content.get("dropped", ()))
    return SavedTurns(content["updated"], tuple(map(_turn, content["turns"])), dropped)


def _turn(entry: Any) -> SavedTurn:
    scope = entry.get("scope", {})
    parts = {
        "sources": tuple(Source(**source) for source in entry["sources"]),
        "finished": Finished(**entry["finished"]),
        "scope": Scope(**_with_tuples(scope, *scope)),
    }
    return SavedTurn(**{**_with_tuples(entry, "token_ids"), **parts})


def _with_tuples(entry: Any, *names: str) -> dict[str, Any]:
    return {**entry, **{name: tuple(entry[name]) for name in names}}
