"""Verification over a tiny engine, against the same model with torch's own attention."""

import threading
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from hga_chat.conversation.answer import Answer
from hga_chat.conversation.verify import verify
from hga_chat.sources import Source
from tests.support.tiny_engine import FULL, LLAMA, ask, dense_pass, make_engine, random_tokens, read

pytestmark = pytest.mark.usefixtures("single_thread")

# Groups of 16 tokens, as sources have them; everything is attended to.
ROUTER = replace(
    FULL,
    chunk_size=32,
    group_size=16,
    prefill_group_size=16,
    prefill_block=32,
    paper_group_size=16,
    sink_tokens=32,
    trace_bin_tokens=16,
)
OPENING, DOCUMENT = 5, random_tokens(160)
QUESTIONS = [random_tokens(9, seed=1), random_tokens(7, seed=2)]


@dataclass
class Told:
    """What verification needs of a conversation."""

    engine: object
    turns: list
    document_start: int = OPENING
    document_end: int = OPENING + len(DOCUMENT)

    def turn_start(self, number):
        return self.document_end + sum(len(turn.token_ids) for turn in self.turns[:number])


def source(start, end):
    """A passage of the groups from ``start`` to ``end`` of the session."""
    first, last = max(16 * start - OPENING, 0), 16 * end - OPENING
    return Source("a", "a", None, None, None, 0.5, "", first, last)


@pytest.fixture
def told(request):
    """Two turns of six tokens each; the first has two sources. A parameter is the groups' size."""
    size = getattr(request, "param", 16)
    engine = make_engine(router=replace(ROUTER, group_size=size))
    read(engine, random_tokens(OPENING, seed=9) + DOCUMENT)
    turns = []
    for number, question in enumerate(QUESTIONS):
        before = engine.num_tokens
        finished = ask(engine, question, 6).finished
        sources = (source(3, 5), source(0, 2)) if number == 0 else ()
        turn = tuple(engine.token_ids[before:])
        turns.append(Answer("", "", sources, finished, turn))
    return Told(engine, turns)


def expected(told, hidden=()):
    """Log-probability of the first answer where its turn does not see the hidden groups."""
    start, turn = told.document_end, told.turns[0]
    tokens = told.engine.token_ids[: start + len(turn.token_ids)]
    unseen = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    for group in hidden:
        unseen[start:, 16 * group : 16 * group + 16] = True
    logits = dense_pass(LLAMA, tokens, unseen=unseen)[0].log_softmax(-1)
    answer = start + len(QUESTIONS[0])
    return sum(float(logits[n - 1, tokens[n]]) for n in range(answer, len(tokens)))


@pytest.mark.parametrize("told", [4, 16], indirect=True)
def test_drop_is_what_the_answer_loses_without_the_passage(told):
    whole = expected(told)
    found = verify(told, 0)
    assert found.log_probability == pytest.approx(whole, rel=1e-4)
    first, second = found.effects
    assert first.source == told.turns[0].sources[0]
    assert first.drop == pytest.approx(whole - expected(told, [3, 4]), rel=1e-3, abs=1e-4)
    # The first group stays: every token needs it.
    assert second.drop == pytest.approx(whole - expected(told, [1]), rel=1e-3, abs=1e-4)
    assert found.seconds > 0


def test_random_passages_are_as_long_and_elsewhere_in_the_documents(told):
    whole = expected(told)
    first, second = verify(told, 0).effects
    ends = told.document_end // 16
    free = [g for g in range(1, ends) if g not in (1, 3, 4)]
    pairs = [whole - expected(told, [g, g + 1]) for g in free if g + 1 in free]
    ones = [whole - expected(told, [g]) for g in free]
    assert any(first.random_drop == pytest.approx(drop, rel=1e-3, abs=1e-4) for drop in pairs)
    assert any(second.random_drop == pytest.approx(drop, rel=1e-3, abs=1e-4) for drop in ones)
    assert first.counts == (first.drop > first.random_drop)


def test_the_session_is_as_before(told):
    before = told.engine.token_ids
    follow_up = random_tokens(5, seed=3)
    verify(told, 0)
    assert told.engine.token_ids == before
    logits = torch.cat(list(told.engine.logits(follow_up)))[-len(follow_up) :]
    wanted = dense_pass(LLAMA, before + follow_up)[0][-len(follow_up) :]
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-6)


def test_no_place_for_a_random_passage_hides_nothing(told):
    everything = source(1, told.document_end // 16)
    told.turns[0] = replace(told.turns[0], sources=(everything,))
    (effect,) = verify(told, 0).effects
    assert effect.random_drop == pytest.approx(0, abs=1e-6)


def test_cancelled_it_has_what_is_done(told):
    cancel = threading.Event()
    cancel.set()
    before = told.engine.token_ids
    assert verify(told, 0, cancel).effects == ()
    assert told.engine.token_ids == before


def test_failure_leaves_the_session_whole(told, monkeypatch):
    before = told.engine.token_ids
    monkeypatch.setattr("hga_chat.conversation.verify._random_passages", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        verify(told, 0)
    assert told.engine.token_ids == before


def test_without_sources_there_is_nothing_to_verify(told):
    with pytest.raises(ValueError, match="no sources"):
        verify(told, 1)
    bare = SimpleNamespace(turns=[replace(told.turns[0], sources=())])
    with pytest.raises(ValueError, match="no sources"):
        verify(bare, 0)
