"""Documents and the turns about them, over one engine; the same under ``ask`` and the screen."""

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

from hga_chat.conversation.answer import Answer, _unanswered, common_prefix, kept_answer, saved_turn
from hga_chat.conversation.prompts import first_question, next_question
from hga_chat.documents import LoadedDocuments
from hga_chat.output import human_bytes
from hga_chat.sessions.types import SavedDocuments
from hga_chat.sources import Attribution, add_mass, attribute
from hga_engine.config import SamplingParams
from hga_engine.errors import EngineError, SavedStateError
from hga_engine.events import Finished, PrefillProgress, TextDelta

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens, Skipped
    from hga_chat.sessions.saved import SavedSession
    from hga_engine.engine import Engine


class Conversation:
    """Documents and turns over one engine. Not thread safe: the engine's thread uses it.

    Attributes:
        engine: what answers; the conversation owns its session.
        layout: the documents' tokens with their provenance, or None without documents.
        skipped: what was not read, and why.
        turns: the answers that stand in the session, in order.
        document_start: session position of the documents' first token.
        saved: where the session is kept, or None.
        notes: what the person should know about how it was opened.
    """

    def __init__(
        self,
        engine: "Engine",
        layout: "DocumentTokens | None",
        skipped: "Sequence[Skipped]" = (),
        system: str | None = None,
        turns: Sequence[Answer] = (),
        saved: "SavedSession | None" = None,
    ) -> None:
        """Go on with what of documents and turns the engine holds; the rest is still to be read."""
        self.engine = engine
        self.layout = layout
        self.skipped = tuple(skipped)
        self.turns = list(turns)
        self.saved = saved
        self.notes: list[str] = []
        self._opening = engine.tokenizer.opening(system)
        self.document_start = len(self._opening)
        held = self._held()
        if held < engine.num_tokens:
            engine.truncate(held)

    @property
    def document_end(self) -> int:
        """Session position after the documents' last token."""
        return self.document_start + (len(self.layout.token_ids) if self.layout else 0)

    def turn_start(self, number: int) -> int:
        """Session position of the first token of a turn, the first of which has number 0."""
        return self.document_end + sum(len(turn.token_ids) for turn in self.turns[:number])

    @property
    def unread(self) -> int:
        """Tokens of documents and turns that are still to be read."""
        turns = sum(len(turn.token_ids) for turn in self.turns)
        return max(self.document_end + turns - self.engine.num_tokens, 0)

    @property
    def is_read(self) -> bool:
        """Whether the documents and all turns stand in the session."""
        return not self.unread

    def _text(self) -> list[int]:
        """All tokens the session is to hold."""
        documents = self.layout.token_ids if self.layout else []
        turns = [token for turn in self.turns for token in turn.token_ids]
        return [*self._opening, *documents, *turns]

    def _held(self) -> int:
        """How many tokens that the engine holds can stay.

        While documents are read, the queries of a chunk share a selection, so a chunk in which
        something changed is read again as a whole.
        """
        same = common_prefix(self.engine.token_ids, self._text())
        if same >= self.document_end:
            return same
        return same - same % self.engine.config.routing.chunk_size

    def prefill(self, cancel: threading.Event | None = None) -> Iterator[PrefillProgress]:
        """Read what is unread into the engine.

        Cancelled, it ends early and the session is as before.

        Raises:
            ContextFullError: the documents are longer than the context.
        """
        if not self.is_read:
            with self._noticing_damage():
                yield from self.engine.prefill(self._text()[self.engine.num_tokens :], cancel)

    def rewind(self) -> None:
        """Forget every turn; the documents stay read."""
        self.engine.truncate(self.document_end)
        self.turns.clear()

    def forget(self, turns: int | None = None) -> None:
        """Take the last ``turns`` out of the session; None: all of them."""
        gone = self.turns[-turns:] if turns else [] if turns == 0 else self.turns
        tokens = sum(len(turn.token_ids) for turn in gone)
        self.engine.truncate(max(self.engine.num_tokens - tokens, 0))
        del self.turns[len(self.turns) - len(gone) :]

    def save(self) -> list[str]:
        """Save documents, turns and K/V, where the session is kept.

        Returns:
            What the person should know of it.

        Raises:
            OSError, EngineError: something could not be written; the conversation can go on.
        """
        if self.saved is None or not self.is_read:
            return []
        turns = tuple(map(saved_turn, self.turns))
        with self._noticing_damage():
            removed = self.saved.save(self.engine.save, self._documents(), turns)
        return [
            f"The K/V of session {entry.id} ({entry.title}, {human_bytes(entry.bytes)}) was "
            "removed to keep within --disk-limit; it is read again when the session is opened."
            for entry in removed
        ]

    def save_if_possible(self) -> list[str]:
        """Save; where that fails, say so and go on."""
        try:
            return self.save()
        except (OSError, EngineError) as error:
            from hga_chat.errors import describe

            return [f"The session could not be saved: {describe(error)}"]

    def save_reading(self) -> list[str]:
        """Save what was read, and nothing of the turns since; where that fails, say so."""
        self.rewind()
        if self.saved is not None:
            self.turns += map(kept_answer, self.saved.turns)
        return self.save_if_possible()

    def _documents(self) -> SavedDocuments:
        spans = self.layout.documents if self.layout else ()
        loaded = LoadedDocuments(tuple(span.document for span in spans), self.skipped)
        return SavedDocuments(loaded, tuple(span.tokens for span in spans))

    @contextmanager
    def _noticing_damage(self) -> Iterator[None]:
        """K/V that turns out to be damaged is removed, and computed again at the next opening."""
        try:
            yield
        except SavedStateError as error:
            if self.saved is None:
                raise
            self.saved.drop_state()
            raise SavedStateError(f"{error} It was removed.") from error

    def close(self) -> None:
        """Give the engine's memory back, and let others open the session."""
        self.engine.close()
        if self.saved is not None:
            self.saved.close()

    def ask(
        self, question: str, sampling: SamplingParams, cancel: threading.Event | None = None
    ) -> Generator[PrefillProgress | TextDelta | Answer, None, None]:
        """Ask, after reading the documents if that was not done; ends with one ``Answer``.

        Cancelled before the first token, the question leaves no mark in the session; cancelled
        later, what has been answered stays.

        Raises:
            ContextFullError: the question does not fit; the session is as before.
        """
        import torch

        yield from self.prefill(cancel)
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
        traced: list[TextDelta] = []
        try:
            with self._noticing_damage():
                for event in self.engine.answer(prompt, sampling, cancel):
                    if isinstance(event, Finished):
                        finished = event
                    else:
                        if isinstance(event, TextDelta):
                            said.append(event.text)
                            if event.token_id >= 0:  # else the rest of a character, not a token
                                traced.append(event)
                        yield event
        except BaseException:
            self.engine.truncate(before)
            raise
        masses = (delta.trace.bin_mass for delta in traced)
        mass = reduce(add_mass, masses, torch.zeros(0))
        found = Attribution()
        if self.layout:
            found = attribute(
                [delta.trace.all_mass for delta in traced],
                [delta.text for delta in traced],
                self.layout,
                self.document_start,
                before,
            )
        turn = tuple(self.engine.token_ids[before:])
        answer = Answer(
            question,
            "".join(said),
            found.sources,
            finished,
            mass,
            turn,
            found.from_conversation,
        )
        if finished.reason == "cancelled" and not finished.completion_tokens:
            self.engine.truncate(before)
        else:
            # What a turn read is for whoever asked: at 64K it takes 50 KB, its text takes 1.
            self.turns.append(replace(answer, group_mass=torch.zeros(0)))
        yield answer
