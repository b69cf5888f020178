"""Whether an answer depends on the passages it read: hide them, and score the same answer again.

The groups of a passage are hidden from the question and the answer, as if they had been cut out of
the session; what later parts of the documents took over from them while they were read stays, and
where a hidden group was drawn to stand for others, they are not read for it.
"""

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hga_chat.sources import TRACE_BIN_TOKENS, Source

if TYPE_CHECKING:
    from hga_chat.conversation.conversation import Conversation
    from hga_engine.engine import Engine

_SEED = 0


@dataclass(frozen=True)
class Effect:
    """What hiding one passage does to the answer."""

    source: Source
    drop: float
    """Nats by which the answer's log-probability falls; below zero where it rises."""
    random_drop: float
    """The same for a passage of the same length elsewhere in the documents."""

    @property
    def counts(self) -> bool:
        """Whether the answer depends on it more than on a passage that was picked blindly."""
        return self.drop > self.random_drop


@dataclass(frozen=True)
class Verification:
    """An answer scored with and without what it read."""

    log_probability: float
    """Of the answer, in nats, with everything in place."""
    effects: tuple[Effect, ...]
    """In the order of the answer's sources."""
    seconds: float

    def as_text(self) -> str:
        """What to tell people, in two lines; a drop of 2.3 nats is a tenth of the probability."""
        drops, random_drops = (
            ", ".join(f"{drop:.1f}" for drop in kind)
            for kind in (
                [effect.drop for effect in self.effects],
                [effect.random_drop for effect in self.effects],
            )
        )
        return (
            f"Without them, one at a time, the answer's log-probability falls by {drops} nats;\n"
            f"without passages of the same length picked blindly by {random_drops}."
        )

    def as_object(self) -> dict[str, object]:
        """What is printed of it as JSON, in the order of the sources."""
        return {
            "log_probability": round(self.log_probability, 4),
            "drops": [round(effect.drop, 4) for effect in self.effects],
            "random_drops": [round(effect.random_drop, 4) for effect in self.effects],
            "seconds": round(self.seconds, 3),
        }


def verify(
    conversation: "Conversation", turn_number: int, cancel: threading.Event | None = None
) -> Verification:
    """Score an answer again without each of its sources, and without passages picked blindly.

    Question and answer are read twice for each source and once more. The session is then as
    before, but for rounding: this turn and later ones are read again.

    Args:
        conversation: whose documents and turns stand in the engine.
        turn_number: of the answer, from 0.
        cancel: set by another thread to stop after the source in hand.

    Raises:
        ValueError: the turn has no sources.
        SavedStateError: what was resumed is damaged.
    """
    turn = conversation.turns[turn_number]
    if not turn.sources:
        raise ValueError("the answer has no sources to verify")
    began = time.perf_counter()
    engine = conversation.engine
    everything = engine.token_ids
    start = conversation.turn_start(turn_number)
    asked = turn.finished.prompt_tokens
    question, answer = turn.token_ids[:asked], turn.token_ids[asked:]
    effects = []
    try:
        whole = _score(engine, start, question, answer)
        size = engine.config.routing.group_size
        taken = [_groups_of(source, conversation.document_start, size) for source in turn.sources]
        for source, groups, blind in zip(
            turn.sources, taken, _elsewhere(conversation, taken, size), strict=True
        ):
            if cancel is not None and cancel.is_set():
                break
            drops = [whole - _score(engine, start, question, answer, g) for g in (groups, blind)]
            effects.append(Effect(source, *drops))
    finally:
        engine.truncate(start)
        for _ in engine.logits(everything[start:]):
            pass
    return Verification(whole, tuple(effects), time.perf_counter() - began)


def _score(
    engine: "Engine",
    start: int,
    question: Sequence[int],
    answer: Sequence[int],
    hidden: Sequence[int] = (),
) -> float:
    """Log-probability in nats of the answer to a question that begins at position ``start``."""
    engine.truncate(start)
    # The token that follows each; what follows those of the question does not count.
    following = torch.tensor([*[-1] * (len(question) - 1), *answer])
    total, done = 0.0, 0
    for logits in engine.logits([*question, *answer[:-1]], hidden_groups=hidden):
        targets = following[done : done + len(logits)].to(logits.device)
        done += len(logits)
        scored = targets >= 0
        nats = logits[scored].log_softmax(-1).gather(1, targets[scored][:, None])
        total += float(nats.double().sum())
    return total


def _groups_of(source: Source, document_start: int, size: int) -> range:
    """The pages of a size that hold a passage, without the first group, which all tokens need."""
    start, end = (document_start + token for token in (source.start_token, source.end_token))
    return range(max(start, TRACE_BIN_TOKENS) // size, -(-end // size))


def _elsewhere(conversation: "Conversation", taken: Sequence[range], size: int) -> list[list[int]]:
    """For each passage as many neighbouring groups elsewhere in the documents, if there are."""
    draw = random.Random(_SEED)  # noqa: S311
    first = -(-max(conversation.document_start, TRACE_BIN_TOKENS) // size)
    last = conversation.document_end // size
    used = {group for groups in taken for group in groups}
    picked = []
    for groups in taken:
        places = [
            range(start, start + len(groups))
            for start in range(first, last - len(groups) + 1)
            if used.isdisjoint(range(start, start + len(groups)))
        ]
        picked.append(list(draw.choice(places)) if places else [])
    return picked
