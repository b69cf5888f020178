"""A session that this process has open, and what it writes."""

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hga_chat.sessions import as_json
from hga_chat.sessions.files import write_sealed
from hga_chat.sessions.lock import SessionLock
from hga_chat.sessions.types import SavedDocuments, SavedTurn, SavedTurns, SessionInfo

if TYPE_CHECKING:
    from hga_chat.sessions.types import Removed

INFO, DOCUMENTS, TURNS, LOCK = "session.json", "documents.json", "turns.json", "lock"


class SavedSession:
    """A locked session: its folder, its K/V and what stands in them.

    What is saved last decides. Documents and turns are written before the K/V, and only name what
    the session has to hold; the K/V says by itself how far it holds that. So whichever of them a
    process was killed between, the rest can be read again and nothing is taken for what it is not.

    Attributes:
        info: what the session is.
        documents: as they stand on the disk; None: nothing was saved yet.
        turns: as they stand on the disk.
        is_written: whether saving writes anything.
    """

    def __init__(
        self,
        folder: Path,
        kv_folder: Path,
        lock: SessionLock,
        info: SessionInfo,
        documents: SavedDocuments | None = None,
        turns: SavedTurns | None = None,
        make_room: "Callable[[], list[Removed]]" = list,
    ) -> None:
        self.folder = folder
        self.kv_folder = kv_folder
        self.info = info
        self.documents = documents
        self.is_written = True
        self._saved_turns = turns
        self._lock = lock
        self._make_room = make_room

    @property
    def turns(self) -> tuple[SavedTurn, ...]:
        """The turns on the disk."""
        return self._saved_turns.turns if self._saved_turns else ()

    @property
    def is_new(self) -> bool:
        """Whether nothing was saved yet."""
        return self.documents is None

    def save(
        self,
        save_state: Callable[[], None],
        documents: SavedDocuments,
        turns: Sequence[SavedTurn],
    ) -> "list[Removed]":
        """Write what has changed.

        Args:
            save_state: writes the K/V, the engine's ``save``.
            documents: the session's documents.
            turns: the turns about them.

        Returns:
            Whose K/V was removed to keep within the limit on disk.

        Raises:
            OSError, KVStoreError: something could not be written; what was saved before still is.
        """
        if not self.is_written:
            return []
        is_new = self.is_new
        if documents != self.documents:
            write_sealed(self.folder / DOCUMENTS, as_json.documents_as_json(documents))
        if is_new or tuple(turns) != self.turns:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            saved = SavedTurns(now, tuple(turns))
            write_sealed(self.folder / TURNS, as_json.turns_as_json(saved))
            self._saved_turns = saved
        if is_new:
            write_sealed(self.folder / INFO, as_json.info_as_json(self.info))
        self.documents = documents
        save_state()
        return self._make_room()

    def copy_state_to(
        self, new: "SavedSession", tokens: int | None = None, dropped: int = 0
    ) -> None:
        """Give a new session the beginning of this one's K/V, as far as there is any.

        Args:
            new: has no K/V yet.
            tokens: how many of the first tokens at most; None: no limit.
            dropped: how many tokens to leave out at the end.

        Raises:
            OSError, EngineError: it cannot be copied; the new session has none.
        """
        from hga_engine import saved_state

        try:
            held = saved_state.read_info(self.kv_folder)
            if held is not None:
                kept = held.tokens - dropped if tokens is None else min(tokens, held.tokens)
                saved_state.fork(self.kv_folder, new.kv_folder, max(kept, 0))
        except BaseException:
            new.drop_state()
            raise

    def drop_state(self) -> None:
        """Remove the K/V; the documents are read again when the session is opened next."""
        shutil.rmtree(self.kv_folder, ignore_errors=True)

    def close(self) -> None:
        """Let other processes open the session; one that was never saved is gone."""
        if self.is_new:
            self.drop_state()
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
