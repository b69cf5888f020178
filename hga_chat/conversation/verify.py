"""Test whether an answer depends on its sources: hide each, and score the same answer again.

The groups of a passage are hidden from the question and the answer only. What later parts of the
documents took over from the passage during prefill stays. If a hidden group was sampled to stand
for others, no other group takes its place.
"""

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hga_chat.conversation.dependence import groups_of, log_probability
from hga_chat.sources import TRACE_BIN_TOKENS, Source

if TYPE_CHECKING:
    from hga_chat.conversation.conversation import Conversation

_SEED = 0


@dataclass(frozen=True)
class Effect:
    """The effect of hiding one passage on the answer."""

    source: Source
    drop: float
    """Nats by which the answer's log-probability falls; negative if it rises."""
    random_drop: float
    """The drop for a random passage of the same length elsewhere in the documents."""

    @property
    def counts(self) -> bool:
        """Whether the answer depends on it more than on a random passage."""
        return self.drop > self.random_drop


@dataclass(frozen=True)
class Verification:
    """An answer scored with and without its sources."""

    log_probability: float
    """Log-probability of the answer in nats, with nothing hidden."""
    effects: tuple[Effect, ...]
    """One for each source, in the order of the answer's sources."""
    seconds: float

    def as_text(self) -> str:
        """Return two lines for people; a drop of 2.3 nats means a tenth of the probability."""
        drops = ", ".join(f"{effect.drop:.1f}" for effect in self.effects)
        random_drops = ", ".join(f"{effect.random_drop:.1f}" for effect in self.effects)
        which = "this source" if len(self.effects) == 1 else "each source"
        return (
            f"Nats lost without {which}: {drops}; without a random passage as long: "
            f"{random_drops}.\n2.3 nats make the answer ten times less likely."
        )

    def as_object(self) -> dict[str, object]:
        """Return the object that is printed as JSON, in the order of the sources."""
        return {
            "log_probability": round(self.log_probability, 4),
            "drops": [round(effect.drop, 4) for effect in self.effects],
            "random_drops": [round(effect.random_drop, 4) for effect in self.effects],
            "seconds": round(self.seconds, 3),
        }


def verify(
    conversation: "Conversation", turn_number: int, cancel: threading.Event | None = None
) -> Verification:
    """Score an answer again without each of its sources, and without random passages.

    Question and answer are scored once as they are, and twice for each source. Afterwards this
    turn and later ones are prefilled again, so the session is as before, up to rounding.

    Args:
        conversation: its engine holds the documents and the turns.
        turn_number: number of the turn, from 0.
        cancel: set by another thread to stop after the current source.

    Raises:
        ValueError: the turn has no sources.
        SavedStateError: the resumed K/V is damaged.
    """
    turn = conversation.turns[turn_number]
    if not turn.sources:
        raise ValueError("the answer has no sources to verify")
    began = time.perf_counter()
    engine = conversation.engine
    start = conversation.turn_start(turn_number)
    asked = turn.finished.prompt_tokens
    question, answer = turn.token_ids[:asked], turn.token_ids[asked:]
    effects = []

    def score(hidden: Sequence[int]) -> float:
        engine.truncate(start)
        with conversation.leaving_out(turn.scope):
            return log_probability(engine, question, answer, hidden)

    try:
        whole = score(())
        size = engine.config.routing.group_size
        passages = [
            groups_of((source.start_token, source.end_token), conversation.document_start, size)
            for source in turn.sources
        ]
        random_passages = _random_passages(conversation, passages, size)
        for source, groups, others in zip(turn.sources, passages, random_passages, strict=True):
            if cancel is not None and cancel.is_set():
                break
            drop, random_drop = (whole - score(hidden) for hidden in (groups, others))
            effects.append(Effect(source, drop, random_drop))
    finally:
        engine.truncate(start)
        for later in conversation.turns[turn_number:]:
            with conversation.leaving_out(later.scope):
                for _ in engine.logits(later.token_ids):
                    pass
    return Verification(whole, tuple(effects), time.perf_counter() - began)


def _random_passages(
    conversation: "Conversation", passages: Sequence[range], size: int
) -> list[list[int]]:
    """Pick as many consecutive groups elsewhere in the documents for each passage.

    Args:
        conversation: its documents are picked from.
        passages: groups of each passage; none of them is picked.
        size: tokens of a group.

    Returns:
        Groups for each passage; empty if no other place is long enough.
    """
    draw = random.Random(_SEED)  # noqa: S311
    first = -(-max(conversation.document_start, TRACE_BIN_TOKENS) // size)
    last = conversation.document_end // size
    used = {group for groups in passages for group in groups}
    picked = []
    for groups in passages:
        candidates = [
            range(start, start + len(groups))
            for start in range(first, last - len(groups) + 1)
            if used.isdisjoint(range(start, start + len(groups)))
        ]
        picked.append(list(draw.choice(candidates)) if candidates else [])
    return picked
