"""Changes of an open session: what they cost, and that it is opened again with them."""

import json
import os
import time
from types import SimpleNamespace

import pytest

from hga_chat import engine_access
from hga_chat.errors import describe
from hga_chat.models import ModelMissingError
from hga_chat.screen.changes import Change, Offer
from hga_chat.screen.run import Ended
from hga_chat.sessions.saved import DOCUMENTS
from hga_chat.sessions.store import SessionStore
from hga_engine.config import SamplingParams
from hga_engine.errors import EngineError, HostMemoryError
from hga_engine.prediction import Ledger

NATIVE = 65_536
"""Of the scripted model."""


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line {n} says calm\n" for n in range(200)))
    return path


@pytest.fixture
def store(cli):
    return SessionStore(1 << 40)


@pytest.fixture
def screens(cli, monkeypatch):
    """Plays the screen: asks a question, then makes the changes in turn; returns what it saw."""

    def play(changes, *arguments, question="Is it?"):
        seen, left = [], [Change(*change) for change in changes]

        def run_screen(make_conversation, sampling, theme, plain, alerts, first_message, consider):
            conversation = make_conversation(lambda *_: None)
            for _ in conversation.prefill():
                pass
            conversation.save()
            screen = SimpleNamespace(
                context=conversation.engine.config.cache.context,
                turns=[turn.text for turn in conversation.turns],
                notes=conversation.notes,
                offer=None,
                id=conversation.saved and conversation.saved.info.id,
            )
            seen.append(screen)
            if len(seen) == 1 and question:
                for _ in conversation.ask(question, SamplingParams()):
                    pass
                conversation.save()
            change = None
            if left:
                try:
                    screen.offer = consider(conversation, left.pop(0))
                except EngineError as error:  # as the engine's thread does
                    screen.offer = Offer(describe(error), None)
                change = screen.offer.change
            conversation.close()
            return Ended([], change)

        monkeypatch.setattr("hga_chat.screen.run.run_screen", run_screen)
        for stream in ("stdin", "stdout", "__stderr__"):
            monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
        ran = cli(*arguments)
        assert ran.code == 0, ran.err
        return seen

    return play


def test_a_longer_context_within_the_native_one_takes_the_kv_over(screens, use_engine, book, store):
    engine = use_engine("Yes.")
    first, second = screens([("context", "32768")], "ingest", book, "--context", "16384")
    assert (first.context, second.context) == (16_384, 32_768)
    assert not first.offer.is_asked
    assert second.turns == ["Yes."]
    assert "Resumed; nothing needs reading again." in second.notes
    assert len(engine.reads) == 1
    assert store.ids() == [first.id] == [second.id]
    assert store.info(first.id).origin.context == 32_768


def test_beyond_the_native_context_all_is_read_again_after_asking(screens, use_engine, book, store):
    engine = use_engine("Yes.")
    first, second = screens([("context", "131,072")], "ingest", book)
    held = engine.reads[0] + len(engine.prompts[0]) + len(["Yes", "."])
    assert first.offer.is_asked
    assert f"native context is {NATIVE:,} tokens" in first.offer.text
    assert f"all {held:,} tokens are read again, about " in first.offer.text
    assert "1 turn will be" not in first.offer.text
    assert second.turns == ["Yes."]
    assert any(f"native context is {NATIVE:,} tokens; YaRN x2" in note for note in second.notes)
    assert len(engine.reads) == 2
    assert store.ids() == [second.id]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("much", "such as /context 65536"),
        ("65536", "holds 65,536 tokens already"),
        ("512", "the context must be at least 1,024"),
        ("99999999999", "Not enough memory"),
    ],
)
def test_a_context_that_cannot_be_is_refused(screens, use_engine, book, value, problem):
    use_engine("Yes.")
    (only,) = screens([("context", value)], "ingest", book)
    assert only.offer.change is None
    assert problem in only.offer.text


