"""Files that changed or went since a session was made are named when it is opened."""

import os
import shutil

from hga_chat.documents.files import resolved
from hga_chat.sessions.changes import changes_note
from hga_chat.sessions.saved import DOCUMENTS
from hga_chat.sessions.store import SessionStore
from tests.support.scripted_conversation import ScriptedConversation, keep


def test_changed_and_missing_files_are_named(tmp_path):
    store = SessionStore(1 << 30, tmp_path / "sessions", tmp_path / "kv")
    conversation = keep(ScriptedConversation().make(print), store)
    saved = conversation.saved
    saved.save(lambda: None, conversation._documents(), ())
    # The documents are logs/sea.txt and logs/book.pdf.
    folder, other = tmp_path / "logs", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    given = {"logs": folder, **resolved([str(other)])}
    loaded_at = (saved.folder / DOCUMENTS).stat().st_mtime
    for name in ("sea.txt", "book.pdf"):
        (folder / name).touch()
        os.utime(folder / name, (loaded_at - 10, loaded_at - 10))
    assert changes_note(saved, given) is None
    os.utime(folder / "sea.txt", (loaded_at + 10, loaded_at + 10))
    note = changes_note(saved, given)
    assert "changed logs/sea.txt." in note
    assert f"hga-chat ingest {folder} {other}" in note
    (folder / "book.pdf").unlink()
    assert "changed logs/sea.txt; gone logs/book.pdf." in changes_note(saved, given)
    assert changes_note(saved, {}) is None
    # Files that were skipped are not new, nor are ignored ones.
    (folder / "crew.jpg").touch()
    (folder / ".gitignore").write_text("*.log\n")
    (folder / "a.log").touch()
    (folder / "new.txt").touch()
    assert "gone logs/book.pdf; new logs/new.txt." in changes_note(saved, given)
    shutil.rmtree(folder)
    assert "gone logs/sea.txt, logs/book.pdf." in changes_note(saved, given)
    conversation.close()
