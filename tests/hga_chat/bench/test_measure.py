"""Scores of tiny engines, compared with the same model under torch's attention."""

from dataclasses import replace

import pytest
import torch

from hga_chat.bench.measure import COPIES, Sample, score_text, share_known
from tests.support.tiny_engine import FULL, LLAMA, PARTIAL, dense_pass, make_engine, random_tokens

pytestmark = pytest.mark.usefixtures("single_thread")

TOKENS = tuple(random_tokens(120))
DENSE = replace(FULL, kind="dense")


def score(router, rule="decode"):
    engine = make_engine(router=router)
    is_dense = router.kind == "dense"
    scored = score_text(engine, Sample(TOKENS), rule, lambda _: None, dense=is_dense)
    assert engine.num_tokens == 0
    return scored


def nats_of(tokens):
    """Return the nats of each token after the first."""
    logits = dense_pass(LLAMA, tokens)[0].log_softmax(-1)
    return torch.tensor([-float(logits[n - 1, tokens[n]]) for n in range(1, len(tokens))])


@pytest.mark.parametrize("rule", ["decode", "prefill"])
@pytest.mark.parametrize("router", [DENSE, FULL])
def test_a_full_budget_is_dense_attention(router, rule):
    scored = score(router, rule)
    torch.testing.assert_close(scored.nats.float(), nats_of(TOKENS), rtol=1e-4, atol=1e-5)
    choices = dense_pass(LLAMA, TOKENS)[0][:-1].argmax(-1)
    torch.testing.assert_close(scored.choices, choices.int())
    assert scored.sparsity == pytest.approx(1)
    if router is FULL:
        torch.testing.assert_close(scored.coverage.attended, scored.coverage.total)


def test_copies_are_scored_after_the_text_without_their_beginning():
    scored = score(DENSE)
    assert len(scored.copies) == COPIES
    length, lead = len(TOKENS) // 4, len(TOKENS) // 8
    for number, found in enumerate(scored.copies.tolist()):
        start = (len(TOKENS) - length) * number // COPIES
        copied = TOKENS[start : start + length]
        nats = nats_of([*TOKENS, *copied])[-(length - 1) :][lead:]
        assert found == pytest.approx(float(nats.mean()), rel=1e-4)


def test_a_small_budget_attends_to_less_and_covers_less():
    scored = score(PARTIAL)
    assert scored.sparsity_last_half < scored.sparsity < 0.7
    coverage = scored.coverage
    assert bool((coverage.attended < coverage.total).all())
    assert not torch.allclose(scored.nats.float(), nats_of(TOKENS), rtol=1e-2)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [((), 1), ((0, 6), 1), ((2,), 0.5), ((3,), 0.5), ((5,), 0.5), ((2, 5), 0)],
)
def test_a_word_is_known_if_all_its_tokens_are_right(wrong, expected):
    pieces = [b"The one", b" is a", b" moss", b"y", b", not", b" moss", b"."]
    right = [number not in wrong for number in range(len(pieces))]
    assert share_known(pieces, right, ("mossy", "moss")) == expected


def test_an_answer_must_contain_its_words():
    with pytest.raises(AssertionError, match="'cat' is not in"):
        share_known([b"concatenate"], [True], ("cat",))
