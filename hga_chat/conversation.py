"""Documents and the turns about them, over one engine; the same under ``ask`` and the screen."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import torch

from hga_chat.prompts import first_question, next_question
from hga_chat.sources import Source, add_mass, find_sources, standing_out
from hga_engine.config import SamplingParams
from hga_engine.events import Finished, PrefillProgress, TextDelta

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens, Skipped
    from hga_engine.engine import Engine


@dataclass(frozen=True)
class Answer:
    """One turn."""

    question: str
    text: str
    sources: tuple[Source, ...]
    finished: Finished
    group_mass: torch.Tensor
    """[groups] float32: attention mass per group of the session, summed over the answer."""


class Conversation:
    """Documents and turns over one engine. Not thread safe: the engine's thread uses it.

    Attributes:
        engine: what answers; the conversation owns its session.
        layout: the documents' tokens with their provenance, or None without documents.
        skipped: what was not read, and why.
        turns: the answers that stand in the session, in order.
        document_start: session position of the documents' first token.
    """

    def __init__(
        self,
        engine: "Engine",
        layout: "DocumentTokens | None",
        skipped: "Sequence[Skipped]" = (),
        system: str | None = None,
    ) -> None:
        self.engine = engine
        self.layout = layout
        self.skipped = tuple(skipped)
        self.turns: list[Answer] = []
        self._opening = engine.tokenizer.opening(system)
        self.document_start = len(self._opening)

    @property
    def is_read(self) -> bool:
        """Whether the documents stand in the session."""
        return self.engine.num_tokens > 0

    def read(self, cancel: threading.Event | None = None) -> Iterator[PrefillProgress]:
        """Read the documents into the engine, unless that is done.

        Cancelled, it ends early and nothing has been read.

        Raises:
            ContextFullError: the documents are longer than the context.
        """
        if not self.is_read:
            documents = self.layout.token_ids if self.layout else []
            yield from self.engine.read([*self._opening, *documents], cancel)

    def rewind(self) -> None:
        """Forget every turn; the documents stay read."""
        if self.is_read:
            documents = len(self.layout.token_ids) if self.layout else 0
            self.engine.truncate(self.document_start + documents)
        self.turns.clear()

    def ask(
        self, question: str, sampling: SamplingParams, cancel: threading.Event | None = None
    ) -> Iterator[PrefillProgress | TextDelta | Answer]:
        """Ask, after reading the documents if that was not done; ends with one ``Answer``.

        Cancelled before the first token, the question leaves no mark in the session; cancelled
        later, what has been answered stays.

        Raises:
            ContextFullError: the question does not fit; the session is as before.
        """
        yield from self.read(cancel)
        if not self.is_read:
            yield _unanswered(question)
            return
        tokenizer = self.engine.tokenizer
        if self.turns:
            prompt = next_question(tokenizer, question)
        else:
            prompt = first_question(tokenizer, question, after_documents=self.layout is not None)
        before = self.engine.num_tokens
        said: list[str] = []
        read: list[torch.Tensor] = []
        try:
            for event in self.engine.answer(prompt, sampling, cancel):
                if isinstance(event, Finished):
                    finished = event
                else:
                    if isinstance(event, TextDelta):
                        said.append(event.text)
                        if event.token_id >= 0:  # else the rest of a character, not a token
                            read.append(event.trace.group_mass)
                    yield event
        except BaseException:
            self.engine.truncate(before)
            raise
        mass = reduce(add_mass, read, torch.zeros(0))
        sources: tuple[Source, ...] = ()
        if self.layout:
            # Where every token read the same, nothing stands out and all of it counts.
            sources = find_sources(standing_out(read), self.layout, self.document_start)
            sources = sources or find_sources(mass, self.layout, self.document_start)
        answer = Answer(question, "".join(said), sources, finished, mass)
        if finished.reason == "cancelled" and not finished.completion_tokens:
            self.engine.truncate(before)
        else:
            self.turns.append(answer)
        yield answer


def _unanswered(question: str) -> Answer:
    """The answer to a question that was cancelled while the documents were being read."""
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
