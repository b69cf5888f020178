"""Tell whether an answer depends on the passages that it attended to, by hiding them.

Attention alone does not tell: a model attends to a long text whatever it answers, and how much
differs between models. Log-probabilities mean the same for every model.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hga_chat.sources import TRACE_BIN_TOKENS
from hga_engine.errors import ContextFullError

if TYPE_CHECKING:
    from hga_engine.protocol import EngineProtocol

LEAST_DROP = math.log(2)
"""Nats. An answer depends on passages if it is at most half as likely without them."""
_SCORED_TOKENS = 64
"""The beginning of an answer that is scored."""


def depends(
    engine: "EngineProtocol",
    turn_start: int,
    prompt_tokens: int,
    passages: Sequence[tuple[int, int]],
    document_start: int,
) -> bool:
    """Tell whether the last answer becomes less likely when passages of the documents are hidden.

    The turn is appended once more, scored with and without the passages, and removed. The copy does
    not see the turn itself, which stays as it is.

    Args:
        engine: its session ends with the turn.
        turn_start: position of the turn's first token.
        prompt_tokens: tokens of the turn before the answer.
        passages: token ranges of the documents.
        document_start: position of the documents' first token.

    Returns:
        True as well where the context has no room for the copy.
    """
    tokens, end = engine.token_ids[turn_start:], engine.num_tokens
    size = engine.config.routing.group_size
    # Groups that the turn shares with its neighbours stay visible: a few tokens of a prompt, and
    # the last of the answer.
    turn = range(-(-turn_start // size), end // size)
    groups = {group for passage in passages for group in groups_of(passage, document_start, size)}
    question = tokens[:prompt_tokens]
    answer = tokens[prompt_tokens:][:_SCORED_TOKENS]
    # The last token may be pending, and would be appended with the copy.
    engine.truncate(end - 1)
    for _ in engine.logits(tokens[-1:]):
        pass
    try:
        without = log_probability(engine, question, answer, [*turn, *groups])
        engine.truncate(end)
        return log_probability(engine, question, answer, turn) - without >= LEAST_DROP
    except ContextFullError:
        return True
    finally:
        engine.truncate(end)


def log_probability(
    engine: "EngineProtocol",
    question: Sequence[int],
    answer: Sequence[int],
    hidden: Sequence[int] = (),
) -> float:
    """Append a question and its answer; return the answer's log-probability in nats.

    Args:
        engine: the engine; it stays without the answer's last token.
        question: the prompt's tokens.
        answer: its tokens.
        hidden: groups of the session that neither attends to.

    Raises:
        ContextFullError: they do not fit.
    """
    import torch

    # The target of each token, -1 where it is part of the question and does not count.
    following = torch.tensor([*[-1] * (len(question) - 1), *answer])
    total, done = 0.0, 0
    for logits in engine.logits([*question, *answer[:-1]], hidden_groups=hidden):
        targets = following[done : done + len(logits)].to(logits.device)
        done += len(logits)
        scored = targets >= 0
        nats = logits[scored].log_softmax(-1).gather(1, targets[scored][:, None])
        total += float(nats.double().sum())
    return total


def groups_of(passage: tuple[int, int], document_start: int, size: int) -> range:
    """Return the groups that hold a passage, without the first trace bin, the attention sink.

    Args:
        passage: its first token and one past the last, counted from the documents' first.
        document_start: position of the documents' first token.
        size: tokens of a group.
    """
    start, end = (document_start + token for token in passage)
    return range(max(start, TRACE_BIN_TOKENS) // size, -(-end // size))
