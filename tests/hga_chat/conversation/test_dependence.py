"""Dependence of an answer on passages, compared with the same model under torch's attention."""

import pytest
import torch

from hga_chat.conversation import dependence
from hga_chat.conversation.dependence import depends, groups_of
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

OPENING, DOCUMENT, QUESTION = 5, random_tokens(155), random_tokens(16, seed=1)
START = OPENING + len(DOCUMENT)
PASSAGES = [(27, 59), (75, 91)]
"""Groups 2, 3 and 5 of the session, counted from the documents' first token."""


@pytest.fixture
def engine():
    """An engine with an answer of 16 tokens, whose turn fills two groups."""
    engine = make_engine(router=WHOLE_BINS)
    read(engine, random_tokens(OPENING, seed=9) + DOCUMENT)
    ask(engine, QUESTION, 16)
    return engine


def drop(engine, passages):
    """Return the nats that the turn's copy loses without the passages."""
    tokens = engine.token_ids
    copy = [*tokens, *tokens[START:]]
    scores = []
    for groups in ([], [group for one in passages for group in groups_of(one, OPENING, 16)]):
        unseen = torch.zeros(len(copy), len(copy), dtype=torch.bool)
        for first in (START, *(16 * group for group in groups)):
            last = len(tokens) if first == START else first + 16
            unseen[len(tokens) :, first:last] = True
        logits = dense_pass(LLAMA, copy, unseen=unseen)[0].log_softmax(-1)
        answer = range(len(tokens) + len(QUESTION), len(copy))
        scores.append(sum(float(logits[n - 1, copy[n]]) for n in answer))
    return scores[0] - scores[1]


@pytest.mark.parametrize("passages", [PASSAGES, PASSAGES[:1], PASSAGES[1:]])
def test_an_answer_depends_on_passages_that_make_it_likelier(engine, monkeypatch, passages):
    expected = drop(engine, passages)
    assert abs(expected) > 1e-3
    for least, depends_on_it in ((expected - 1e-4, True), (expected + 1e-4, False)):
        monkeypatch.setattr(dependence, "LEAST_DROP", least)
        assert depends(engine, START, len(QUESTION), passages, OPENING) is depends_on_it


def test_the_session_stays_as_it_was(engine):
    before = engine.token_ids
    depends(engine, START, len(QUESTION), PASSAGES, OPENING)
    assert engine.token_ids == before
    follow_up = random_tokens(5, seed=3)
    logits = torch.cat(list(engine.logits(follow_up)))[-len(follow_up) :]
    wanted = dense_pass(LLAMA, before + follow_up)[0][-len(follow_up) :]
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-6)


def test_without_room_for_a_copy_it_cannot_be_told():
    engine = make_engine(router=WHOLE_BINS, context=START + 40)
    read(engine, random_tokens(OPENING, seed=9) + DOCUMENT)
    ask(engine, QUESTION, 16)
    before = engine.token_ids
    assert depends(engine, START, len(QUESTION), PASSAGES, OPENING)
    assert engine.token_ids == before