def test_what_does_not_open_is_opened_as_before(screens, use_engine, book, store, monkeypatch):
    use_engine("Yes.")
    access, opened = engine_access.access, []
    load_model = access.load_model

    def fail_once(files, config, device, progress):
        opened.append(config.cache.context)
        if config.cache.context == 32_768:
            raise HostMemoryError(Ledger(1 << 30, 0, 0, 0, 0, 32_768), 1 << 20)
        return load_model(files, config, device, progress)

    monkeypatch.setattr(access, "load_model", fail_once)
    first, second = screens([("context", "32768")], "ingest", book, "--context", "16384")
    assert opened == [16_384, 32_768, 16_384]
    assert "Not enough memory" in second.notes[0]
    assert (second.turns, second.id) == (["Yes."], first.id)
    assert "Resumed; nothing needs reading again." in second.notes


def test_a_chat_that_is_not_saved_is_read_again(screens, use_engine, book, store):
    engine = use_engine("Yes.")
    first, second = screens([("context", "32768")], "ingest", book, "--no-save")
    assert first.offer.is_asked
    assert "This chat is not saved" in first.offer.text
    assert "1 turn will be forgotten." in first.offer.text
    assert (second.context, second.turns) == (32_768, [])
    assert len(engine.reads) == 2
    assert store.ids() == []


def test_another_model_gets_a_session_of_its_own(screens, use_engine, book, store, monkeypatch):
    engine = use_engine("Yes.")
    monkeypatch.setattr("hga_chat.cli.changes._require_memory", lambda *_: None)
    (first, second, third) = screens(
        [("model", "qwen3-4b"), ("model", "qwen2.5-coder-0.5b")],
        *("ingest", book, "--model", "qwen2.5-coder-0.5b"),
    )
    assert first.offer.is_asked
    assert f"all {engine.reads[0]:,} tokens are read again, about " in first.offer.text
    assert "The answers so far stay in this session" in first.offer.text
    assert second.turns == []
    assert second.id != first.id
    assert store.info(second.id).origin.model == "qwen3-4b"
    # Back at the first model, its session is there as it was.
    assert (third.id, third.turns) == (first.id, ["Yes."])
    assert len(engine.reads) == 2


def test_a_model_that_is_missing_or_too_small_is_refused(screens, use_engine, book, monkeypatch):
    use_engine("Yes.", "Yes.", "Yes.")
    monkeypatch.setattr("hga_engine.opening.usable_gpu", lambda: None)
    monkeypatch.setattr("hga_chat.cli.changes._require_memory", lambda *_: None)
    access = engine_access.access
    monkeypatch.setattr(access, "native_context", lambda files: 1024)
    (small,) = screens([("model", "qwen3-4b")], "ingest", book, "--context", "4096")
    assert "qwen3-4b has room for 0" in small.offer.text
    find = access.find_model

    def missing(name):
        if name.startswith("qwen3-30b"):
            raise ModelMissingError(f"run 'hga-chat models pull {name}'")
        return find(name)

    monkeypatch.setattr(access, "find_model", missing)
    (here,) = screens([("model", "qwen3-30b-a3b")], "ingest", book, "--context", "4096")
    assert here.offer.change is None
    assert here.offer.text.startswith("qwen3-30b-a3b needs an NVIDIA GPU with 32 GB")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "notes"
    path.mkdir()
    for name in ("a.txt", "b.txt", "c.txt"):
        (path / name).write_text("".join(f"line {n} of {name} says calm\n" for n in range(60)))
    return path


def change(path, text):
    """Write a file as if it were some time after the documents were loaded."""
    path.write_text(text)
    later = time.time() + 10
    os.utime(path, (later, later))


