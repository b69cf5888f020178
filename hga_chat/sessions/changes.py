"""Which files of a saved session were changed, removed or added after it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hga_chat.display import displayable
from hga_chat.documents import DocumentError
from hga_chat.documents.files import file_of, files_below
from hga_chat.sessions.saved import DOCUMENTS, SavedSession

_NAMED = 3


@dataclass(frozen=True)
class Changes:
    """Paths of documents, as ``iter_documents`` names them."""

    changed: tuple[str, ...]
    gone: tuple[str, ...]
    new: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changed or self.gone or self.new)

    def as_text(self) -> str:
        """Return what has changed, without a full stop."""
        parts = [
            _part("changed", self.changed),
            _part("gone", self.gone),
            _part("new", self.new),
        ]
        return f"Since the documents were read: {'; '.join(part for part in parts if part)}"


def changes_of(saved: SavedSession, given: Mapping[str, Path]) -> Changes:
    """Find the files that were written, removed or added since the documents were loaded.

    Files are told by their times and names, not loaded again, so that opening a session stays
    quick. New are those that ``ingest`` would load by the session's globs; with ``--fit``, none.

    Args:
        saved: The session, which has been saved before.
        given: What the user named, see ``hga_chat.documents.files.resolved``.
    """
    assert saved.documents is not None
    loaded, origin = saved.documents.loaded, saved.info.origin
    loaded_at = (saved.folder / DOCUMENTS).stat().st_mtime
    changed, gone = [], []
    for document in loaded.documents:
        path = file_of(document.path, given)
        if path is None:
            continue
        try:
            if path.stat().st_mtime > loaded_at:
                changed.append(document.path)
        except OSError:
            gone.append(document.path)
    known = {document.path for document in loaded.documents}
    known |= {entry.path for entry in loaded.skipped}
    found: list[str] = []
    if not origin.fit:
        try:
            found = files_below(given, origin.include, origin.exclude)
        except DocumentError:  # the folder is gone, and its files are named
            found = []
    new = [path for path in found if path not in known]
    return Changes(tuple(changed), tuple(gone), tuple(new))


def changes_note(saved: SavedSession, given: Mapping[str, Path]) -> str | None:
    """Return in words what has changed since the documents were loaded, or None."""
    changes = changes_of(saved, given)
    if not changes:
        return None
    paths = " ".join(displayable(str(place)) for place in given.values())
    return (
        f"{changes.as_text()}. Answers use the old text; /reload in the chat, or "
        f"'hga-chat ingest {paths}', reads it again from the first change."
    )


def _part(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{what} {', '.join(map(displayable, names[:_NAMED]))}{more}"
