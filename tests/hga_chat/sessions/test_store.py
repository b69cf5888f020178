import errno
import os
import re
import signal
import stat
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hga_chat.documents import Document, LoadedDocuments, Section
from hga_chat.engine_access import access
from hga_chat.sessions import as_json
from hga_chat.sessions.lock import SessionLock
from hga_chat.sessions.store import SessionStore
from hga_chat.sessions.types import (
    Origin,
    SavedDocuments,
    SavedTurn,
    SessionError,
    SessionInUseError,
    SessionMissingError,
)
from hga_chat.sources import Source
from hga_engine.events import Finished

ORIGIN = Origin(("/books/sea.txt",), (), ("*.log",), "scripted", 4096, "hga", 64)
SECTION = Section("sea.txt", "sea.txt", "The sea\nis blue.\n", 1, 2, None)
DOCUMENTS = SavedDocuments(LoadedDocuments((Document("sea.txt", "text", (SECTION,)),), ()), (9,))
TURN = SavedTurn(
    "Which colour?",
    "Blue.",
    (Source("sea.txt", "sea.txt", 2, 2, None, 0.75, "is blue.", 4, 8),),
    Finished("stop", 5, 2, 0.1, 0.2, 40.0, 0.03),
    (7, 8, 9),
)


@pytest.fixture
def store(tmp_path):
    return SessionStore(1 << 30, tmp_path / "sessions", tmp_path / "kv")


@pytest.fixture
def save(store, tmp_path):
    """Saves a session with ``kv`` bytes of K/V; returns its id."""

    def make(title="sea.txt", kv=0, turns=(TURN,), used=None, path="/books/sea.txt"):
        origin = replace(ORIGIN, paths=(path,))
        session = store.create(title, ("sea.txt",), origin, "scripted", "0" * 64)
        session.save(lambda: None, DOCUMENTS, turns)
        if kv:
            session.kv_folder.mkdir()
            (session.kv_folder / "pages").write_bytes(os.urandom(kv))
        session.close()
        if used is not None:
            os.utime(tmp_path / "sessions" / session.info.id / "lock", (used, used))
        return session.info.id

    return make


def test_a_saved_session_is_loaded_unchanged(store, save):
    id_ = save()
    session = store.open(id_)
    assert session.info.origin == ORIGIN
    assert session.documents == DOCUMENTS
    assert session.turns == (TURN,)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", session.info.created)
    session.close()


def test_budgets_of_earlier_versions_are_converted_to_tokens(store, save):
    """Earlier versions counted groups of 16 tokens."""
    content = as_json.info_as_json(store.open(save()).info)
    content["origin"]["budget"] = 64
    del content["origin"]["budget_tokens"]
    assert as_json.info_from_json(content).origin.budget_tokens == 1024


