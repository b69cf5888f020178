"""Verification with a tiny engine, compared with the same model under torch's attention."""

import threading
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from hga_chat.conversation.answer import Answer
from hga_chat.conversation.verify import verify
from hga_chat.sources import Source
from tests.support.tiny_engine import (
    LLAMA,
    WHOLE_BINS,
    ask,
    dense_pass,
    make_engine,
    random_tokens,
    read,
)

pytestmark = pytest.mark.usefixtures("single_thread")

OPENING, DOCUMENT = 5, random_tokens(160)
QUESTIONS = [random_tokens(9, seed=1), random_tokens(7, seed=2)]


@dataclass
class VerifiedConversation:
    """The part of a conversation that verification uses."""

    engine: object
    turns: list
    document_start: int = OPENING
    document_end: int = OPENING + len(DOCUMENT)

    def leaving_out(self, scope):
        return nullcontext()

    def turn_start(self, number):
        return self.document_end + sum(len(turn.token_ids) for turn in self.turns[:number])


def source(start, end):
    """Return a passage from group ``start`` to group ``end`` of the session."""
    first, last = max(16 * start - OPENING, 0), 16 * end - OPENING
    return Source("a", "a", None, None, None, 0.5, "", first, last)


@pytest.fixture
def conversation(request):
    """Two turns with answers of six tokens, the first with two sources; takes the group size."""
    size = getattr(request, "param", 16)
    engine = make_engine(router=replace(WHOLE_BINS, group_size=size))
    read(engine, random_tokens(OPENING, seed=9) + DOCUMENT)
    turns = []
    for number, question in enumerate(QUESTIONS):
        before = engine.num_tokens
        finished = ask(engine, question, 6).finished
        sources = (source(3, 5), source(0, 2)) if number == 0 else ()
        turn = tuple(engine.token_ids[before:])
        turns.append(Answer("", "", sources, finished, turn))
    return VerifiedConversation(engine, turns)


def expected(conversation, hidden=()):
    """Return the first answer's log-probability if its turn does not see the hidden groups."""
    start, turn = conversation.document_end, conversation.turns[0]
    tokens = conversation.engine.token_ids[: start + len(turn.token_ids)]
    unseen = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    for group in hidden:
        unseen[start:, 16 * group : 16 * group + 16] = True
    logits = dense_pass(LLAMA, tokens, unseen=unseen)[0].log_softmax(-1)
    answer = start + len(QUESTIONS[0])
    return sum(float(logits[n - 1, tokens[n]]) for n in range(answer, len(tokens)))


@pytest.mark.parametrize("conversation", [4, 16], indirect=True)
def test_the_drop_is_what_the_answer_loses_without_the_passage(conversation):
    whole = expected(conversation)
    found = verify(conversation, 0)
    assert found.log_probability == pytest.approx(whole, rel=1e-4)
    first, second = found.effects
    assert first.source == conversation.turns[0].sources[0]
    assert first.drop == pytest.approx(whole - expected(conversation, [3, 4]), rel=1e-3, abs=1e-4)
    # The first group is the attention sink and stays visible.
    assert second.drop == pytest.approx(whole - expected(conversation, [1]), rel=1e-3, abs=1e-4)
    assert found.seconds > 0


def test_random_passages_are_as_long_as_the_sources_and_elsewhere(conversation):
    whole = expected(conversation)
    first, second = verify(conversation, 0).effects
    ends = conversation.document_end // 16
    free = [g for g in range(1, ends) if g not in (1, 3, 4)]
    pairs = [whole - expected(conversation, [g, g + 1]) for g in free if g + 1 in free]
    ones = [whole - expected(conversation, [g]) for g in free]
    assert any(first.random_drop == pytest.approx(drop, rel=1e-3, abs=1e-4) for drop in pairs)
    assert any(second.random_drop == pytest.approx(drop, rel=1e-3, abs=1e-4) for drop in ones)
    assert first.counts == (first.drop > first.random_drop)


def test_verification_restores_the_session(conversation):
    before = conversation.engine.token_ids
    follow_up = random_tokens(5, seed=3)
    verify(conversation, 0)
    assert conversation.engine.token_ids == before
    logits = torch.cat(list(conversation.engine.logits(follow_up)))[-len(follow_up) :]
    wanted = dense_pass(LLAMA, before + follow_up)[0][-len(follow_up) :]
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-6)


def test_without_room_for_a_random_passage_nothing_is_hidden(conversation):
    everything = source(1, conversation.document_end // 16)
    conversation.turns[0] = replace(conversation.turns[0], sources=(everything,))
    (effect,) = verify(conversation, 0).effects
    assert effect.random_drop == pytest.approx(0, abs=1e-6)


def test_a_cancelled_verification_returns_what_is_done(conversation):
    cancel = threading.Event()
    cancel.set()
    before = conversation.engine.token_ids
    assert verify(conversation, 0, cancel).effects == ()
    assert conversation.engine.token_ids == before


def test_a_failed_verification_restores_the_session(conversation, monkeypatch):
    before = conversation.engine.token_ids
    monkeypatch.setattr("hga_chat.conversation.verify._random_passages", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        verify(conversation, 0)
    assert conversation.engine.token_ids == before


def test_without_sources_there_is_nothing_to_verify(conversation):
    with pytest.raises(ValueError, match="no sources"):
        verify(conversation, 1)
    bare = SimpleNamespace(turns=[replace(conversation.turns[0], sources=())])
    with pytest.raises(ValueError, match="no sources"):
        verify(bare, 0)
