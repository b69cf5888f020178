"""An answer with its sources, and the turn that is saved of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from hga_chat.scope import EVERYTHING, Scope
from hga_chat.sessions.types import SavedTurn
from hga_chat.sources import Source
from hga_engine.events import Finished


@dataclass(frozen=True)
class Answer:
    """A question with its answer."""

    question: str
    text: str
    sources: tuple[Source, ...]
    finished: Finished
    token_ids: tuple[int, ...] = ()
    """The turn's tokens in the session: the prompt with the question, and the answer."""
    from_conversation: bool = False
    """Whether it attended to earlier turns more than to any passage; False for a saved turn, where
    it is not known."""
    thought: str = ""
    """What the model thought before it answered."""
    scope: Scope = EVERYTHING
    """The documents that it could attend to."""
    remark: str = ""
    """What to say of names in the question that no document has; not saved."""

    @property
    def scope_note(self) -> str:
        """What to say about its documents; empty if there is nothing to say."""
        return " ".join(filter(None, (self.scope.as_text(), self.remark)))


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix of two token sequences."""
    shorter = min(len(one), len(other))
    return next((n for n in range(shorter) if one[n] != other[n]), shorter)


def saved_turn(answer: Answer) -> SavedTurn:
    """Return what is saved of an answer."""
    return SavedTurn(
        answer.question,
        answer.text,
        answer.sources,
        answer.finished,
        answer.token_ids,
        answer.thought,
        answer.scope,
    )


def restored_answer(turn: SavedTurn) -> Answer:
    """Return the answer of a saved turn."""
    return Answer(
        turn.question,
        turn.text,
        turn.sources,
        turn.finished,
        turn.token_ids,
        thought=turn.thought,
        scope=turn.scope,
    )


def cancelled_answer(question: str) -> Answer:
    """Return the answer to a question that was cancelled during the prefill of the documents."""
    finished = Finished(
        reason="cancelled",
        prompt_tokens=0,
        completion_tokens=0,
        prefill_s=0.0,
        ttft_s=0.0,
        decode_tokens_per_s=0.0,
        sparsity=0.0,
    )
    return Answer(question, "", (), finished)
