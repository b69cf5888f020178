"""An answer with its sources, and the turn that is saved of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hga_chat.sessions.types import SavedTurn
from hga_chat.sources import Source
from hga_engine.events import Finished

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Answer:
    """One turn."""

    question: str
    text: str
    sources: tuple[Source, ...]
    finished: Finished
    group_mass: "torch.Tensor"
    """[groups] float32: attention mass per group of the session, summed over the answer; none
    of ``Conversation.turns``."""
    token_ids: tuple[int, ...] = ()
    """The turn in the session: the question with what introduces it, and the answer."""
    from_conversation: bool = False
    """Whether it read earlier turns more than any passage; not known where the turn was saved."""


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    shorter = min(len(one), len(other))
    return next((n for n in range(shorter) if one[n] != other[n]), shorter)


def saved_turn(answer: Answer) -> SavedTurn:
    """What is kept of a turn."""
    return SavedTurn(
        answer.question, answer.text, answer.sources, answer.finished, answer.token_ids
    )


def kept_answer(turn: SavedTurn) -> Answer:
    """A turn that was kept."""
    import torch

    return Answer(
        turn.question, turn.text, turn.sources, turn.finished, torch.zeros(0), turn.token_ids
    )


def _unanswered(question: str) -> Answer:
    """The answer to a question that was cancelled while the documents were being read."""
    import torch

    finished = Finished(
        reason="cancelled",
        prompt_tokens=0,
        completion_tokens=0,
        prefill_s=0.0,
        ttft_s=0.0,
        decode_tokens_per_s=0.0,
        sparsity=0.0,
    )
    return Answer(question, "", (), finished, torch.zeros(0))
