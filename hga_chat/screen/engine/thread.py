"""The one thread that owns the engine: orders go in through a queue, reports come out."""

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hga_chat.screen.changes import Change, Offer
from hga_chat.screen.drawing.figures import count
from hga_chat.screen.engine.garbage import freeze_all, rare_collections, settle
from hga_chat.screen.engine.outbox import Outbox
from hga_chat.screen.engine.pace import Pace, is_token
from hga_chat.screen.engine.reports import (
    Answered,
    Failed,
    Forgotten,
    Introduced,
    Introducing,
    Loading,
    MemoryReport,
    Note,
    Offered,
    Opened,
    Prefilling,
    PrefillingQuestion,
    Ready,
    Renamed,
    Report,
    Restored,
    Restoring,
    Thinking,
    Ticked,
    Verified,
)
from hga_chat.screen.engine.tracing import TraceRecorder
from hga_chat.sources import document_bins

if TYPE_CHECKING:
    from hga_chat.conversation.answer import Answer
    from hga_chat.conversation.conversation import Conversation
    from hga_engine.config import SamplingParams

Progress = Callable[[str, float], None]
Consider = Callable[["Conversation", Change], Offer]
"""Says what a change of an open conversation would cost."""

MEMORY_INTERVAL_S = 0.5
WATCH_INTERVAL_S = 2.0
"""Time between two looks for changed files."""


class _Stop(Exception):  # noqa: N818 - a signal, not an error
    """Ends the loading of a model when the screen is closed."""


@dataclass(frozen=True)
class _Question:
    text: str
    cancel: threading.Event
    sampling: "SamplingParams"
    thinks: bool


@dataclass(frozen=True)
class _Forget:
    turns: int | None


@dataclass(frozen=True)
class _Undo:
    pass


@dataclass(frozen=True)
class _Export:
    path: Path


@dataclass(frozen=True)
class _Verify:
    number: int
    cancel: threading.Event


@dataclass(frozen=True)
class _Introduce:
    cancel: threading.Event


@dataclass(frozen=True)
class _Tick:
    """Lists the documents, or ticks some on or off."""

    what: Literal["files", "add", "drop"]
    name: str = ""


@dataclass(frozen=True)
class _Rename:
    title: str


@dataclass(frozen=True)
class _Budget:
    percent: float | None


@dataclass(frozen=True)
class _Consider:
    change: Change


_Order = (
    _Introduce
    | _Question
    | _Forget
    | _Undo
    | _Export
    | _Verify
    | _Rename
    | _Budget
    | _Consider
    | _Tick
)


