import threading
import time
from dataclasses import replace

import torch

from hga_chat import engine_access
from hga_chat.errors import describe
from hga_chat.screen.engine.outbox import Outbox
from hga_chat.screen.engine.reports import (
    Answered,
    Failed,
    Forgotten,
    Loading,
    MemoryReport,
    Note,
    Opened,
    Prefilling,
    Ready,
    Streamed,
    TraceReport,
)
from hga_chat.screen.engine.thread import EngineThread
from hga_chat.sessions.store import SessionStore
from hga_engine.config import SamplingParams
from hga_engine.errors import ContextFullError, KVStoreError, ModelFileError
from tests.support.scripted import ScriptedAccess
from tests.support.scripted_conversation import keep

PATIENCE_S = 10.0


def streamed(text, tokens=1):
    return Streamed(text, (len(text),), tokens, 40.0, 0.1, 0.03)


def trace_report(layers):
    none = torch.zeros(0)
    return TraceReport(none, none, torch.zeros(0, 0), torch.zeros(0, 0), none, b"", layers)


def collect(thread, kind):
    """Reports up to and including the first of ``kind``."""
    reports = []
    end = time.monotonic() + PATIENCE_S
    while not any(isinstance(report, kind) for report in reports):
        assert time.monotonic() < end, f"no {kind} among {reports}"
        reports += thread.take()
        time.sleep(0.001)
    return reports


def started(scripted):
    thread = EngineThread(scripted.make, SamplingParams())
    thread.start()
    return thread


def ended(thread):
    thread.stop()
    return thread.join(PATIENCE_S)


def test_waiting_tokens_are_merged():
    outbox = Outbox()
    outbox.put(streamed("a", 1))
    outbox.put(streamed("b", 2))
    (report,) = outbox.take()
    assert (report.text, report.tokens) == ("ab", 2)
    assert report.lengths == (1, 1)
    assert outbox.take() == []


def test_progress_replaces_waiting_progress_and_keeps_the_order():
    outbox = Outbox()
    for report in (Prefilling(0.1, 5, 1.0), Prefilling(0.2, 5, 2.0), Loading("x", 0.5)):
        outbox.put(report)
    outbox.put(Prefilling(0.3, 5, 3.0))
    assert outbox.take() == [Prefilling(0.2, 5, 2.0), Loading("x", 0.5), Prefilling(0.3, 5, 3.0)]


def test_memory_figures_do_not_separate_tokens(scripted):
    figures = scripted().engine.memory()
    outbox = Outbox()
    for report in (streamed("a"), MemoryReport(figures), streamed("b")):
        outbox.put(report)
    text, memory = outbox.take()
    assert text.text == "ab"
    assert memory == MemoryReport(figures)


def test_only_the_latest_trace_is_reported():
    outbox = Outbox()
    early, late = trace_report(torch.zeros(2, 3)), trace_report(torch.ones(2, 3))
    for report in (streamed("a"), early, streamed("b"), late):
        outbox.put(report)
    text, trace = outbox.take()
    assert text.text == "ab"
    assert trace is late
    assert outbox.take() == []


def test_no_trace_is_reported_after_its_answer():
    outbox = Outbox()
    for ended in (Answered(None, 0, None), Failed("It is full.", fatal=False)):
        outbox.put(trace_report(torch.zeros(1, 1)))
        outbox.put(ended)
        assert outbox.take() == [ended]


