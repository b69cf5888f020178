"""A conversation about documents over one engine; ``ask`` and the chat screen share it."""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise, takewhile
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from hga_chat.conversation.answer import (
    Answer,
    cancelled_answer,
    common_prefix,
    restored_answer,
    saved_turn,
)
from hga_chat.conversation.dependence import depends
from hga_chat.conversation.prompts import first_question, next_question
from hga_chat.conversation.room import larger_context, needs_new_prefill
from hga_chat.conversation.statement import stating
from hga_chat.conversation.thought import Thought, ThoughtSplitter, for_thinking
from hga_chat.display import displayable
from hga_chat.documents import LoadedDocuments
from hga_chat.errors import SessionFullError, describe, ways_out
from hga_chat.output import human_bytes
from hga_chat.scope import Scope, groups_left_out, matching, mentioned, named, unknown_note
from hga_chat.sessions.changes import changes_note
from hga_chat.sessions.types import SavedDocuments
from hga_chat.sources import TRACE_BIN_TOKENS, Attribution, attribute
from hga_engine.config import SamplingParams
from hga_engine.errors import ContextFullError, EngineError, SavedStateError
from hga_engine.events import Finished, PrefillProgress, TextDelta
from hga_engine.timing import prefill_work

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens, Skipped
    from hga_chat.sessions.saved import SavedSession
    from hga_engine.protocol import EngineProtocol

_LITTLE_ROOM = 1536
"""Tokens left at which a person is warned: two or three questions with their answers."""
_LONG_PREFILL = 512
"""Tokens of a prefill that shows how fast others are."""
_COMPUTED = (
    " The text after it was read with it there, so hints of it can remain; only a new "
    "'hga-chat ingest' with --exclude reads the rest without it."
)
_SAVE_EVERY_S = 60.0
"""Time between two saves of a prefill under way: what a crash costs."""


