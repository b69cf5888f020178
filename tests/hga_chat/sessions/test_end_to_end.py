"""Saved sessions with real engines: killed at any moment, and continued after closing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hga_chat.conversation.answer import Answer
from hga_chat.conversation.conversation import Conversation
from hga_chat.documents import lay_out, load_documents
from hga_chat.models import EMBEDDED_MODEL
from hga_engine.config import EngineConfig, SamplingParams

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
    from hga_engine.opening import open_engine, prepare_model

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
