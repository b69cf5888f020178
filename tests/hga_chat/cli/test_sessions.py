"""Saved sessions on the command line, with a scripted engine."""

import io
import json

import pytest

from hga_chat.screen.run import Ended
from hga_chat.sessions.store import SessionStore
from hga_engine.errors import KVStoreError

CHUNK = 64


@pytest.fixture
def folder(tmp_path):
    """Three files of 201 tokens each, besides their headers."""
    root = tmp_path / "log"
    root.mkdir()
    for name in "abc":
        (root / f"{name}.txt").write_text("".join(f"{name}{n} was calm.\n" for n in range(40)))
    return root


@pytest.fixture
def store(cli, tmp_path):
    return SessionStore(1 << 40)


@pytest.fixture
def ingest(cli):
    """Runs ``ingest --no-chat``; returns the object it prints."""

    def run(*arguments):
        ran = cli("ingest", "--no-chat", "--json", *arguments)
        assert ran.code == 0, ran.err
        return json.loads(ran.out)

    return run


@pytest.fixture
def ask(cli):
    """Asks a question in a session; returns the answer."""

    def run(session, question="Is it?"):
        ran = cli("ask", "--session", session, question)
        assert ran.code == 0, ran.err
        return ran.out.strip()

    return run


def kv(tmp_path, id_):
    return tmp_path / "xdg-cache" / "hga-chat" / "kv" / id_


def files(tmp_path, id_):
    return tmp_path / "xdg-data" / "hga-chat" / "sessions" / id_


def text(engine):
    return engine.tokenizer.decode(engine.session)


def test_ingest_prints_the_id_and_the_figures(cli, use_engine, folder, store):
    engine = use_engine()
    ran = cli("ingest", "--no-chat", folder)
    (id_,) = store.ids()
    assert (ran.code, ran.out) == (0, f"{id_}\n")
    assert f"log: {engine.reads[0]:,} of {engine.reads[0]:,} tokens read" in ran.err
    assert engine.closed


def test_ingest_as_json(ingest, use_engine, folder, store):
    engine = use_engine()
    found = ingest(folder)
    assert found["session"] == store.ids()[0]
    assert found["title"] == "log"
    assert [document["path"] for document in found["documents"]] == ["a.txt", "b.txt", "c.txt"]
    assert found["tokens"] == sum(document["tokens"] for document in found["documents"])
    assert found["read_tokens"] == engine.reads[0] == 1 + found["tokens"]
    assert set(found["timing"]) == {"load_s", "prefill_s", "save_s"}
    assert (found["turns"], found["skipped"]) == (0, [])
    assert found["disk_bytes"] > 0


def test_unchanged_documents_are_not_prefilled_again(cli, ingest, use_engine, folder, store):
    engine = use_engine()
    first = ingest(folder)
    ran = cli("ingest", "--no-chat", folder)
    assert ran.out == f"{first['session']}\n"
    assert "nothing needs reading again" in ran.err
    assert len(engine.reads) == 1
    assert store.ids() == [first["session"]]


def test_a_relative_path_finds_the_saved_session(ingest, use_engine, folder, monkeypatch):
    engine = use_engine()
    first = ingest(folder)
    monkeypatch.chdir(folder.parent)
    assert ingest("log")["session"] == first["session"]
    assert len(engine.reads) == 1


@pytest.mark.parametrize(
    "change",
    [("--budget", "128"), ("--context", "4096"), ("--exclude", "b.*"), ("--redact",), ("--fit",)],
)
def test_other_settings_make_another_session(ingest, use_engine, folder, store, change):
    engine = use_engine()
    ingest(folder)
    ingest(folder, *change)
    assert len(engine.reads) == len(store.ids()) == 2


def test_a_change_is_prefilled_from_its_chunk_on(cli, ingest, use_engine, folder, store):
    engine = use_engine()
    first = ingest(folder)
    before = list(engine.session)
    content = (folder / "c.txt").read_text()
    (folder / "c.txt").write_text(content.replace("c30 was calm", "c30 was rough"))
    ran = cli("ingest", "--no-chat", folder)
    same = next(n for n, token in enumerate(engine.session) if token != before[n])
    assert engine.tokenizer.decode([engine.session[same]]) == " rough"
    read = len(engine.session) - same // CHUNK * CHUNK
    assert engine.reads == [len(before), read]
    assert ran.out == f"{first['session']}\n"
    total = len(engine.session)
    assert (
        f"{total - read:,} of {total:,} tokens are already read; reading resumes in c.txt"
        in ran.err
    )
    assert "c30 was rough" in text(engine)
    saved = store.documents(first["session"]).loaded.documents[2]
    assert "c30 was rough" in saved.sections[0].text
    ingest(folder)
    assert len(engine.reads) == 2


