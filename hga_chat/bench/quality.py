"""How far routed attention is from dense attention, on the same text with the same model."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from hga_chat.bench.text import Needle, make_needles, plant
from hga_engine.attention.attention import Reading, Rule
from hga_engine.config import CacheConfig, EngineConfig, RouterConfig, SamplingParams
from hga_engine.engine import Engine
from hga_engine.events import TextDelta
from hga_engine.model.files import ModelFiles
from hga_engine.opening import open_engine, prepare_model

_ANSWER_TOKENS = 24
_QUESTION_ROOM = 128


@dataclass(frozen=True)
class Measured:
    """One way of attending over the text."""

    nats: torch.Tensor
    """[tokens - 1] float64: negative log-likelihood of each token after the first."""
    sparsity: float
    needles: int

    def mean(self, start: int = 0) -> float:
        """Mean nats a token from ``start`` on."""
        return float(self.nats[start:].mean())


def fit_text(engine: Engine, text: str, needles: Sequence[Needle], tokens: int) -> list[int]:
    """Cut ``text`` so that it has ``tokens`` tokens with the needles in it; planted throughout.

    Raises:
        ValueError: the text is too short.
    """
    encode: Callable[[str], list[int]] = engine.tokenizer.encode
    whole = encode(text)
    facts = sum(len(encode(f"# {needle.fact}\n")) for needle in needles)
    if len(whole) + facts < tokens:
        raise ValueError(f"the text has {len(whole):,} tokens; {tokens:,} are needed")
    return encode(plant(engine.tokenizer.decode(whole[: tokens - facts]), needles))[:tokens]


def measure(
    engine: Engine,
    token_ids: Sequence[int],
    needles: Sequence[Needle],
    rule: Rule,
    note: Callable[[str], None],
) -> Measured:
    """Score the text and ask for each needle. The engine's session is empty before and after."""
    reading = Reading(0)
    nats: list[torch.Tensor] = []
    targets = torch.tensor(token_ids)
    done = 0
    for logits in engine.logits(token_ids, rule, reading):
        following = targets[done + 1 : done + 1 + logits.shape[0]]
        scores = logits[: len(following)].log_softmax(-1)
        nats.append(-scores.gather(1, following[:, None])[:, 0].double())
        done += logits.shape[0]
        note(f"{done:,} of {len(token_ids):,} tokens")
    found = 0
    tokenizer = engine.tokenizer
    for needle in needles:
        prompt = [
            *tokenizer.to_next_question(),
            *tokenizer.encode(needle.question),
            *tokenizer.to_answer(),
        ]
        sampling = SamplingParams(max_new_tokens=_ANSWER_TOKENS)
        events = engine.answer(prompt, sampling)
        answer = "".join(event.text for event in events if isinstance(event, TextDelta))
        found += needle.answer in answer
        engine.truncate(len(token_ids))
    engine.truncate(0)
    return Measured(torch.cat(nats), reading.sparsity, found)


def run_quality(
    files: ModelFiles,
    text: str,
    context: int,
    needles: int,
    seed: int,
    router: RouterConfig,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Measure dense attention, the decode rule and the prefill rule on one text.

    Args:
        files: the model.
        text: long enough for ``context`` tokens.
        context: tokens of the text, needles included.
        needles: facts to plant and ask for.
        seed: of the facts.
        router: which router, and its budgets.
        note: told what is going on.

    Returns:
        The object that ``bench quality --json`` prints.

    Raises:
        ValueError: the text is too short, or there are too many needles.
    """
    model = prepare_model(files)
    cache = CacheConfig(context=context + _QUESTION_ROOM)
    planted = make_needles(needles, seed)
    token_ids: list[int] = []
    measured: dict[str, Measured] = {}
    for name in ("dense", "decode", "prefill"):
        rule: Rule = "prefill" if name == "prefill" else "decode"
        used = dataclasses.replace(router, router="dense") if name == "dense" else router
        engine = open_engine(model, EngineConfig(router=used, cache=cache))
        token_ids = token_ids or fit_text(engine, text, planted, context)
        # Dense attention is the same under both rules; whole blocks are faster.
        scored_by: Rule = "prefill" if name == "dense" else rule
        measured[name] = measure(
            engine, token_ids, planted, scored_by, partial(_note_as, note, name)
        )
        engine.close()
    dense = measured.pop("dense")
    half = len(token_ids) // 2
    return {
        "context": len(token_ids),
        "dense_nats": dense.mean(),
        "rules": {
            name: {
                "gap_nats": result.mean() - dense.mean(),
                "gap_last_half_nats": result.mean(half) - dense.mean(half),
                "sparsity": result.sparsity,
                "needles": result.needles,
            }
            for name, result in measured.items()
        },
        "needles_dense": dense.needles,
        "needles_total": len(planted),
        "model": files.name,
        "router": router.router,
        "budget_tokens": router.decode_budget * router.group_size,
    }


def _note_as(note: Callable[[str], None], name: str, text: str) -> None:
    note(f"{name}: {text}")