class Conversation:
    """Documents and turns over one engine. Not thread-safe: only the engine's thread may use it.

    Attributes:
        engine: the engine that answers; the conversation owns its session.
        layout: the documents' tokens with their provenance, or None without documents.
        skipped: what was not loaded, and why.
        turns: the answers in the session, in order.
        document_start: session position of the documents' first token.
        saved: where the session is saved, or None.
        notes: what to tell the user about how the conversation was opened.
        given: the paths that the user named, with where they are.
        thinks: whether to let the model think before it answers, if it can.
        pace: seconds that the last long prefill took by its work (``prefill_work``); None: there
            has been none.
        watches: whether to look for files that change while it is open, see ``news``.
        dropped: paths of the documents that are ticked off: questions do not attend to them.
    """

    def __init__(
        self,
        engine: "EngineProtocol",
        layout: "DocumentTokens | None",
        skipped: "Sequence[Skipped]" = (),
        turns: Sequence[Answer] = (),
        saved: "SavedSession | None" = None,
        dropped: Sequence[str] = (),
        system: str = "",
    ) -> None:
        """Keep the tokens of documents and turns that the engine already holds; drop others.

        Raises:
            ModelFileError: there are instructions, and the chat template has no place for them.
        """
        self.engine = engine
        self.layout = layout
        self.skipped = tuple(skipped)
        self.turns = list(turns)
        self.saved = saved
        self.notes: list[str] = []
        self.given: dict[str, Path] = {}
        self.thinks = False
        self.dropped = tuple(path for path in self.paths if path in dropped)
        self._is_told = False
        """Whether the user was told what ticking off does not undo."""
        self.pace: float | None = None
        self.watches = False
        self._save_notes: list[str] = []
        """Notes of saves during a prefill, which the next ``save`` returns."""
        self._opening = engine.tokenizer.opening(system or None)
        self.document_start = len(self._opening)
        reusable = self._reusable_tokens()
        if reusable < engine.num_tokens:
            engine.truncate(reusable)

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the documents."""
        return tuple(span.document.path for span in self.layout.documents) if self.layout else ()

    @property
    def document_end(self) -> int:
        """Session position after the documents' last token."""
        return self.document_start + (len(self.layout.token_ids) if self.layout else 0)

    def turn_start(self, number: int) -> int:
        """Return the session position of a turn's first token; turns count from 0."""
        return self.document_end + sum(len(turn.token_ids) for turn in self.turns[:number])

    @property
    def room_note(self) -> str | None:
        """What to say when little room is left for turns; None while there is enough."""
        left = self.engine.config.cache.context - self.engine.num_tokens
        if not self.turns or left >= _LITTLE_ROOM:
            return None
        return f"{left:,} tokens are left in this session. {self._ways_out()}"

    def _ways_out(self) -> str:
        larger = larger_context(self.engine)
        if larger is None:
            return ways_out()
        is_kept = self.saved is not None and not needs_new_prefill(self.engine, larger)
        return ways_out(larger, is_kept=is_kept)

    @property
    def text_tokens(self) -> int:
        """Tokens of documents and turns, prefilled or not."""
        return self.turn_start(len(self.turns))

    @property
    def pending_tokens(self) -> int:
        """Tokens of documents and turns that still have to be prefilled."""
        return max(self.text_tokens - self.engine.num_tokens, 0)

    @property
    def is_prefilled(self) -> bool:
        """Whether the engine holds all documents and turns."""
        return not self.pending_tokens

    def _text(self) -> list[int]:
        """Return all tokens that the session is to hold."""
        documents = self.layout.token_ids if self.layout else []
        turns = [token for turn in self.turns for token in turn.token_ids]
        return [*self._opening, *documents, *turns]

    def _reusable_tokens(self) -> int:
        """Return how many of the engine's tokens need no new prefill.

        In prefill the queries of a query block share a selection, so a block that has changed is
        prefilled again as a whole. A chunk is a multiple of a query block on every device.
        """
        same = common_prefix(self.engine.token_ids, self._text())
        if same >= self.document_end:
            return same
        return same - same % self.engine.config.routing.chunk_size

    def prefill(self, cancel: threading.Event | None = None) -> Iterator[PrefillProgress]:
        """Prefill the pending tokens, part by part, and save now and then.

        Cancelled, it ends early; the session keeps the parts that are done, and so can ``save``.

        Raises:
            ContextFullError: the documents are longer than the context.
        """
        if self.is_prefilled:
            return
        text, start = self._text(), self.engine.num_tokens
        if len(text) > self.engine.config.cache.context:
            raise ContextFullError(len(text) - start, start, self.engine.config.cache.context)
        began = saved = time.perf_counter()
        work = prefill_work(self.engine.model_config, start)
        total = prefill_work(self.engine.model_config, len(text)) - work
        for first, last in self._parts(start, len(text)):
            before = prefill_work(self.engine.model_config, first) - work
            own = prefill_work(self.engine.model_config, last) - work - before
            with (
                self._dropping_damaged_kv(),
                closing(self.engine.prefill(text[first:last], cancel)) as steps,
            ):
                for step in steps:
                    done = before + own * step.done // step.total
                    seconds = time.perf_counter() - began
                    yield PrefillProgress(done, total, len(text) - start, seconds)
            if self.engine.num_tokens < last:
                return
            if last < len(text) and time.perf_counter() - saved > _SAVE_EVERY_S:
                notes = self.save_if_possible()
                self._save_notes += [note for note in notes if note not in self._save_notes]
                saved = time.perf_counter()
        if len(text) - start >= _LONG_PREFILL:
            self.pace = (time.perf_counter() - began) / total

    def _parts(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Return the ranges in which a text is prefilled; they begin at the same positions always.

        With the same slices, the K/V does not depend on where the text was interrupted.
        """
        size = self.engine.config.part_tokens or end
        return pairwise([start, *range(start - start % size + size, end, size), end])

    def rewind(self) -> None:
        """Remove every turn; the documents stay prefilled."""
        self.engine.truncate(self.document_end)
        self.turns.clear()

    def forget(self, turns: int | None = None) -> None:
        """Remove the last ``turns`` turns from the session; None removes all."""
        gone = self.turns[-turns:] if turns else [] if turns == 0 else self.turns
        tokens = sum(len(turn.token_ids) for turn in gone)
        self.engine.truncate(max(self.engine.num_tokens - tokens, 0))
        del self.turns[len(self.turns) - len(gone) :]

    def restore(
        self, turns: Sequence[Answer], cancel: threading.Event | None = None
    ) -> Iterator[PrefillProgress]:
        """Make these the session's turns again: forget others, and prefill what is missing.

        Args:
            turns: turns that the session held before.
            cancel: see ``prefill``.
        """
        pairs = zip(self.turns, turns, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], pairs))
        self.forget(len(self.turns) - same)
        self.turns += turns[same:]
        yield from self.prefill(cancel)

    def save(self) -> list[str]:
        """Save documents, turns and K/V, if the session is saved at all.

        While the documents are not prefilled, it saves the beginning that is.

        Returns:
            Notes for the user.

        Raises:
            OSError, EngineError: something could not be written; the conversation can go on.
        """
        if self.saved is None or not self.engine.num_tokens:
            return []
        turns = tuple(map(saved_turn, self.turns))
        with self._dropping_damaged_kv():
            removed = self.saved.save(self.engine.save, self._documents(), turns, self.dropped)
        earlier, self._save_notes = self._save_notes, []
        return earlier + [
            f"The K/V of session {entry.id} ({entry.title}, {human_bytes(entry.bytes)}) was "
            "removed to stay within --disk-limit; its documents are read again when it is opened."
            for entry in removed
        ]

    def save_if_possible(self) -> list[str]:
        """Save; return the notes, or a note that says why saving failed."""
        try:
            return self.save()
        except (OSError, EngineError) as error:
            return [f"The session could not be saved: {describe(error)}"]

    def keep_part(self) -> list[str]:
        """Save what is prefilled so far; return what to tell the user of it."""
        if self.layout is None:
            return []
        notes, saved = self.save_if_possible(), self.saved
        held = saved.kv_tokens() if saved is not None else 0
        if saved is None or not held:
            return [*notes, "Quit before reading finished; nothing was saved."]
        info = saved.info
        return [
            *notes,
            f"Stopped after {held:,} of {self.text_tokens:,} tokens. They are saved in session "
            f"{info.id} ({info.title}); 'hga-chat chat {info.id}' resumes there.",
        ]

    def save_documents(self) -> list[str]:
        """Save like ``save_if_possible``, but without the turns added since opening."""
        self.rewind()
        if self.saved is not None:
            self.turns += map(restored_answer, self.saved.turns)
            self.dropped = self.saved.dropped
        return self.save_if_possible()

    def _documents(self) -> SavedDocuments:
        spans = self.layout.documents if self.layout else ()
        loaded = LoadedDocuments(tuple(span.document for span in spans), self.skipped)
        return SavedDocuments(loaded, tuple(span.tokens for span in spans))

    @contextmanager
    def _dropping_damaged_kv(self) -> Iterator[None]:
        """Remove saved K/V that turns out to be damaged; the next opening computes it again."""
        try:
            yield
        except SavedStateError as error:
            if self.saved is None:
                raise
            self.saved.drop_kv()
            raise SavedStateError(f"{error} It was removed.") from error

    def news(self) -> str | None:
        """Return what to tell the user of files that have changed; None if none has."""
        if self.saved is None or self.saved.is_new:
            return None
        try:
            return changes_note(self.saved, self.given)
        except OSError:  # the session is being removed
            return None

    def drop(self, name: str) -> str:
        """Tick documents off for the questions that follow; return the outcome in words."""
        found = matching(name, self.paths)
        if not found:
            return unknown_note([name], self.paths)
        new = [path for path in found if path not in self.dropped]
        if not new:
            return f"{named(found)}: ticked off already."
        self.dropped = tuple(path for path in self.paths if path in (*self.dropped, *new))
        computed, self._is_told = "" if self._is_told else _COMPUTED, True
        return (
            f"Ticked off {named(new)}; questions leave it out until /add {displayable(name)}."
            f"{computed}"
        )

    def add(self, name: str) -> str:
        """Tick documents on again; return the outcome in words."""
        found = matching(name, self.paths)
        old = [path for path in found if path in self.dropped]
        self.dropped = tuple(path for path in self.dropped if path not in old)
        if old:
            return f"Ticked on {named(old)}; nothing needs reading again."
        if found:
            return f"{named(found)}: ticked on already."
        if not Path(name).expanduser().exists():
            return unknown_note([name], self.paths)
        places = [str(place) for place in self.given.values()]
        paths = " ".join(map(quote, [*places, str(Path(name).expanduser().absolute())]))
        return (
            f"{displayable(name)} is not in this session, and text cannot be put before its turns. "
            f"'hga-chat ingest {displayable(paths)}' reads all of it into a new session."
        )

    def files(self) -> str:
        """Return the documents with their ticks and tokens, a line each."""
        if self.layout is None:
            return "This chat has no documents."
        return "\n".join(
            f"{'[ ]' if path in self.dropped else '[x]'} {span.tokens:>9,}  {displayable(path)}"
            for path, span in zip(self.paths, self.layout.documents, strict=True)
        )

    def close(self) -> None:
        """Free the engine's memory and let other processes open the session."""
        self.engine.close()
        if self.saved is not None:
            self.saved.close()

    def ask(
        self, question: str, sampling: SamplingParams, cancel: threading.Event | None = None
    ) -> Generator[PrefillProgress | Thought | TextDelta | Answer, None, None]:
        """Ask a question, after prefilling what is pending; end with one ``Answer``.

        It attends to the documents that it names after an at sign, else to all but ``dropped``.

        A ``TextDelta`` has the text of the answer alone; a ``Thought`` comes before the token that
        completes it.

        Cancelled before the first token, the question leaves the session as it was; cancelled
        later, the partial answer stays.

        Raises:
            ContextFullError: the question does not fit; the session is as before. With turns in
                it, a ``SessionFullError``.
        """
        yield from self.prefill(cancel)
        if not self.is_prefilled:
            yield cancelled_answer(question)
            return
        limited_to, unknown = mentioned(question, self.paths)
        scope = Scope(limited_to, () if limited_to else self.dropped)
        remark = unknown_note(unknown, self.paths) if self.layout else ""
        with self.leaving_out(scope):
            yield from self._answer(question, sampling, cancel, scope, remark)

    @contextmanager
    def leaving_out(self, scope: Scope) -> Iterator[None]:
        """Let the engine attend to no document outside a scope."""
        if self.layout is None:
            yield
            return
        size = self.engine.config.routing.group_size
        groups = groups_left_out(scope, self.layout, self.document_start, size, TRACE_BIN_TOKENS)
        self.engine.leave_out(groups)
        try:
            yield
        finally:
            self.engine.leave_out(())

    def _answer(
        self,
        question: str,
        sampling: SamplingParams,
        cancel: threading.Event | None,
        scope: Scope,
        remark: str,
    ) -> Generator[PrefillProgress | Thought | TextDelta | Answer, None, None]:
        tokenizer = self.engine.tokenizer
        thinking = self.thinks and tokenizer.can_think
        if self.turns:
            prompt = next_question(tokenizer, question, thinking=thinking)
        else:
            prompt = first_question(
                tokenizer, question, after_documents=self.layout is not None, thinking=thinking
            )
        is_open = tokenizer.opens_thought(thinking=thinking)
        splitter = ThoughtSplitter(is_open=is_open) if thinking or is_open else None
        if splitter is not None:
            sampling = for_thinking(sampling)
        before = self.engine.num_tokens
        thought: list[str] = []
        text: list[str] = []
        tokens: list[TextDelta] = []
        try:
            with self._dropping_damaged_kv():
                for event in self.engine.answer(prompt, sampling, cancel):
                    if isinstance(event, Finished):
                        finished = event
                    else:
                        if isinstance(event, TextDelta):
                            if event.token_id >= 0:  # else the rest of a character, not a token
                                tokens.append(event)
                            if splitter is not None:
                                more, shown = splitter.push(event.text)
                                event = replace(event, text=shown)
                                thought.append(more)
                                if more:
                                    yield Thought(more)
                            text.append(event.text)
                        yield event
                if splitter is not None:
                    more, shown = splitter.finish()
                    thought.append(more)
                    if shown:
                        text.append(shown)
                        yield TextDelta(shown, -1, tokens[-1].trace)
        except BaseException as error:
            self.engine.truncate(before)
            if isinstance(error, ContextFullError) and self.turns:
                turns = before - self.document_end
                advice = self._ways_out()
                raise SessionFullError(error.tokens, before, error.context, turns, advice) from None
            raise
        found = self._attribution(question, tokens, before, finished, cancel, scope)
        answer = Answer(
            question,
            "".join(text),
            found.sources,
            finished,
            tuple(self.engine.token_ids[before:]),
            found.from_conversation,
            "".join(thought).strip(),
            scope,
            remark,
        )
        if finished.reason == "cancelled" and not finished.completion_tokens:
            self.engine.truncate(before)
        else:
            self.turns.append(answer)
        yield answer

    def _attribution(
        self,
        question: str,
        tokens: Sequence[TextDelta],
        turn_start: int,
        finished: Finished,
        cancel: threading.Event | None,
        scope: Scope,
    ) -> Attribution:
        """Return where the answer comes from that the engine's session ends with."""
        if not self.layout:
            return Attribution()
        found = attribute(
            [token.trace.all_mass for token in tokens],
            [token.text for token in tokens],
            self.layout,
            self.document_start,
            turn_start,
            [turn.text for turn in self.turns],
        )
        # A trace bin at a border counts tokens of both documents.
        within = tuple(source for source in found.sources if not scope.hides(source.path))
        found = replace(found, sources=within)
        if not found.sources or (cancel is not None and cancel.is_set()):
            return found
        first = stating(question, "".join(token.text for token in tokens), found.sources)
        if first:
            rest = tuple(source for source in found.sources if source not in first)
            return replace(found, sources=first + rest)
        with self._dropping_damaged_kv():
            is_from_documents = depends(
                self.engine,
                turn_start,
                finished.prompt_tokens,
                found.attended,
                self.document_start,
            )
        return found if is_from_documents else Attribution()
