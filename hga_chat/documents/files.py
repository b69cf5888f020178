"""Where the files of documents are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hga_chat.documents.tree.walk import path_text
from hga_chat.documents.types import STANDARD_INPUT


def resolved(paths: Sequence[str]) -> dict[str, Path]:
    """Return paths as the user gave them with where they are; standard input is nowhere."""
    return {path: Path(path).resolve() for path in paths if path != STANDARD_INPUT}


def file_of(path: str, given: Mapping[str, Path]) -> Path | None:
    """Return the file of a document, whether it still exists or not; None if there is none.

    Args:
        path: The document's, as ``iter_documents`` names it.
        given: What the user named, see ``resolved``.
    """
    for name, place in given.items():
        named = path_text(Path(name)).rstrip("/")
        if path == named and not place.is_dir():
            return place
        folder = named + "/"
        if len(given) > 1 and path.startswith(folder):
            return place / path.removeprefix(folder)
    if len(given) == 1:
        (place,) = given.values()
        return place / path if place.is_dir() else None
    return None