class EngineThread:
    """Loads the model, prefills the documents, answers questions, closes the engine.

    All public methods are for the screen's thread and, except ``join``, return at once.

    Attributes:
        error: the exception that ended the thread early, or None.
        kept: what is kept of documents whose prefill was interrupted, in words.
        sampling: how answers are sampled.
        thinks: whether the model is to think before it answers, if it can.
    """

    def __init__(
        self,
        make_conversation: "Callable[[Progress], Conversation]",
        sampling: "SamplingParams",
        *,
        first_message: bool | None = False,
        consider: Consider | None = None,
    ) -> None:
        """Set up; ``start`` starts it.

        Args:
            make_conversation: see ``run_screen``.
            sampling: how answers are sampled.
            first_message: whether ``introduce`` does anything; None: if a GPU is in use.
            consider: says what a change costs; None: nothing can be changed.
        """
        self.error: Exception | None = None
        self.kept: list[str] = []
        self._make_conversation = make_conversation
        self._consider = consider
        self.sampling = sampling
        self.thinks = False
        self._outbox = Outbox()
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._cancel = threading.Event()
        self._introduction = threading.Event()
        """Stops the first message."""
        self._first_message = first_message
        self._memory_due = 0.0
        self._answers = 0
        self._news: str | None = None
        """What was said last of changed files."""
        self._before: list[Answer] = []
        """The turns before the last ``forget`` or ``undo``."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start to load and prefill."""
        self._thread.start()

    def take(self) -> list[Report]:
        """Return the reports since the last call, in order."""
        return self._outbox.take()

    def introduce(self) -> None:
        """Let the model write a first message, if the user wants one.

        Any order that follows stops it.
        """
        self._introduction = threading.Event()
        self._orders.put(_Introduce(self._introduction))

    def stop_introduction(self) -> None:
        """Do without the first message."""
        self._introduction.set()

    def _put(self, order: _Order) -> None:
        self._introduction.set()
        self._orders.put(order)

    def ask(self, question: str, *, temperature: float | None = None) -> None:
        """Queue a question.

        Args:
            question: as typed.
            temperature: None keeps that of the session.
        """
        self._cancel = threading.Event()
        sampling = self.sampling
        if temperature is not None:
            sampling = replace(sampling, temperature=temperature)
        self._put(_Question(question, self._cancel, sampling, self.thinks))

    def forget(self, turns: int | None = None) -> None:
        """Remove the last turns from the session; None removes all of them."""
        self._put(_Forget(turns))

    def undo(self) -> None:
        """Bring back the turns before the last ``forget`` or ``undo``."""
        self._put(_Undo())

    def verify(self, number: int) -> None:
        """Score an answer again without its sources; ``cancel`` stops after the current source."""
        self._cancel = threading.Event()
        self._put(_Verify(number, self._cancel))

    def export(self, path: Path) -> None:
        """Write the turns as Markdown; a note reports the outcome."""
        self._put(_Export(path))

    def tick(self, what: Literal["files", "add", "drop"], name: str = "") -> None:
        """List the documents, or tick some on or off; a note reports the outcome."""
        self._put(_Tick(what, name))

    def rename(self, title: str) -> None:
        """Give the session another title; a note reports the outcome."""
        self._put(_Rename(title))

    def set_budget(self, percent: float | None) -> None:
        """Let answers attend to this share of the session; a note reports the outcome.

        Args:
            percent: of the session as it is now; None: only report what it is.
        """
        self._put(_Budget(percent))

    def consider(self, change: Change) -> None:
        """Find out what a change costs; an ``Offered`` reports it."""
        self._put(_Consider(change))

    def cancel(self) -> None:
        """Stop the answer to the last question; what it has so far stays."""
        self._cancel.set()

    def stop(self) -> None:
        """End the thread as soon as the engine returns."""
        self._stopping.set()
        self._cancel.set()
        self._introduction.set()
        self._orders.put(None)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread to end; return whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with rare_collections():
            self._live()

    def _live(self) -> None:
        conversation = None
        try:
            conversation = self._make_conversation(self._loading)
            self._open(conversation)
            while (order := self._next(conversation)) and not self._stopping.is_set():
                self._obey(conversation, order)
        except _Stop:
            pass
        except Exception as error:  # noqa: BLE001 - shown on the screen, raised by run_screen
            self.error = error
            self._fail(error, fatal=True)
        finally:
            if conversation is not None:
                conversation.close()

    def _next(self, conversation: "Conversation") -> _Order | None:
        """Wait for an order, and tell of changed files meanwhile."""
        while conversation.watches:
            try:
                return self._orders.get(timeout=WATCH_INTERVAL_S)
            except queue.Empty:
                news = conversation.news()
                if news is not None and news not in (self._news, *conversation.notes):
                    self._outbox.put(Note(news))
                self._news = news
        return self._orders.get()

    def _loading(self, what: str, fraction: float) -> None:
        if self._stopping.is_set():
            raise _Stop
        self._outbox.put(Loading(what, fraction))

    def _open(self, conversation: "Conversation") -> None:
        engine = conversation.engine
        self._outbox.put(
            Opened(
                model_name=engine.model_name,
                context=engine.config.cache.context,
                chunk_size=engine.config.routing.chunk_size,
                trace_bin_tokens=engine.config.routing.trace_bin_tokens,
                document_start=conversation.document_start,
                layout=conversation.layout,
                skipped=conversation.skipped,
                turns=tuple(conversation.turns),
                notes=tuple(conversation.notes),
                given=conversation.given,
                can_think=engine.tokenizer.can_think,
                thinks=conversation.thinks,
                dropped=conversation.dropped,
                title=_title(conversation),
            )
        )
        self._report_memory(conversation)
        held, pending = engine.num_tokens, conversation.pending_tokens
        began = time.perf_counter()
        for step in conversation.prefill(self._stopping):
            self._outbox.put(Prefilling(step.fraction, step.tokens, step.seconds, held))
            self._report_memory(conversation, now=False)
        if not conversation.is_prefilled:
            self.kept = conversation.keep_part()
        elif not self._stopping.is_set():
            self._report_memory(conversation)
            freeze_all()
            self._outbox.put(Ready(engine.num_tokens, pending, time.perf_counter() - began))
            # The opening screen has it as well, but the last turns hide that.
            if conversation.turns and (news := conversation.news()) is not None:
                self._outbox.put(Note(news))
            self._save(conversation)

    def _obey(self, conversation: "Conversation", order: _Order) -> None:
        match order:
            case _Introduce(cancel):
                self._introduce(conversation, cancel)
            case _Question():
                self._answer(conversation, order)
            case _Forget(turns):
                self._before = list(conversation.turns)
                conversation.forget(turns)
                self._outbox.put(Forgotten(conversation.engine.num_tokens))
                self._save(conversation)
            case _Undo():
                before, self._before = self._before, list(conversation.turns)
                for step in conversation.restore(before, self._stopping):
                    self._outbox.put(Restoring(step.fraction))
                self._outbox.put(Restored(conversation.engine.num_tokens))
                self._save(conversation)
            case _Verify(number, cancel):
                self._verify(conversation, number, cancel)
            case _Export(path):
                self._outbox.put(Note(export_turns(conversation, path)))
            case _Budget(percent):
                self._outbox.put(Note(set_budget(conversation, percent)))
            case _Consider(change):
                self._outbox.put(Offered(self._offer(conversation, change)))
            case _Tick(what, name):
                ticking = {"add": conversation.add, "drop": conversation.drop}
                is_listing = what == "files"
                self._outbox.put(Note(conversation.files() if is_listing else ticking[what](name)))
                if not is_listing:
                    self._outbox.put(Ticked(conversation.dropped))
                    self._save(conversation)
            case _Rename(title):
                self._outbox.put(Note(rename(conversation, title)))
                self._outbox.put(Renamed(_title(conversation)))

    def _introduce(self, conversation: "Conversation", cancel: threading.Event) -> None:
        from hga_chat.conversation.first_message import first_message
        from hga_engine.errors import EngineError

        is_wanted = self._first_message
        if is_wanted is None:
            is_wanted = conversation.engine.memory().device_total_bytes > 0
        if not is_wanted or cancel.is_set():
            return
        self._outbox.put(Introducing())
        message = None
        with suppress(EngineError):  # without room or engine, a question will say so
            message = first_message(conversation, cancel)
        self._outbox.put(Introduced(message))
        self._report_memory(conversation)

    def _offer(self, conversation: "Conversation", change: Change) -> Offer:
        from hga_chat.errors import describe

        if self._consider is None:
            return Offer("That cannot be changed here.", None)
        try:
            return self._consider(conversation, change)
        except Exception as error:  # noqa: BLE001 - the session is intact
            return Offer(describe(error), None)

    def _verify(self, conversation: "Conversation", number: int, cancel: threading.Event) -> None:
        from hga_chat.conversation.verify import verify
        from hga_chat.errors import describe

        try:
            self._outbox.put(Verified(number, verify(conversation, number, cancel)))
        except Exception as error:  # noqa: BLE001 - the session is intact
            self._outbox.put(Verified(number, describe(error)))

    def _answer(self, conversation: "Conversation", question: _Question) -> None:
        from hga_chat.conversation.answer import Answer
        from hga_chat.conversation.thought import Thought
        from hga_engine.events import TextDelta

        conversation.thinks = question.thinks
        engine, pace = conversation.engine, Pace()
        recorder = None
        if conversation.layout is not None:
            bins = document_bins(conversation.layout, conversation.document_start)
            recorder = TraceRecorder(bins)
        try:
            for event in conversation.ask(question.text, question.sampling, question.cancel):
                if isinstance(event, Answer):
                    self._report_memory(conversation)
                    trace = None
                    if recorder and recorder.tokens:
                        trace = recorder.report(engine.layer_mass())
                    room_note = conversation.room_note
                    self._outbox.put(Answered(event, engine.num_tokens, trace, room_note))
                elif isinstance(event, Thought):
                    self._outbox.put(Thinking(event.text))
                elif isinstance(event, TextDelta):
                    self._outbox.put(pace.report(event))
                    if recorder and is_token(event):
                        recorder.add(event.trace)
                        if recorder.is_due:
                            self._outbox.put(recorder.report(engine.layer_mass()))
                else:
                    self._outbox.put(PrefillingQuestion(event.fraction))
                self._report_memory(conversation, now=False)
        except Exception as error:  # noqa: BLE001 - the session is intact
            self._fail(error, fatal=False)
        else:
            self._save(conversation)
        self._answers += 1
        settle(self._answers)

    def _save(self, conversation: "Conversation") -> None:
        for note in conversation.save_if_possible():
            self._outbox.put(Note(note))
        self._report_memory(conversation)

    def _report_memory(self, conversation: "Conversation", *, now: bool = True) -> bool:
        """Report memory use, ``now`` or if it is due; return whether it was reported."""
        moment = time.perf_counter()
        if not now and moment < self._memory_due:
            return False
        self._memory_due = moment + MEMORY_INTERVAL_S
        self._outbox.put(MemoryReport(conversation.engine.memory()))
        return True

    def _fail(self, error: Exception, *, fatal: bool) -> None:
        from hga_chat.errors import describe

        self._outbox.put(Failed(describe(error), fatal))


