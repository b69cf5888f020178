"""All saved sessions: find, create, open and remove them, and limit the disk they take."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePath

from hga_chat.paths import kv_dir, sessions_dir
from hga_chat.sessions import as_json
from hga_chat.sessions.files import disk_bytes
from hga_chat.sessions.lock import SessionLock
from hga_chat.sessions.saved import DOCUMENTS, INFO, LOCK, TURNS, SavedSession
from hga_chat.sessions.types import (
    Origin,
    Removed,
    SavedDocuments,
    SavedTurns,
    SessionError,
    SessionInfo,
    SessionInUseError,
    SessionMissingError,
)

_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32, without letters that look like others."""
_ID_LETTERS = 6


class SessionStore:
    """The sessions in one folder and their K/V in another; both have a subfolder per session."""

    def __init__(self, limit: int, sessions: Path | None = None, kv: Path | None = None) -> None:
        """Set the folders and the disk limit.

        Args:
            limit: bytes on disk, enforced whenever a session is saved.
            sessions: folder of documents and turns; None: the user's.
            kv: folder of K/V; None: the user's.
        """
        self._limit = limit
        self._sessions = sessions or sessions_dir()
        self._kv = kv or kv_dir()

    def ids(self) -> list[str]:
        """Return all session ids, damaged ones included, most recently used first."""
        found = [folder.name for folder in _folders(self._sessions) if (folder / INFO).exists()]
        return sorted(found, key=self._last_used, reverse=True)

    def find(self, name: str) -> str:
        """Return the id of the session that a person means by a name.

        That is an id; a title; the beginning of an id; the name of a file or folder that was
        given, with or without its suffix; or a part of a title or of such a name. Letters count
        alike in both cases, and the first of these that any session has decides.

        Raises:
            SessionMissingError: no session matches, or more than one.
        """
        ids = self.ids()
        if name in ids:
            return name
        titles = {id_: self.title(id_) for id_ in ids}
        found = [id_ for id_ in ids if titles[id_] == name] or self._like(name.lower(), titles)
        if len(found) == 1:
            return found[0]
        if found:
            named = ", ".join(f"{id_} ({titles[id_]})" for id_ in found[:5])
            raise SessionMissingError(f"{name!r} could be {named}. Type more of the id.")
        raise SessionMissingError(
            f"There is no saved session {name!r}. 'hga-chat sessions list' shows all sessions."
        )

    def _like(self, name: str, titles: dict[str, str]) -> list[str]:
        """Return the sessions that a name in lower case stands for, see ``find``."""
        if not name:
            return []
        files = {id_: self._given_names(id_) for id_ in titles}
        texts = {id_: [title.lower(), *files[id_]] for id_, title in titles.items()}
        tests: tuple[Callable[[str], bool], ...] = (
            lambda id_: texts[id_][0] == name,
            lambda id_: id_.startswith(name),
            lambda id_: any(name in (file, PurePath(file).stem) for file in files[id_]),
            lambda id_: any(name in text for text in texts[id_]),
        )
        return next((found for test in tests if (found := [*filter(test, titles)])), [])

    def _given_names(self, id_: str) -> list[str]:
        """Return the names of the files and folders of a session, in lower case."""
        try:
            return [PurePath(path).name.lower() for path in self.info(id_).origin.paths]
        except SessionError:
            return []

    def info(self, id_: str) -> SessionInfo:
        """Load a session's title and origin.

        Raises:
            SessionError: its file is damaged.
        """
        return as_json.load(self._sessions / id_ / INFO, as_json.info_from_json)

    def documents(self, id_: str) -> SavedDocuments:
        """Load a session's documents.

        Raises:
            SessionError: their file is damaged.
        """
        return as_json.load(self._sessions / id_ / DOCUMENTS, as_json.documents_from_json)

    def turns(self, id_: str) -> SavedTurns:
        """Load a session's turns.

        Raises:
            SessionError: their file is damaged.
        """
        return as_json.load(self._sessions / id_ / TURNS, as_json.turns_from_json)

    def kv_folder(self, id_: str) -> Path:
        """Return the folder of a session's K/V; it may not exist."""
        return self._kv / id_

    def disk_bytes(self, id_: str) -> int:
        """Return the bytes a session takes on disk, its K/V included."""
        return disk_bytes(self._sessions / id_) + disk_bytes(self._kv / id_)

    def open(self, id_: str) -> SavedSession:
        """Open a session; no other process can until it is closed.

        Raises:
            SessionInUseError: another process has it open.
            SessionError: it is damaged; the text names the file and says what to do.
            OSError: it cannot be locked.
        """
        lock = self._lock(id_)
        try:
            info, documents, turns = self.info(id_), self.documents(id_), self.turns(id_)
        except SessionError as error:
            lock.release()
            raise SessionError(
                f"{error}\n'hga-chat sessions rm {id_}' removes the session; "
                "'hga-chat ingest' reads its documents into a new one."
            ) from error
        return self._saved(lock, info, documents, turns)

    def create(
        self, title: str, given: tuple[str, ...], origin: Origin, model_name: str, fingerprint: str
    ) -> SavedSession:
        """Create and open a session; closing it removes it again unless it has been saved.

        Args:
            title: its name for people; a number is added if it is taken.
            given: the paths as the user typed them.
            origin: where the documents come from and how they are prefilled.
            model_name: the model's name, for reports.
            fingerprint: SHA-256 over the model's files.

        Raises:
            OSError: the folder cannot be created.
        """
        os.makedirs(self._sessions, mode=0o700, exist_ok=True)
        os.makedirs(self._kv, mode=0o700, exist_ok=True)
        while True:
            id_ = "".join(secrets.choice(_LETTERS) for _ in range(_ID_LETTERS))
            try:
                (self._sessions / id_).mkdir(mode=0o700)
                lock = SessionLock(self._sessions / id_ / LOCK)
            except (FileExistsError, FileNotFoundError, SessionInUseError, SessionMissingError):
                # The id is taken, or another process has just swept the folder away.
                continue
            break
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        title = self._free_title(title)
        info = SessionInfo(id_, title, created, given, origin, model_name, fingerprint)
        return self._saved(lock, info)

    def _saved(
        self,
        lock: SessionLock,
        info: SessionInfo,
        documents: SavedDocuments | None = None,
        turns: SavedTurns | None = None,
    ) -> SavedSession:
        folder, kv_folder = self._sessions / info.id, self._kv / info.id
        return SavedSession(folder, kv_folder, lock, info, documents, turns, self.make_room)

    def fork(self, old: SavedSession, turns: int | None) -> SavedSession:
        """Copy a session with its first turns, or all if None; return the open copy.

        Raises:
            OSError, EngineError: it cannot be copied.
        """
        assert old.documents is not None
        info = old.info
        first, dropped = old.turns[:turns], () if turns is None else old.turns[turns:]
        new = self.create(info.title, info.given, info.origin, info.model_name, info.fingerprint)
        try:
            old.copy_kv_to(new, dropped=sum(len(turn.token_ids) for turn in dropped))
            new.save(lambda: None, old.documents, first, old.dropped)
        except BaseException:
            new.close()
            raise
        return new

    def rename(self, id_: str, title: str) -> str:
        """Give a session another title; return it, with a number added if it was taken.

        Raises:
            SessionInUseError: another process has it open.
            SessionError: it is damaged.
            OSError: it cannot be written.
        """
        saved = self.open(id_)
        try:
            if title != saved.info.title:
                saved.rename(self._free_title(title))
        finally:
            saved.close()
        return saved.info.title

    def remove(self, id_: str) -> int:
        """Remove a session and its K/V; return the freed bytes.

        Raises:
            SessionInUseError: another process has it open.
            OSError: a file cannot be removed.
        """
        lock = self._lock(id_)
        try:
            freed = self.disk_bytes(id_)
            self._remove_locked(id_)
        finally:
            lock.release()
        return freed

    def _remove_locked(self, id_: str) -> None:
        _remove_folder(self._kv / id_)
        # Without this file the session is gone, even if the rest cannot be removed.
        (self._sessions / id_ / INFO).unlink(missing_ok=True)
        _remove_folder(self._sessions / id_)

    def total_bytes(self) -> int:
        """Return the bytes that all sessions take on disk."""
        return disk_bytes(self._sessions) + disk_bytes(self._kv)

    def make_room(self) -> list[Removed]:
        """Remove K/V, least recently used first, until all sessions are within the limit.

        Documents and turns stay, and so do open sessions.

        Raises:
            OSError: a file cannot be removed.
        """
        self._sweep()
        removed: list[Removed] = []
        for id_ in self._kv_by_last_use():
            if self.total_bytes() <= self._limit:
                break
            freed = disk_bytes(self._kv / id_)
            try:
                is_there = (self._sessions / id_).exists()
                lock = self._lock(id_, is_use=False) if is_there else None
            except (SessionInUseError, SessionMissingError, FileNotFoundError):
                continue
            try:
                _remove_folder(self._kv / id_)
            finally:
                if lock is not None:
                    lock.release()
            removed.append(Removed(id_, self.title(id_), freed))
        return removed

    def _sweep(self) -> None:
        """Remove the folders that killed processes left of sessions that were never saved."""
        for folder in _folders(self._sessions):
            if (folder / INFO).exists():
                continue
            try:
                lock = self._lock(folder.name, is_use=False)
            except (SessionInUseError, SessionMissingError, FileNotFoundError):
                continue
            try:
                if not (folder / INFO).exists():  # else it has just been saved and closed
                    self._remove_locked(folder.name)
            finally:
                lock.release()

    def _kv_by_last_use(self) -> list[str]:
        """Return the sessions with K/V, least recently used first; removed sessions lead."""
        return sorted((folder.name for folder in _folders(self._kv)), key=self._last_used)

    def _last_used(self, id_: str) -> float:
        try:
            return (self._sessions / id_ / LOCK).stat().st_mtime
        except OSError:
            return 0.0

    def _lock(self, id_: str, *, is_use: bool = True) -> SessionLock:
        return SessionLock(self._sessions / id_ / LOCK, is_use=is_use)

    def title(self, id_: str) -> str:
        """Return a session's title, or "damaged"."""
        try:
            return self.info(id_).title
        except SessionError:
            return "damaged"

    def _free_title(self, title: str) -> str:
        taken = {self.title(id_) for id_ in self.ids()}
        number, free = 1, title
        while free in taken:
            number += 1
            free = f"{title} {number}"
        return free


def _folders(parent: Path) -> Iterator[Path]:
    """Yield the folders of sessions; none if nothing has been saved yet."""
    try:
        yield from (entry for entry in sorted(parent.iterdir()) if entry.is_dir())
    except FileNotFoundError:
        return


def _remove_folder(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:  # its file name lacks the folder
        raise OSError(error.errno, error.strerror, str(folder)) from error
