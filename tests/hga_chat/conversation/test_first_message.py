"""The first message: what is asked for, what is understood, and what stays of it."""

import threading

import pytest

from hga_chat.conversation.first_message import FirstMessage, first_message, understood
from hga_engine.config import SamplingParams
from tests.support.scripted import ScriptedAnswer
from tests.support.scripted_conversation import ScriptedConversation

SUMMARY = "A log of the sea. It is calm."
QUESTIONS = "1. Is it calm?\n2. Where is it?\n3. Who wrote it?"
EXPECTED = FirstMessage(SUMMARY, ("Is it calm?", "Where is it?", "Who wrote it?"))


@pytest.mark.parametrize(
    "summary",
    [SUMMARY, "**Summary:** \nA log of the sea.\nIt is calm.\n\nIt has 100 lines. They are alike."],
)
@pytest.mark.parametrize(
    "questions",
    [
        QUESTIONS,
        "Here are three questions:\n1) **Is it calm?**\n2) Where is it?\n3) Who wrote it?\n4) Why?",
        "Is it calm?\nWhere is it?\n\nWho wrote it?\nThat is all.",
        "- Is it calm?\n- Where is it?\n- Who wrote it?",
        "Question 1: Is it calm?\nQ2: Where is it?\n3: Who wrote it?",
    ],
)
def test_summary_and_questions_are_understood(summary, questions):
    assert understood(summary, questions) == EXPECTED


def test_what_is_missing_is_left_out():
    assert understood(" \n", "\nNone.") is None
    assert understood("Only this.", "") == FirstMessage("Only this.", ())
    assert understood("", "1. Why?") == FirstMessage("", ("Why?",))


def _prefilled(*answers):
    script = ScriptedConversation(answers)
    conversation = script.make(lambda *_: None)
    assert list(conversation.prefill())
    return script.engine, conversation


def test_nothing_of_it_stays_in_the_session():
    engine, conversation = _prefilled(SUMMARY, QUESTIONS, "Calm.")
    before = engine.token_ids
    assert first_message(conversation) == EXPECTED
    assert (engine.token_ids, conversation.turns) == (before, [])
    summary, questions = map(engine.tokenizer.decode, engine.prompts)
    assert "two sentences" in summary
    assert "three short questions" in questions
    *_, answer = conversation.ask("How is it?", SamplingParams())
    assert answer.text == "Calm."
    assert engine.tokenizer.decode(engine.token_ids[len(before) :]).endswith("How is it?Calm.")


def test_cancelled_or_failed_it_leaves_the_session_as_it_was():
    engine, conversation = _prefilled(
        SUMMARY, QUESTIONS, ScriptedAnswer("", error=RuntimeError("broken"))
    )
    before = engine.token_ids
    cancel = threading.Event()
    cancel.set()
    assert first_message(conversation, cancel) is None
    assert engine.token_ids == before
    assert first_message(conversation) == EXPECTED
    with pytest.raises(RuntimeError):
        first_message(conversation)
    assert engine.token_ids == before