def test_from_loading_to_the_answer(scripted):
    script = scripted(["Calm seas."])
    thread = started(script)
    reports = collect(thread, Ready)
    kinds = [type(report) for report in reports]
    assert kinds[0] is Loading
    assert kinds.index(Opened) < kinds.index(Prefilling) < kinds.index(Ready)
    assert MemoryReport in kinds
    assert next(r for r in reports if isinstance(r, Opened)).layout is script.layout
    thread.ask("How is the sea?")
    reports = collect(thread, Answered)
    text = "".join(report.text for report in reports if isinstance(report, Streamed))
    assert text == "Calm seas."
    answered = next(r for r in reports if isinstance(r, Answered))
    assert answered.answer.text == text
    assert answered.trace.layers.shape == (2, 65_536 // 16)
    assert ended(thread)
    assert script.engine.closed


def test_engine_lives_in_one_thread(scripted):
    script = scripted(["Yes."])
    threads = set()
    answer, close = script.engine.answer, script.engine.close

    def note_answer(*arguments):
        threads.add(threading.get_ident())
        return answer(*arguments)

    def note_close():
        threads.add(threading.get_ident())
        close()

    def make(progress):
        threads.add(threading.get_ident())
        return script.make(progress)

    script.engine.answer, script.engine.close = note_answer, note_close
    thread = EngineThread(make, SamplingParams())
    thread.start()
    collect(thread, Ready)
    thread.ask("Is it?")
    collect(thread, Answered)
    assert ended(thread)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_cancel_keeps_the_partial_answer(scripted, answer):
    thread = started(scripted([answer("Calm seas today.", hold_after=2), "More."]))
    collect(thread, Ready)
    thread.ask("How?")
    collect(thread, Streamed)
    thread.cancel()
    found = next(r for r in collect(thread, Answered) if isinstance(r, Answered))
    assert found.answer.finished.reason == "cancelled"
    thread.ask("And now?")  # a cancelled question does not cancel the next
    found = next(r for r in collect(thread, Answered) if isinstance(r, Answered))
    assert found.answer.text == "More."
    assert ended(thread)


def test_stop_while_the_model_loads(scripted):
    script = scripted()
    loading = threading.Event()

    def make(progress):
        while True:
            progress("Loading", 0.1)
            loading.set()
            time.sleep(0.001)

    thread = EngineThread(make, SamplingParams())
    thread.start()
    assert loading.wait(PATIENCE_S)
    assert ended(thread)
    assert thread.error is None
    assert not script.engine.closed


def test_stop_during_prefill(scripted):
    script = scripted(hold_prefill_after=1)
    thread = started(script)
    collect(thread, Prefilling)
    assert ended(thread)
    assert script.engine.closed
    assert script.engine.num_tokens == 0
    assert thread.error is None


def test_stop_before_start(scripted):
    thread = EngineThread(scripted().make, SamplingParams())
    assert ended(thread)


def test_an_error_while_loading_is_kept_and_reported():
    def make(progress):
        raise ModelFileError("model.safetensors is damaged. Pull it again.")

    thread = EngineThread(make, SamplingParams())
    thread.start()
    (report,) = collect(thread, Failed)
    assert report == Failed("model.safetensors is damaged. Pull it again.", fatal=True)
    assert isinstance(thread.error, ModelFileError)
    assert thread.join(PATIENCE_S)


def test_error_in_an_answer_leaves_the_thread_alive(scripted, answer):
    thread = started(scripted([answer("", error=ContextFullError(9, 60, 64)), "Yes."]))
    collect(thread, Ready)
    thread.ask("Is it?")
    failed = next(r for r in collect(thread, Failed) if isinstance(r, Failed))
    assert failed == Failed(describe(ContextFullError(9, 60, 64)), fatal=False)
    thread.ask("Is it now?")
    assert collect(thread, Answered)
    assert thread.error is None
    assert ended(thread)


def test_an_unexpected_error_names_its_type(scripted, answer):
    thread = started(scripted([answer("", error=RuntimeError("shapes differ"))]))
    collect(thread, Ready)
    thread.ask("Is it?")
    failed = next(r for r in collect(thread, Failed) if isinstance(r, Failed))
    assert "RuntimeError" in failed.text
    assert "shapes differ" in failed.text
    assert ended(thread)


def test_every_turn_is_saved_after_it_is_reported(scripted, tmp_path):
    script = scripted(["Calm.", "Rough."])
    store, made = SessionStore(1 << 30, tmp_path / "sessions", tmp_path / "kv"), []

    def make(progress):
        made.append(keep(script.make(progress), store))
        return made[0]

    thread = EngineThread(make, SamplingParams())
    thread.start()
    collect(thread, Ready)
    thread.ask("How?")
    collect(thread, Answered)
    script.engine.save_error = KVStoreError("The disk is full.")
    thread.ask("And now?")
    # A failure is reported once: the first turn, saved late, may be the one that fails.
    reports = collect(thread, Answered)
    if not any(isinstance(report, Note) for report in reports):
        reports += collect(thread, Note)
    note = next(report for report in reports if isinstance(report, Note))
    assert note.text == "The session could not be saved: The disk is full."
    assert ended(thread)
    (id_,) = store.ids()
    assert [turn.text for turn in store.turns(id_).turns] == ["Calm.", "Rough."]
    saved = store.open(id_)  # the thread has let go of it
    assert saved.kv_folder.exists()
    saved.close()


def test_turns_are_forgotten_and_exported(scripted, tmp_path):
    script = scripted(["Calm.", "Rough."])
    thread = started(script)
    reports = collect(thread, Ready)
    before = next(r for r in reports if isinstance(r, Ready)).tokens
    for question in ("How?", "And now?"):
        thread.ask(question)
        collect(thread, Answered)
    path = tmp_path / "out.md"
    thread.export(path)
    (note,) = [r for r in collect(thread, Note) if isinstance(r, Note)]
    assert note.text == f"2 turns written to {path}."
    assert "> And now?" in path.read_text()
    thread.export(path)
    (note,) = [r for r in collect(thread, Note) if isinstance(r, Note)]
    assert "nothing was written" in note.text
    thread.forget(1)
    (report,) = [r for r in collect(thread, Forgotten) if isinstance(r, Forgotten)]
    assert report.tokens == before + len(script.engine.prompts[0]) + 2  # "Calm" and "."
    thread.forget()
    (report,) = [r for r in collect(thread, Forgotten) if isinstance(r, Forgotten)]
    assert report.tokens == before
    assert ended(thread)


def test_another_temperature_applies_to_one_question(scripted):
    script = scripted(["Calm.", "Rough."])
    drawn = []
    answer = script.engine.answer

    def note(prompt, sampling, cancel=None):
        drawn.append(sampling.temperature)
        return answer(prompt, sampling, cancel)

    script.engine.answer = note
    thread = started(script)
    collect(thread, Ready)
    thread.ask("How?", temperature=0.8)
    collect(thread, Answered)
    thread.ask("How?")
    collect(thread, Answered)
    assert ended(thread)
    assert drawn == [0.8, 0.0]


def test_a_prefill_that_is_stopped_keeps_the_parts_that_are_done(scripted, tmp_path, monkeypatch):
    script = scripted()
    engine, prefill = script.engine, script.engine.prefill
    monkeypatch.setattr(engine_access, "access", ScriptedAccess(engine))
    engine.config = replace(engine.config, part_tokens=256)
    store = SessionStore(1 << 30, tmp_path / "sessions", tmp_path / "kv")

    def stopped(token_ids, cancel):
        if engine.num_tokens:
            thread.stop()
        return prefill(token_ids, cancel)

    engine.prefill = stopped
    thread = EngineThread(lambda progress: keep(script.make(progress), store), SamplingParams())
    thread.start()
    assert thread.join(PATIENCE_S)
    (id_,) = store.ids()
    total = len(script.layout.token_ids) + 1
    assert thread.kept == [
        f"Stopped after 256 of {total:,} tokens. They are saved in session {id_} (logs); "
        f"'hga-chat chat {id_}' resumes there."
    ]