def test_only_text_added_at_the_end_is_prefilled(ingest, use_engine, folder):
    engine = use_engine()
    ingest(folder)
    before = len(engine.session)
    with (folder / "c.txt").open("a") as file:
        file.write("c40 was calm.\n")
    ingest(folder)
    assert engine.reads[1] <= CHUNK + len(engine.session) - before


def test_turns_keep_the_text_that_they_are_about(cli, ingest, ask, use_engine, folder, store):
    engine = use_engine("Yes.", "No.", "Still yes.")
    first = ingest(folder)["session"]
    ask(first)
    (folder / "c.txt").write_text("Nothing more.\n")
    ran = cli("ingest", "--no-chat", folder)
    second = ran.out.strip()
    assert second != first
    assert f"Session {first} keeps the old text and its turns" in ran.err
    assert engine.reads[1] < 100
    assert "Nothing more." in text(engine)
    assert "c30" not in text(engine)
    assert store.turns(second).turns == ()
    assert [turn.text for turn in store.turns(first).turns] == ["Yes."]
    assert ask(second) == "No."
    assert ask(first) == "Still yes."
    assert "c30" in text(engine)
    assert len(engine.reads) == 2


def test_follow_up_questions_come_after_the_turns(ingest, ask, use_engine, folder, store):
    engine = use_engine("Yes.", "Because.")
    id_ = ingest(folder)["session"]
    assert ask("log", "Is it?") == "Yes."
    assert ask(id_[:5], "Why?") == "Because."
    encode = engine.tokenizer.encode
    user, assistant, end = 0, 1, 2
    turns = [*encode("\n\nIs it?"), end, assistant, *encode("Yes."), end, user]
    turns += [*encode("Why?"), end, assistant, *encode("Because.")]
    assert engine.session[-len(turns) :] == turns
    assert len(engine.reads) == 1
    saved = store.turns(id_).turns
    assert [(turn.question, turn.text) for turn in saved] == [
        ("Is it?", "Yes."),
        ("Why?", "Because."),
    ]
    assert [token for turn in saved for token in turn.token_ids] == turns


def test_ask_in_a_session_as_json(cli, ingest, use_engine, folder):
    use_engine("Yes.")
    found = ingest(folder, "--router", "dense")
    ran = cli("ask", "--session", found["session"], "Is it?", "--json")
    report = json.loads(ran.out)
    assert (report["answer"], report["routing"]["router"]) == ("Yes.", "dense")
    assert report["usage"]["document_tokens"] == found["tokens"]
    assert "router dense" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ask", "--session", "log", "a.txt", "Is it?"), "--session takes only a question"),
        (("ask", "--session", "log", " "), "The question is empty."),
        (("ingest", "--no-chat", "--no-save", "a.txt"), "--no-save prevents that"),
        (("sessions", "rm"), "Name the sessions to remove, or use --all"),
        (("sessions", "rm", "--all", "log"), "Name the sessions to remove, or use --all"),
        (("sessions", "fork", "log", "--turns", "-1"), "--turns must be 0 or more"),
    ],
)
def test_a_usage_error_is_exit_code_2(cli, ingest, use_engine, folder, arguments, message):
    use_engine()
    ingest(folder)
    ran = cli(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_ask_uses_saved_kv_and_leaves_the_turns_alone(cli, ingest, ask, use_engine, folder, store):
    engine = use_engine("Yes.", "No.", "Yes again.")
    id_ = ingest(folder)["session"]
    ask(id_, "Is it?")
    session = list(engine.session)
    ran = cli("ask", folder, "Alone?")
    assert ran.out == "No.\n"
    assert "already read" in ran.err
    assert engine.prompts[1][:1] == engine.tokenizer.encode("\n")  # a first question
    assert [turn.question for turn in store.turns(id_).turns] == ["Is it?"]
    ask(id_, "And?")
    assert engine.session[: len(session)] == session
    assert len(engine.reads) == 1


def test_ask_saves_kv_for_the_next_question(cli, use_engine, folder, store):
    engine = use_engine("Yes.", "Yes.")
    cli("ask", folder, "Is it?")
    (id_,) = store.ids()
    assert store.turns(id_).turns == ()
    cli("ask", folder, "Is it?")
    assert len(engine.reads) == 1
    assert engine.prompts[0] == engine.prompts[1]


def test_no_save_and_standard_input_save_nothing(cli, use_engine, folder, store, monkeypatch):
    import io

    engine = use_engine("Yes.", "Yes.", "Yes.")
    for _ in range(2):
        cli("ask", folder, "Is it?", "--no-save")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"The sea is blue.\n")))
    cli("ask", "-", "Is it?")
    assert store.ids() == []
    assert len(engine.reads) == 3


