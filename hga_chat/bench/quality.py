"""Measures the gap of routed to dense attention on the same texts with the same model."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from hga_chat.bench.figures import compare, families, needles_by_depth
from hga_chat.bench.measure import (
    COPY_TOKENS,
    TASK_TOKENS,
    Answered,
    Sample,
    Scored,
    answer_tasks,
    score_text,
)
from hga_chat.bench.tasks import TaskSet, make_tasks, single_token_words
from hga_chat.bench.text import depths, make_needles, plant_from
from hga_engine.attention.routed import Rule
from hga_engine.config import EngineConfig, RouterName
from hga_engine.opening import LoadedModel, open_engine

_QUESTION_ROOM = 256 + max(COPY_TOKENS, TASK_TOKENS)
_LIST_SHARE = 0.1
"""Words of a list that a task asks about, as a share of the context's tokens."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class QualityPlan:
    """The texts to make, and the routers, budgets and rules to measure on them."""

    context: int
    """Tokens of each text, including planted facts."""
    needles: int = 10
    """Facts to plant in each text and ask for."""
    tasks: int = 0
    """Tasks of each family to ask about each text; they take a second prefill."""
    seeds: tuple[int, ...] = (0,)
    """Each seed chooses what is planted and where in the text to begin."""
    routers: tuple[RouterName, ...] = ("hga",)
    budgets: tuple[int, ...] = (4096,)
    """Tokens under the decode rule; the prefill rule has proportionally more."""
    rules: tuple[Rule, ...] = get_args(Rule)


def run_quality(
    model: LoadedModel, texts: Sequence[str], plan: QualityPlan, config: EngineConfig, note: Note
) -> dict[str, Any]:
    """Measure dense attention, and every router, budget and rule of the plan, on every text.

    Dense attention and the routers see the same tokens. The copies and questions after a text use
    the same rule as the text; answers are decoded.

    Args:
        model: the loaded model.
        texts: each long enough for the context.
        plan: what to measure.
        config: the engine's configuration; its router, budget and context are replaced.
        note: receives notes on progress.

    Returns:
        The object that ``bench quality --json`` prints: figures of the first router and budget
        under ``rules``, of all under ``runs``. Intervals are 95% confidence intervals of the mean,
        assuming that segments of 256 tokens are independent.

    Raises:
        ValueError: a text is too short, or there are too many needles.
    """
    samples = [
        _sample(model, text, plan, seed, with_tasks)
        for with_tasks in (False, True)[: 1 + bool(plan.tasks)]
        for text in texts
        for seed in plan.seeds
    ]
    plain = [sample for sample in samples if not sample.tasks]
    hard = [sample for sample in samples if sample.tasks]
    configs = [
        dataclasses.replace(config, router=name, budget_tokens=budget)
        for name in plan.routers
        for budget in plan.budgets
    ]
    measured = partial(_measure, model, plan.context, plain, hard)
    # Dense attention is the same under both rules; the prefill rule is faster.
    dense_config = dataclasses.replace(config, router="dense")
    dense, dense_answers = measured(dense_config, "prefill", partial(_note_as, note, "dense"))
    dense_families = families(hard, dense_answers)
    runs = []
    for one in configs:
        for rule in plan.rules:
            name = f"{one.router}, {one.budget_tokens} tokens, {rule} rule"
            scored, answers = measured(one, rule, partial(_note_as, note, name))
            figures = compare(scored, dense)
            figures["tasks"] = families(hard, answers)
            for family, row in figures["tasks"].items():
                row["answer_gap_nats"] = row["answer_nats"] - dense_families[family]["answer_nats"]
            run = {"router": one.router, "rule": rule, "budget_tokens": one.budget_tokens}
            runs.append({**run, **figures})
            note(f"{name}: {figures['gap_nats']:+.4f} nats, {figures['sparsity']:.2%} attended")
    first = [(run["router"], run["budget_tokens"]) == _key(runs[0]) for run in runs]
    return {
        "context": plan.context,
        "dense_nats": sum(float(one.nats.mean()) for one in dense) / len(dense),
        "rules": {run["rule"]: run for run, is_first in zip(runs, first, strict=True) if is_first},
        "needles_dense": sum(sum(one.needles) for one in dense),
        "needles_total": sum(len(sample.needles) for sample in plain),
        "model": model.name,
        "router": runs[0]["router"],
        "budget_tokens": runs[0]["budget_tokens"],
        "texts": len(texts),
        "seeds": list(plan.seeds),
        "needles_dense_by_depth": needles_by_depth(dense),
        "copies_dense_nats": sum(float(one.copies.mean()) for one in dense) / len(dense),
        "tasks_dense": dense_families,
        "runs": runs,
    }


def _key(run: dict[str, Any]) -> tuple[str, int]:
    return run["router"], run["budget_tokens"]


def _measure(
    model: LoadedModel,
    context: int,
    plain: Sequence[Sample],
    hard: Sequence[Sample],
    config: EngineConfig,
    rule: Rule,
    note: Note,
) -> tuple[list[Scored], list[Answered]]:
    """Score every text under one router and rule."""
    cache = dataclasses.replace(config.cache, context=context + _QUESTION_ROOM)
    engine = open_engine(model, dataclasses.replace(config, cache=cache))
    try:
        is_dense = config.router == "dense"
        scored = [score_text(engine, sample, rule, note, dense=is_dense) for sample in plain]
        return scored, [answer_tasks(engine, sample, rule, note) for sample in hard]
    finally:
        engine.close()


def _sample(
    model: LoadedModel, text: str, plan: QualityPlan, seed: int, with_tasks: bool
) -> Sample:
    """Return an excerpt of a text with needles or tasks planted, all chosen by the seed."""
    tokenizer = model.tokenizer
    needles = () if with_tasks else tuple(make_needles(plan.needles, seed))
    planted = TaskSet((), tuple(n.fact for n in needles), tuple(depths(len(needles))))
    if with_tasks:
        words = single_token_words(tokenizer.token_bytes, tokenizer.vocab_size)
        planted = make_tasks(words, plan.tasks, int(plan.context * _LIST_SHARE), seed)
    # The excerpt of the first seed is the beginning of the text.
    start = seed if seed != plan.seeds[0] else None
    token_ids = plant_from(tokenizer, text, planted.facts, planted.places, plan.context, start)
    return Sample(tuple(token_ids), needles, planted.tasks)


def _note_as(note: Note, name: str, text: str) -> None:
    note(f"{name}: {text}")
