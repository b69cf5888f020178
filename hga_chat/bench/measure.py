"""Scores one text under one router and rule: nats, choices, coverage, answers."""

import bisect
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from hga_chat.bench.tasks import Task
from hga_chat.bench.text import Needle
from hga_engine.attention.coverage import Coverage
from hga_engine.attention.routed import Rule
from hga_engine.attention.trace import AttentionTotals
from hga_engine.config import SamplingParams
from hga_engine.engine import Engine
from hga_engine.events import TextDelta

NEEDLE_TOKENS, TASK_TOKENS = 24, 64
COPY_TOKENS, COPIES = 96, 5
_COPY_LEAD = 16
"""First tokens of a copy, which are not scored: they do not reveal yet what is copied."""
_SAMPLES = 64


@dataclass(frozen=True)
class Sample:
    """A text to measure on."""

    token_ids: tuple[int, ...]
    needles: tuple[Needle, ...] = ()
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True)
class Scored:
    """The scores of a text under one router and rule."""

    nats: torch.Tensor
    """[tokens - 1] float64: negative log-likelihood of each token after the first."""
    choices: torch.Tensor
    """[tokens - 1] int32: the likeliest token at each of these positions."""
    sparsity: float
    """Mean over positions of the attended share of the visible tokens."""
    sparsity_last_half: float
    coverage: Coverage | None
    copies: torch.Tensor
    """[copies] float64: mean nats per token of passages repeated after the text."""
    needles: tuple[bool, ...]
    """Whether each needle was answered, in the order they are planted."""


@dataclass(frozen=True)
class Answered:
    """The scores of a text's tasks under one router and rule."""

    scores: tuple[float, ...]
    """For each task, the share of the expected words that were answered, 0 to 1."""
    nats: tuple[float, ...]
    """For each task, the mean nats per token of the right answer."""
    known: tuple[float, ...]
    """For each task, the share of the expected words that greedy decoding predicts when it is
    given the right answer up to each of them, 0 to 1."""


def score_text(
    engine: Engine, sample: Sample, rule: Rule, note: Callable[[str], None], *, dense: bool
) -> Scored:
    """Score a text and ask for its needles. The engine's session is empty before and after.

    Args:
        engine: the engine to measure.
        sample: the text.
        rule: how queries share selections.
        note: receives notes on progress.
        dense: whether the engine attends to everything; coverage is not measured then.
    """
    model, tokens = engine.model_config, len(sample.token_ids)
    stride = max(engine.config.routing.chunk_size, tokens // _SAMPLES)
    coverage = None if dense else Coverage(model.num_layers, model.num_kv_heads, stride)
    totals = AttentionTotals(0, coverage, tokens)
    parts = []
    done = 0
    for part in _scores(engine, sample.token_ids, rule, totals):
        parts.append(part)
        done += len(part[0])
        note(f"{done:,} of {tokens:,} tokens")
    nats, choices = (torch.cat(columns) for columns in zip(*parts, strict=True))
    copies = [_copy_nats(engine, sample.token_ids, number, rule) for number in range(COPIES)]
    needles = []
    for needle in sample.needles:
        answer = _ask(engine, needle.question, NEEDLE_TOKENS)
        needles.append(needle.answer in answer)
    engine.truncate(0)
    shares = totals.shares / (model.num_layers * model.num_kv_heads)
    return Scored(
        nats=nats,
        choices=choices,
        sparsity=float(shares.mean()),
        sparsity_last_half=float(shares[tokens // 2 :].mean()),
        coverage=coverage,
        copies=torch.tensor(copies, dtype=torch.float64),
        needles=tuple(needles),
    )


def answer_tasks(
    engine: Engine, sample: Sample, rule: Rule, note: Callable[[str], None]
) -> Answered:
    """Prefill a text and answer its tasks. The engine's session is empty before and after."""
    steps = engine.prefill if rule == "prefill" else engine.logits
    for _ in steps(sample.token_ids):
        pass
    note(f"{len(sample.token_ids):,} tokens prefilled for the tasks")
    scores, nats, known = [], [], []
    for task in sample.tasks:
        answer = _ask(engine, task.question, TASK_TOKENS)
        scores.append(sum(expected in answer for expected in task.answers) / len(task.answers))
        answer_nats, answer_known = _right_answer(engine, task)
        nats.append(answer_nats)
        known.append(answer_known)
    engine.truncate(0)
    return Answered(tuple(scores), tuple(nats), tuple(known))


def _scores(
    engine: Engine, token_ids: Sequence[int], rule: Rule, totals: AttentionTotals | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Append a text; yield the nats and the likeliest tokens of each slice.

    The last token of the text has no target and is left out.
    """
    targets = torch.tensor(token_ids)
    done = 0
    for logits in engine.logits(token_ids, rule, totals):
        following = targets[done + 1 : done + 1 + len(logits)].to(logits.device)
        known = logits[: len(following)]
        nats = -known.log_softmax(-1).gather(1, following[:, None])[:, 0]
        yield nats.double().cpu(), known.argmax(-1).int().cpu()
        done += len(logits)


def _copy_nats(engine: Engine, token_ids: Sequence[int], number: int, rule: Rule) -> float:
    """Return the mean nats of a passage of the text that is repeated at its end."""
    tokens = len(token_ids)
    length = min(COPY_TOKENS, tokens // 4)
    start = int((tokens - length) * number / COPIES)
    copied = token_ids[start : start + length]
    nats = torch.cat([part for part, _ in _scores(engine, copied, rule)])
    engine.truncate(tokens)
    return float(nats[min(_COPY_LEAD, length // 2) :].mean())


def _prompt(engine: Engine, question: str) -> list[int]:
    tokenizer = engine.tokenizer
    return [
        *tokenizer.to_next_question(),
        *tokenizer.encode(question),
        *tokenizer.to_answer(),
    ]


def _ask(engine: Engine, question: str, tokens: int) -> str:
    """Return the greedy answer to a question after the text; the session is then as before."""
    before = engine.num_tokens
    events = engine.answer(_prompt(engine, question), SamplingParams(max_new_tokens=tokens))
    answer = "".join(event.text for event in events if isinstance(event, TextDelta))
    engine.truncate(before)
    return answer


def _right_answer(engine: Engine, task: Task) -> tuple[float, float]:
    """Return the mean nats per token of the right answer, and its known share."""
    before = engine.num_tokens
    prompt, answer = _prompt(engine, task.question), engine.tokenizer.encode(task.text)
    scored = list(_scores(engine, [*prompt, *answer], "decode"))
    engine.truncate(before)
    nats, choices = (torch.cat(columns)[len(prompt) - 1 :] for columns in zip(*scored, strict=True))
    right = (choices == torch.tensor(answer)).tolist()
    pieces = [engine.tokenizer.token_bytes(token) for token in answer]
    return float(nats.mean()), share_known(pieces, right, task.answers)


def share_known(pieces: Sequence[bytes], right: Sequence[bool], answers: Sequence[str]) -> float:
    """Return the share of expected words all of whose tokens are right.

    Args:
        pieces: the bytes of each token of the answer.
        right: whether each token is the likeliest.
        answers: the words that the answer contains, in this order.
    """
    ends = list(itertools.accumulate(map(len, pieces)))
    text, end, known = b"".join(pieces), 0, 0
    for answer in answers:
        found = re.compile(rb"\b" + re.escape(answer.encode()) + rb"\b").search(text, end)
        assert found, f"{answer!r} is not in {text!r}"
        end = found.end()
        first, last = bisect.bisect(ends, found.start()), bisect.bisect_left(ends, end)
        known += all(right[first : last + 1])
    return known / len(answers)