def test_no_save_leaves_a_session_unchanged(cli, ingest, use_engine, folder, store):
    use_engine("Yes.")
    id_ = ingest(folder)["session"]
    assert cli("ask", "--session", id_, "Is it?", "--no-save").out == "Yes.\n"
    assert store.turns(id_).turns == ()


def test_a_session_in_use_is_reported(cli, ingest, use_engine, folder, store):
    engine = use_engine("Yes.")
    id_ = ingest(folder)["session"]
    held = store.open(id_)
    for command in (("ingest", "--no-chat", folder), ("ask", "--session", id_, "Is it?")):
        ran = cli(*command)
        assert (ran.code, ran.out) == (1, "")
        assert f"Session {id_} is open elsewhere (process" in ran.err
    ran = cli("ask", folder, "Is it?")
    assert (ran.code, ran.out) == (0, "Yes.\n")
    assert "read for this answer only" in ran.err
    assert len(engine.reads) == 2
    held.close()
    assert store.ids() == [id_]


def test_a_cleared_cache_costs_a_prefill_but_no_turn(
    cli, ingest, ask, use_engine, folder, tmp_path
):
    engine = use_engine("Yes.", "Because.")
    id_ = ingest(folder)["session"]
    ask(id_, "Is it?")
    session = list(engine.session)
    (kv(tmp_path, id_) / "state.json").unlink()
    kv(tmp_path, id_).rmdir()
    ran = cli("ask", "--session", id_, "Why?")
    assert ran.out == "Because.\n"
    assert f"{len(session):,} tokens are read again" in ran.err
    assert engine.session[: len(session)] == session
    assert engine.reads[1] == len(session)


def test_kv_of_a_gpu_is_used_there_and_computed_again_elsewhere(
    cli, ingest, ask, use_engine, folder
):
    engine = use_engine("Yes.", "Yes.", "Yes.")
    engine.device_type = "cuda"
    id_ = ingest(folder)["session"]
    ask(id_)
    assert len(engine.reads) == 1
    engine.device_type = "cpu"
    ran = cli("ask", "--session", id_, "Is it?")
    assert (ran.code, ran.out) == (0, "Yes.\n")
    assert "was made on another device or by another version" in ran.err
    assert len(engine.reads) == 2


def test_damaged_kv_is_reported_and_computed_again(cli, ingest, ask, use_engine, folder, tmp_path):
    engine = use_engine("Yes.", "Yes.")
    id_ = ingest(folder)["session"]
    (kv(tmp_path, id_) / "state.json").write_text("{")
    ran = cli("ask", "--session", id_, "Is it?")
    assert (ran.code, ran.out) == (0, "Yes.\n")
    assert f"{kv(tmp_path, id_) / 'state.json'}: is damaged" in ran.err
    assert len(engine.reads) == 2
    ask(id_)
    assert len(engine.reads) == 2


def test_damaged_documents_are_reported_and_read_into_a_new_session(
    cli, ingest, use_engine, folder, tmp_path
):
    use_engine()
    id_ = ingest(folder)["session"]
    path = files(tmp_path, id_) / "documents.json"
    path.write_bytes(path.read_bytes().replace(b"c30", b"c31"))
    ran = cli("ask", "--session", id_, "Is it?")
    assert (ran.code, ran.out) == (1, "")
    assert f"{path}: is damaged" in ran.err
    ran = cli("ingest", "--no-chat", folder)
    assert ran.out.strip() != id_
    assert f"{path}: is damaged" in ran.err
    assert f"sessions rm {id_}" in ran.err
    listing = json.loads(cli("sessions", "list", "--json").out)["sessions"]
    assert {entry["session"]: bool(entry["problem"]) for entry in listing} == {
        id_: True,
        ran.out.strip(): False,
    }
    assert "is damaged" in cli("sessions", "list").out


def test_a_changed_model_is_reported(cli, ingest, use_engine, folder, store):
    engine = use_engine("Yes.")
    id_ = ingest(folder)["session"]
    engine.fingerprint = "1" * 64
    ran = cli("ask", "--session", id_, "Is it?")
    assert (ran.code, ran.out) == (1, "")
    assert "made with scripted (000000000000)" in ran.err
    assert f"hga-chat ingest {folder}" in ran.err
    ran = cli("ingest", "--no-chat", folder)
    assert ran.code == 0
    assert "that model has since changed" in ran.err
    assert len(engine.reads) == len(store.ids()) == 2


