"""A session that this process has open, and how it is saved."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hga_chat import engine_access
from hga_chat.sessions import as_json
from hga_chat.sessions.files import write_sealed
from hga_chat.sessions.lock import SessionLock
from hga_chat.sessions.types import SavedDocuments, SavedTurn, SavedTurns, SessionInfo
from hga_engine.errors import EngineError

if TYPE_CHECKING:
    from hga_chat.sessions.types import Removed

INFO, DOCUMENTS, TURNS, LOCK = "session.json", "documents.json", "turns.json", "lock"


class SavedSession:
    """A locked session: its folder and its K/V.

    Documents and turns are written before the K/V and say what the session is to hold; the K/V
    records how many tokens it does hold. Whenever the process is killed, the remaining tokens can
    be prefilled again, and no K/V is taken for that of other text.

    Attributes:
        info: what only ``rename`` changes.
        documents: the documents on disk; None: nothing has been saved yet.
        turns: the turns on disk.
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
        """The turns on disk."""
        return self._saved_turns.turns if self._saved_turns else ()

    @property
    def dropped(self) -> tuple[str, ...]:
        """Paths of the documents that are ticked off, on disk."""
        return self._saved_turns.dropped if self._saved_turns else ()

    @property
    def is_new(self) -> bool:
        """Whether nothing has been saved yet."""
        return self.documents is None

    def save(
        self,
        save_kv: Callable[[], None],
        documents: SavedDocuments,
        turns: Sequence[SavedTurn],
        dropped: tuple[str, ...] = (),
    ) -> "list[Removed]":
        """Write what has changed.

        Args:
            save_kv: writes the K/V, such as the engine's ``save``.
            documents: the session's documents.
            turns: its turns.
            dropped: paths of the documents that are ticked off.

        Returns:
            The K/V that was removed to stay within the disk limit.

        Raises:
            OSError, KVStoreError: something could not be written; earlier saves are intact.
        """
        if not self.is_written:
            return []
        is_new = self.is_new
        if documents != self.documents:
            write_sealed(self.folder / DOCUMENTS, as_json.documents_as_json(documents))
        if is_new or tuple(turns) != self.turns or dropped != self.dropped:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            saved = SavedTurns(now, tuple(turns), dropped)
            write_sealed(self.folder / TURNS, as_json.turns_as_json(saved))
            self._saved_turns = saved
        if is_new:
            write_sealed(self.folder / INFO, as_json.info_as_json(self.info))
        self.documents = documents
        save_kv()
        return self._make_room()

    def confirm_documents(self) -> None:
        """Note that the files of the documents still have the text that is on disk.

        Raises:
            OSError: it could not be noted.
        """
        os.utime(self.folder / DOCUMENTS)

    def rename(self, title: str) -> None:
        """Give the session another title.

        Raises:
            OSError: it could not be written.
        """
        self.info = replace(self.info, title=title)
        if not self.is_new:
            write_sealed(self.folder / INFO, as_json.info_as_json(self.info))

    def copy_kv_to(self, new: "SavedSession", tokens: int | None = None, dropped: int = 0) -> None:
        """Copy the first tokens of this session's K/V, if it has any, to a new session.

        Args:
            new: the new session, which has no K/V yet.
            tokens: how many tokens to copy at most; None: no limit.
            dropped: how many tokens to leave out at the end, if there is no limit.

        Raises:
            OSError, EngineError: the K/V cannot be copied; the new session has none.
        """
        access = engine_access.access
        try:
            info = access.read_saved(self.kv_folder)
            if info is not None:
                count = info.tokens - dropped if tokens is None else min(tokens, info.tokens)
                access.copy_saved(self.kv_folder, new.kv_folder, max(count, 0))
        except BaseException:
            new.drop_kv()
            raise

    def set_context(self, context: int, *, keep_kv: bool) -> None:
        """Let the session hold another number of tokens.

        Args:
            context: that number.
            keep_kv: take over the K/V that is saved; else it is removed.

        Raises:
            OSError, EngineError: the K/V cannot be copied; the session is as before.
        """
        access, copy = engine_access.access, self.kv_folder.with_name(f"{self.info.id}.new")
        shutil.rmtree(copy, ignore_errors=True)
        if keep_kv and (info := access.read_saved(self.kv_folder)) is not None:
            access.copy_saved(self.kv_folder, copy, info.tokens, context)
        self.drop_kv()
        if copy.exists():
            copy.rename(self.kv_folder)
        self.info = replace(self.info, origin=replace(self.info.origin, context=context))
        write_sealed(self.folder / INFO, as_json.info_as_json(self.info))

    def kv_tokens(self) -> int:
        """Return for how many tokens there is K/V on disk."""
        try:
            info = engine_access.access.read_saved(self.kv_folder)
        except EngineError:
            return 0
        return info.tokens if info is not None else 0

    def drop_kv(self) -> None:
        """Remove the K/V; it is computed again when the session is next opened."""
        shutil.rmtree(self.kv_folder, ignore_errors=True)

    def close(self) -> None:
        """Let other processes open the session; remove it if it was never saved."""
        if self.is_new:
            self.drop_kv()
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
