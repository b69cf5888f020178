"""Which files of a saved session were changed after it was made."""

from collections.abc import Mapping
from pathlib import Path

from hga_chat.display import displayable
from hga_chat.documents.files import file_of
from hga_chat.sessions.saved import DOCUMENTS, SavedSession

_NAMED = 3


def changes_note(saved: SavedSession, given: Mapping[str, Path]) -> str | None:
    """Return in words which files were written or removed since they were loaded, or None.

    Files are told by their times, not loaded again, so that opening a session stays quick.

    Args:
        saved: The session, which has been saved before.
        given: What the user named, see ``hga_chat.documents.files.resolved``.
    """
    assert saved.documents is not None
    loaded_at = (saved.folder / DOCUMENTS).stat().st_mtime
    changed, gone = [], []
    for document in saved.documents.loaded.documents:
        path = file_of(document.path, given)
        if path is None:
            continue
        try:
            if path.stat().st_mtime > loaded_at:
                changed.append(document.path)
        except OSError:
            gone.append(document.path)
    if not changed and not gone:
        return None
    parts = [_part("changed", changed), _part("gone", gone)]
    paths = " ".join(displayable(str(place)) for place in given.values())
    return (
        f"Since the documents were read: {'; '.join(part for part in parts if part)}. Answers "
        f"use the old text; 'hga-chat ingest {paths}' reads it again from the first change."
    )


def _part(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{what} {', '.join(map(displayable, names[:_NAMED]))}{more}"
