"""Where the files of documents are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hga_chat.documents.tree.ignore import Globs
from hga_chat.documents.tree.walk import path_text, walk
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


def files_below(
    given: Mapping[str, Path], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[str]:
    """Return the paths of the files in the folders that the user named, as documents are named.

    Files are not opened, so some of them may be skipped when they are loaded.

    Args:
        given: What the user named, see ``resolved``.
        include: Globs, as for ``iter_documents``.
        exclude: Likewise.

    Raises:
        DocumentError: A folder cannot be listed.
    """
    globs = Globs.parse(include, exclude)
    found: list[str] = []
    for name, place in given.items():
        if place.is_dir():
            prefix = "" if len(given) == 1 else path_text(Path(name)).rstrip("/") + "/"
            found += [entry.path for entry in walk(place, prefix, globs)[0]]
    return found
