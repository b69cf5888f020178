"""Saved sessions with real engines: killed at any moment, and continued after closing."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hga_chat.conversation.answer import Answer
from hga_chat.conversation.conversation import Conversation
from hga_chat.conversation.opening import lay_out_saved, open_session, settings_of
from hga_chat.documents import lay_out, load_documents
from hga_chat.models import EMBEDDED_MODEL, find_model
from hga_chat.sessions.store import SessionStore
from hga_chat.settings import load_settings
from hga_engine.config import EngineConfig, SamplingParams
from hga_engine.engine import Engine
from hga_engine.opening import open_engine, prepare_model
from tests.support.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[3]
HANDBOOK = ROOT / "assets" / "samples" / "handbook" / "13-budget.md"
QUESTIONS = ("What is the total of the year?", "And what does the dome cost?")


def test_killing_at_any_moment_damages_and_loses_nothing():
    """Only a few kills; ``python -m tools.stress.killed_sessions`` runs longer."""
    command = [sys.executable, "-m", "tools.stress.killed_sessions", "--kills", "3"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["kills"] == 3


@pytest.mark.weights
def test_a_session_answers_as_if_it_had_never_been_closed(
    cli, embedded_model, single_thread, monkeypatch
):
    model = prepare_model(embedded_model)
    monkeypatch.setattr("hga_engine.opening.prepare_model", lambda *_: model)  # loaded once
    monkeypatch.setenv("HGA_CHAT_MODEL", EMBEDDED_MODEL)
    layout = lay_out(load_documents([str(HANDBOOK)]), model.tokenizer)
    uninterrupted = Conversation(open_engine(model, EngineConfig()), layout)
    greedy = SamplingParams(max_new_tokens=24)
    expected = [
        event.text
        for question in QUESTIONS
        for event in uninterrupted.ask(question, greedy)
        if isinstance(event, Answer)
    ]
    uninterrupted.close()
    assert cli("ingest", "--no-chat", "--quiet", HANDBOOK).code == 0
    for question, answer in zip(QUESTIONS, expected, strict=True):
        ran = cli("ask", "--session", HANDBOOK.name, question, "--max-new-tokens", "24")
        assert ran.out == f"{answer}\n"
        assert "nothing needs reading again" in ran.err


def test_an_interrupted_read_goes_on_to_the_same_session(cli, single_thread, tmp_path, monkeypatch):
    monkeypatch.setenv("HGA_CHAT_MODEL", str(write_tiny_model(tmp_path / "model")))
    path = tmp_path / "log.txt"
    path.write_text("".join(f"line {n} is calm.\n" for n in range(900)))
    prefill = Engine.prefill

    def interrupted(engine, token_ids, cancel=None):
        if engine.num_tokens and not cancel.is_set():
            signal.raise_signal(signal.SIGTERM)
        return prefill(engine, token_ids, cancel)

    monkeypatch.setattr(Engine, "prefill", interrupted)
    stopped = cli("ingest", "--no-chat", path)
    assert stopped.code == 130
    assert "Stopped after 2,048 of " in stopped.err
    monkeypatch.setattr(Engine, "prefill", prefill)
    assert cli("ingest", "--no-chat", path).code == 0

    settings, store = load_settings({}), SessionStore(1 << 40)
    (id_,) = store.ids()
    saved = store.open(id_)
    files = find_model(settings.model)
    model = prepare_model(files)
    own = settings_of(saved.info, settings)
    resumed = open_session(model, own, saved, lay_out_saved(saved, files))
    whole = open_engine(model, own.engine())
    tokens = resumed.engine.token_ids
    assert len(tokens) > 2 * 2048
    list(whole.prefill(tokens))
    question = model.tokenizer.encode("What now?")
    (found,), (expected,) = resumed.engine.logits(question), whole.logits(question)
    assert torch.equal(found, expected)
    resumed.close()
    whole.close()