def test_a_full_disk_costs_no_answer(cli, ingest, ask, use_engine, folder, store):
    engine = use_engine("Yes.", "Because.")
    id_ = ingest(folder)["session"]
    engine.save_error = KVStoreError("kv: No space left on device.")
    ran = cli("ask", "--session", id_, "Is it?")
    assert (ran.code, ran.out) == (0, "Yes.\n")
    assert "could not be saved: kv: No space left" in ran.err
    engine.save_error = None
    session = list(engine.session)
    # The turn was written; the K/V it lacks is computed again.
    assert ask(id_, "Why?") == "Because."
    assert engine.session[: len(session)] == session
    assert len(engine.reads) == 2


def test_on_a_read_only_disk_ask_answers_and_ingest_fails(cli, use_engine, folder, tmp_path):
    use_engine("Yes.")
    (tmp_path / "xdg-data").write_text("a file where a folder should be")
    ran = cli("ask", folder, "Is it?")
    assert (ran.code, ran.out) == (0, "Yes.\n")
    assert "The session cannot be saved" in ran.err
    ran = cli("ingest", "--no-chat", folder)
    assert (ran.code, ran.out) == (1, "")
    assert "the session cannot be saved" in ran.err


def test_answers_missing_from_the_turns_are_dropped(ingest, ask, use_engine, folder, tmp_path):
    """The process was killed after writing the K/V and before writing the turns."""
    engine = use_engine("Yes.", "No.")
    id_ = ingest(folder)["session"]
    turns = (files(tmp_path, id_) / "turns.json").read_bytes()
    session = list(engine.session)
    ask(id_)
    (files(tmp_path, id_) / "turns.json").write_bytes(turns)
    assert ask(id_, "Which?") == "No."
    asked = engine.tokenizer.encode("\n\nWhich?")
    assert engine.session[: len(session) + len(asked)] == [*session, *asked]
    assert len(engine.reads) == 1


def test_turns_missing_from_the_kv_are_prefilled_again(
    cli, ingest, ask, use_engine, folder, tmp_path
):
    """The process was killed after writing the turns and before writing the K/V."""
    engine = use_engine("Yes.", "No.")
    id_ = ingest(folder)["session"]
    state = (kv(tmp_path, id_) / "state.json").read_bytes()
    before = len(engine.session)
    ask(id_)
    session = list(engine.session)
    (kv(tmp_path, id_) / "state.json").write_bytes(state)
    ran = cli("ask", "--session", id_, "Which?")
    assert f"the last {len(session) - before} tokens of the turns are read again" in ran.err
    assert engine.session[: len(session)] == session
    assert engine.reads[1:] == [len(session) - before]


def test_the_disk_limit_removes_the_oldest_kv_and_says_so(
    cli, ingest, use_engine, folder, tmp_path
):
    use_engine()
    first = ingest(folder / "a.txt")["session"]
    ran = cli("ingest", "--no-chat", folder / "b.txt", "--disk-limit", "1K")
    second = ran.out.strip()
    assert f"The K/V of session {first} (a.txt" in ran.err
    assert not kv(tmp_path, first).exists()
    assert kv(tmp_path, second).exists()
    assert (files(tmp_path, first) / "documents.json").exists()


def test_list_and_show(cli, ingest, ask, use_engine, folder, store):
    use_engine("Yes.")
    assert "0 sessions" in cli("sessions", "list").out
    found = ingest(folder)
    ask("log", "Is it calm?")
    listing = json.loads(cli("sessions", "list", "--json").out)
    (entry,) = listing["sessions"]
    turn = sum(len(turn.token_ids) for turn in store.turns(found["session"]).turns)
    assert (entry["session"], entry["title"]) == (found["session"], "log")
    assert (entry["tokens"], entry["turns"]) == (found["tokens"] + turn, 1)
    assert listing["disk_bytes"] >= entry["disk_bytes"] > entry["kv_bytes"] > 0
    assert listing["disk_limit_bytes"] == 20 << 30
    assert found["session"] in cli("sessions", "list").out
    shown = cli("sessions", "show", "log").out
    for expected in (found["session"], str(folder), "b.txt", "1. Is it calm?", "router hga"):
        assert expected in shown
    shown = json.loads(cli("sessions", "show", "log", "--json").out)
    assert shown["documents"] == found["documents"]