def test_changed_files_are_loaded_from_the_first_change_on(screens, cli, use_engine, folder, store):
    engine = use_engine("Yes.", "No.")
    id_ = cli("ingest", folder, "--no-chat").out.strip()
    whole = sum(engine.reads)
    reads = len(engine.reads)
    assert cli("ask", "--session", id_, "Is it?").code == 0
    change(folder / "b.txt", "Now it is rough.\n")
    change(folder / "d.txt", "A new one.\n")
    first, second = screens([("documents", "files")], "chat", id_, question="")
    assert any("changed b.txt; new d.txt. Answers use the old text" in n for n in first.notes)
    assert first.offer.is_asked
    assert "changed b.txt; new d.txt. From the first of them on, " in first.offer.text
    assert "The answers so far stay in this session" in first.offer.text
    assert (second.turns, second.id == id_) == ([], False)
    documents = store.documents(second.id).loaded.documents
    assert [document.path for document in documents] == ["a.txt", "b.txt", "c.txt", "d.txt"]
    assert "rough" in documents[1].sections[0].text
    # a.txt is a third of the text that was read at first, and is not read again; b.txt is short.
    assert 0 < sum(engine.reads[reads:]) < 0.6 * whole
    assert store.turns(id_).turns[0].text == "Yes."


def test_files_that_were_only_written_keep_the_session(screens, cli, use_engine, folder, store):
    engine = use_engine("Yes.")
    id_ = cli("ingest", folder, "--no-chat").out.strip()
    reads = [*engine.reads]
    change(folder / "b.txt", (folder / "b.txt").read_text())
    saved = store._sessions / id_ / DOCUMENTS
    first, second = screens([("documents", "files")], "chat", id_, question="")
    assert "changed b.txt" in first.offer.text
    assert second.id == id_
    assert "their text has not changed" in second.notes[0]
    assert engine.reads == [*reads, 256]  # to tell how long reading takes
    os.utime(folder / "b.txt", (saved.stat().st_mtime - 1,) * 2)
    (only,) = screens([("documents", "files")], "chat", id_, question="")
    assert only.offer.text == "No file has changed since the documents were read."


def test_files_that_cannot_be_loaded_leave_the_session_open(screens, cli, use_engine, folder):
    use_engine()
    id_ = cli("ingest", folder, "--no-chat").out.strip()
    for path in folder.iterdir():
        path.unlink()
    first, second = screens([("documents", "files")], "chat", id_, question="")
    assert "gone a.txt, b.txt, c.txt" in first.offer.text
    assert second.id == id_
    assert "nothing to load" in second.notes[0]


def test_ticks_are_kept_when_changed_files_are_loaded(screens, cli, use_engine, folder, store):
    use_engine("Yes.", "No.")
    id_ = cli("ingest", folder, "--no-chat").out.strip()
    assert cli("ask", "--session", id_, "Is it?").code == 0
    saved = store.open(id_)
    saved.save(lambda: None, saved.documents, saved.turns, ("a.txt", "c.txt"))
    saved.close()
    ran = cli("ask", "--session", id_, "--json", "And now?")
    assert json.loads(ran.out)["without"] == ["a.txt", "c.txt"]
    assert "Ticked off: a.txt, c.txt." in ran.err
    (folder / "c.txt").unlink()
    _, second = screens([("documents", "files")], "chat", id_, question="")
    assert store.turns(second.id).dropped == ("a.txt",)


def test_other_instructions_get_a_session_of_their_own(screens, use_engine, book, store):
    engine = use_engine("Yes.")
    first, second = screens([("system", "Be brief.")], "ingest", book)
    assert first.offer.is_asked
    assert "Instructions stand before the documents, so all " in first.offer.text
    assert second.turns == []
    assert second.id != first.id
    assert store.info(second.id).origin.system == "Be brief."
    assert engine.tokenizer.decode(engine.session).startswith("Be brief.")
    (third,) = screens([], "chat", second.id, question=None)
    assert third.id == second.id
    assert "Resumed; nothing needs reading again." in third.notes
    assert len(engine.reads) == 2


def test_a_copy_is_called_like_its_session(screens, cli, use_engine, book, store):
    use_engine("Yes.")
    id_ = cli("ingest", book, "--no-chat").out.strip()
    store.rename(id_, "A calm book")
    _, second = screens([("system", "Be brief.")], "chat", id_)
    assert store.title(second.id) == "A calm book 2"


def test_instructions_of_ask_stand_before_the_documents(cli, use_engine, book):
    engine = use_engine("Yes.")
    assert cli("ask", book, "Is it?", "--system", "Be brief.").code == 0
    assert engine.tokenizer.decode(engine.session).startswith("Be brief.")