def test_only_the_owner_can_read_anything(store, save, tmp_path):
    save(kv=10)
    folders = [tmp_path / "sessions", tmp_path / "kv", *(tmp_path / "sessions").iterdir()]
    files = [path for path in (tmp_path / "sessions").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert len(files) == 4


def test_a_session_is_found_by_id_prefix_and_title(store, save):
    first, second = save("sea.txt"), save("a book")
    assert re.fullmatch("[0-9a-z]{6}", first)
    assert store.find(first) == first
    assert store.find(first[:5].upper()) == first
    assert store.find("a book") == second


def test_a_session_is_found_by_parts_of_its_title_and_by_its_file(store, save):
    whale, sea = save("Moby-Dick; or, The Whale"), save("The Sea", path="/books/sea30.epub")
    assert store.find("moby-dick; OR, the whale") == whale
    assert store.find("moby") == whale
    assert store.find("sea30.epub") == sea
    assert store.find("SEA30") == sea
    assert store.find("the sea") == sea
    with pytest.raises(SessionMissingError, match="could be"):
        store.find("the ")


def test_a_whole_name_comes_before_a_part(store, save):
    part, whole = save("sea of sand", path="/a.pdf"), save("other", path="/books/sea.pdf")
    assert store.find("sea") == whole
    assert store.find("sea of") == part


def test_titles_are_unique(store, save):
    ids = [save("sea.txt") for _ in range(3)]
    assert [store.title(id_) for id_ in ids] == ["sea.txt", "sea.txt 2", "sea.txt 3"]


def test_missing_and_ambiguous_names_are_errors(store, save, monkeypatch):
    with pytest.raises(SessionMissingError, match="no saved session 'x'"):
        store.find("x")
    with pytest.raises(SessionMissingError):
        store.find("")
    letters = iter("aaaaab" + "aaaaac")
    monkeypatch.setattr("secrets.choice", lambda _: next(letters))
    save(), save()
    with pytest.raises(SessionMissingError, match=r"aaaaa[bc] \(sea\.txt( 2)?\), aaaaa[bc]"):
        store.find("aaa")
    assert store.find("aaaaac") == "aaaaac"


@pytest.mark.parametrize("name", ["session.json", "documents.json", "turns.json"])
def test_a_damaged_file_is_named_with_advice(store, save, tmp_path, name):
    id_ = save()
    path = tmp_path / "sessions" / id_ / name
    path.write_bytes(path.read_bytes().replace(b"sea", b"see").replace(b"Blue", b"Blux"))
    with pytest.raises(SessionError) as caught:
        store.open(id_)
    assert f"{path}: is damaged" in str(caught.value)
    assert f"sessions rm {id_}" in str(caught.value)
    assert store.ids() == [id_]
    store.remove(id_)
    assert store.ids() == []


def test_a_second_process_is_told_who_has_the_session_open(store, save):
    id_ = save()
    session = store.open(id_)
    with pytest.raises(
        SessionInUseError, match=rf"{id_} is open elsewhere \(process {os.getpid()}"
    ):
        store.open(id_)
    with pytest.raises(SessionInUseError):
        store.remove(id_)
    session.close()
    store.open(id_).close()


def test_the_lock_ends_with_the_process(store, save, tmp_path):
    id_ = save()
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        lock = SessionLock(tmp_path / "sessions" / id_ / "lock")
        os.write(tell, b"x")
        signal.pause()
        os._exit(int(lock is None))
    os.read(ready, 1)
    with pytest.raises(SessionInUseError, match=f"process {child}"):
        store.open(id_)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    store.open(id_).close()


def test_a_read_only_session_is_locked_too(store, save, monkeypatch):
    id_ = save()
    really_open = os.open

    def open_(path, flags, *mode):
        if str(path).endswith("lock") and flags & os.O_RDWR:
            raise OSError(errno.EROFS, "Read-only file system")
        return really_open(path, flags, *mode)

    monkeypatch.setattr(os, "open", open_)
    session = store.open(id_)
    with pytest.raises(SessionInUseError):
        store.open(id_)
    session.close()


def test_a_session_that_was_never_saved_leaves_nothing(store, tmp_path):
    session = store.create("sea.txt", (), ORIGIN, "scripted", "0" * 64)
    session.kv_folder.mkdir()
    assert store.ids() == []
    session.close()
    assert list((tmp_path / "sessions").iterdir()) == []
    assert list((tmp_path / "kv").iterdir()) == []


def test_leftovers_of_killed_processes_are_removed(store, save, tmp_path):
    kept = save()
    torn = tmp_path / "sessions" / "torn00"
    torn.mkdir()
    (torn / "documents.json").write_text("half")
    (tmp_path / "kv" / "torn00").mkdir()
    under_way = store.create("sea.txt", (), ORIGIN, "scripted", "0" * 64)
    store.make_room()
    assert {folder.name for folder in (tmp_path / "sessions").iterdir()} == {
        kept,
        under_way.info.id,
    }
    assert list((tmp_path / "kv").iterdir()) == []


def test_a_file_that_cannot_be_removed_is_named_with_its_folder(store, save, monkeypatch):
    id_ = save()

    def refuse(folder):
        raise OSError(errno.EROFS, "Read-only file system", "state.json")

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(OSError, match=f"Read-only file system: '.*/kv/{id_}'"):
        store.remove(id_)


def test_the_limit_removes_the_oldest_kv_but_not_that_of_open_sessions(save, tmp_path):
    now = time.time()
    oldest = save("oldest", kv=300_000, used=now - 300)
    middle = save("middle", kv=300_000, used=now - 200)
    newest = save("newest", kv=300_000, used=now - 100)
    store = SessionStore(500_000, tmp_path / "sessions", tmp_path / "kv")
    session = store.open(oldest)
    os.utime(tmp_path / "sessions" / oldest / "lock", (now - 300, now - 300))
    removed = store.make_room()
    assert [(entry.id, entry.title) for entry in removed] == [
        (middle, "middle"),
        (newest, "newest"),
    ]
    assert all(300_000 <= entry.bytes < 310_000 for entry in removed)
    assert [folder.name for folder in (tmp_path / "kv").iterdir()] == [oldest]
    assert store.turns(middle).turns == (TURN,)
    assert store.ids() == [newest, middle, oldest]  # removing K/V does not count as use
    session.close()


def test_a_fork_has_the_first_turns_and_its_own_title(store, save, monkeypatch):
    copied = []
    monkeypatch.setattr(access, "read_saved", lambda folder: SimpleNamespace(tokens=20))
    monkeypatch.setattr(access, "copy_saved", lambda source, target, tokens: copied.append(tokens))
    old = store.open(save(turns=(TURN, TURN)))
    new = store.fork(old, 1)
    assert new.turns == (TURN,)
    assert (new.info.title, new.info.origin) == ("sea.txt 2", ORIGIN)
    assert copied == [20 - len(TURN.token_ids)]
    assert old.turns == (TURN, TURN)


def test_a_thought_is_saved_with_its_turn(store, save, tmp_path):
    thoughtful = replace(TURN, thought="Is it?")
    id_ = save(turns=(TURN, thoughtful))
    assert store.turns(id_).turns == (TURN, thoughtful)
    # Turns without a thought stay as earlier versions read them.
    (file,) = tmp_path.glob("sessions/*/turns.json")
    assert file.read_text().count('"thought"') == 1