def test_export_has_questions_answers_and_sources(cli, ingest, use_engine, folder, tmp_path):
    from tests.support.scripted import ScriptedAnswer

    use_engine(ScriptedAnswer("Calm, \x1b[31mall\x1b[0m day.", reads={20: 0.5}))
    ingest(folder)
    cli("ask", "--session", "log", "Is it\ncalm?")
    ran = cli("sessions", "export", "log")
    assert "> Is it\n> calm?" in ran.out
    assert "Calm, ␛[31mall␛[0m day." in ran.out
    assert "- 100% `b.txt:" in ran.out
    path = tmp_path / "log.json"
    assert cli("sessions", "export", "log", "--json", "--output", path).out == ""
    (turn,) = json.loads(path.read_text())["turns"]
    assert (turn["question"], turn["answer"]) == ("Is it\ncalm?", "Calm, \x1b[31mall\x1b[0m day.")
    assert turn["sources"][0]["path"] == "b.txt"


def test_export_overwrites_nothing_unless_forced(cli, ingest, use_engine, folder, tmp_path):
    use_engine()
    ingest(folder)
    path = tmp_path / "answers.md"
    path.write_text("mine")
    ran = cli("sessions", "export", "log", "-o", path)
    assert (ran.code, path.read_text()) == (2, "mine")
    assert f"{path} exists; --force overwrites it." in ran.err
    assert cli("sessions", "export", "log", "-o", path, "--force").code == 0
    assert path.read_text().startswith("# log")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("typed", "is_removed"), [("y\n", True), ("\n", False), ("", False)])
def test_rm_all_asks_a_person(
    cli, ingest, use_engine, folder, store, monkeypatch, typed, is_removed
):
    use_engine()
    ingest(folder)
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    ran = cli("sessions", "rm", "--all")
    assert "Remove the session (" in shown.getvalue()
    assert (ran.code, store.ids() == []) == ((0, True) if is_removed else (1, False))


def test_rm_all_with_yes_asks_nothing(cli, ingest, use_engine, folder, store, monkeypatch):
    use_engine()
    ingest(folder)
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr("sys.stdin", Terminal())
    assert cli("sessions", "rm", "--all", "--yes").code == 0
    assert "?" not in shown.getvalue()
    assert store.ids() == []


def test_a_fork_is_independent_of_its_original(cli, ingest, ask, use_engine, folder, store):
    engine = use_engine("Yes.", "Because.", "No reason.")
    first = ingest(folder)["session"]
    ask(first, "Is it?")
    ask(first, "Why?")
    second = cli("sessions", "fork", first, "--turns", "1").out.strip()
    assert ask(second, "Why really?") == "No reason."
    assert len(engine.reads) == 1
    questions = [[turn.question for turn in store.turns(id_).turns] for id_ in (first, second)]
    assert questions == [["Is it?", "Why?"], ["Is it?", "Why really?"]]


def test_rm_removes_the_sessions_it_names(cli, ingest, use_engine, folder, store, tmp_path):
    use_engine()
    a, b, c = (ingest(folder / f"{name}.txt")["session"] for name in "abc")
    ran = cli("sessions", "rm", a, "nonesuch")
    assert ran.code == 1
    assert len(store.ids()) == 3
    ran = cli("sessions", "rm", a, "b.txt")
    assert f"Removed {a} (a.txt)" in ran.err
    assert store.ids() == [c]
    assert not kv(tmp_path, b).exists()
    assert cli("sessions", "rm", "--all").code == 0
    assert store.ids() == []


def test_chat_continues_a_session(cli, ingest, ask, use_engine, folder, monkeypatch):
    engine = use_engine("Yes.", "Because.")
    id_ = ingest(folder)["session"]
    ask(id_, "Is it?")
    opened = []

    def run_screen(make_conversation, sampling, theme, plain, alerts, first_message, consider):
        conversation = make_conversation(lambda *_: None)
        opened.append(([turn.text for turn in conversation.turns], conversation.notes))
        conversation.close()
        return Ended([])

    monkeypatch.setattr("hga_chat.screen.run.run_screen", run_screen)
    for stream in ("stdin", "stdout", "__stderr__"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    ran = cli("chat", id_)
    assert ran.code == 0
    assert opened == [(["Yes."], ["Resumed; nothing needs reading again."])]
    assert f"'hga-chat chat {id_}' resumes it" in ran.err
    assert cli("ingest", folder).code == 0
    assert opened[1] == opened[0]
    assert len(engine.reads) == 1
    ran = cli("chat", folder)
    assert ran.code == 1
    assert f"hga-chat ingest {folder}" in ran.err
    assert "no saved session 'nonesuch'" in cli("chat", "nonesuch").err