def _title(conversation: "Conversation") -> str:
    return conversation.saved.info.title if conversation.saved is not None else ""


def rename(conversation: "Conversation", title: str) -> str:
    """Give a conversation's session another title; return the outcome in words."""
    if conversation.saved is None:
        return "This chat is not saved, so it has no title."
    try:
        conversation.saved.rename(title)
    except OSError as error:
        return f"The title cannot be saved: {error.strerror or error}."
    return f"Renamed to {title}."


def set_budget(conversation: "Conversation", percent: float | None) -> str:
    """Let answers attend to a share of the session; return the outcome in words."""
    from hga_engine.config import LEAST_BUDGET
    from hga_engine.errors import FixedBudgetError

    engine = conversation.engine
    held = engine.num_tokens
    if engine.config.routing.kind == "dense":
        return "With --router dense every word attends to everything."
    if percent is not None:
        try:
            engine.set_budget(max(round(percent * held / 100), LEAST_BUDGET))
        except FixedBudgetError as error:
            return f"{error} --budget sets that of a new one."
    tokens = engine.config.routing.budget_tokens
    share = f"{tokens / held:.0%} of this session" if 0 < tokens < held else "all of this session"
    until = "" if percent is None else " Until you quit; nothing is read again."
    return (
        f"A word of an answer attends to at most {tokens:,} tokens, {share}; more is slower.{until}"
    )


def export_turns(conversation: "Conversation", path: Path) -> str:
    """Write a conversation's turns as Markdown to a new file; return the outcome in words."""
    from hga_chat.conversation.answer import saved_turn
    from hga_chat.sessions.export import turns_as_markdown

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(turns_as_markdown([*map(saved_turn, conversation.turns)]))
    except FileExistsError:
        return f"{path} already exists; nothing was written. Name another file: /export FILE"
    except OSError as error:
        return f"{path} cannot be written: {error.strerror or error}."
    return f"{count(len(conversation.turns), 'turn')} written to {path}."
