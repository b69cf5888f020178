"""The one thread that owns the engine: commands go in through a queue, reports come out."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hga_chat.screen.messages import (
    Answered,
    Failed,
    Loading,
    MemoryReport,
    Note,
    Opened,
    Reading,
    ReadingQuestion,
    Ready,
    Report,
    Streamed,
)

if TYPE_CHECKING:
    from hga_chat.conversation import Conversation
    from hga_engine.config import SamplingParams
    from hga_engine.events import TextDelta

Progress = Callable[[str, float], None]

MEMORY_INTERVAL_S = 0.5


class _Stop(Exception):  # noqa: N818 - it is a signal, not an error
    """Leaves the loading of a model when the screen is closed."""


@dataclass(frozen=True)
class _Question:
    text: str
    cancel: threading.Event


class Outbox:
    """Reports on their way to the screen; what belongs together is merged while it waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: list[Report] = []
        self._memory: list[Report] = []

    def put(self, report: Report) -> None:
        """Add ``report``, merged with the one before it where both say the same kind of thing."""
        with self._lock:
            merged = _merge(self._reports[-1], report) if self._reports else None
            if isinstance(report, MemoryReport):
                self._memory = [report]  # apart, so that it does not stand between tokens
            elif merged is None:
                self._reports.append(report)
            else:
                self._reports[-1] = merged

    def take(self) -> list[Report]:
        """Everything since the last call, in order; the latest memory figures come last."""
        with self._lock:
            reports = self._reports + self._memory
            self._reports, self._memory = [], []
            return reports


def _merge(last: Report, new: Report) -> Report | None:
    if isinstance(last, Streamed) and isinstance(new, Streamed):
        from hga_chat.sources import add_mass

        return replace(new, text=last.text + new.text, mass=add_mass(last.mass, new.mass))
    if type(last) is type(new) and isinstance(new, Loading | Reading | ReadingQuestion):
        return new
    return None


class EngineThread:
    """Loads the model, reads the documents, answers questions, closes the engine.

    All methods belong to the screen's thread and return at once, ``join`` excepted.

    Attributes:
        error: what ended the thread early, if anything did.
    """

    def __init__(
        self,
        make_conversation: "Callable[[Progress], Conversation]",
        sampling: "SamplingParams",
    ) -> None:
        self.error: Exception | None = None
        self._make_conversation = make_conversation
        self._sampling = sampling
        self._outbox = Outbox()
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._cancel = threading.Event()
        self._memory_due = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin loading and reading."""
        self._thread.start()

    def take(self) -> list[Report]:
        """Reports since the last call, in order."""
        return self._outbox.take()

    def ask(self, question: str) -> None:
        """Ask; questions are answered one after another."""
        self._cancel = threading.Event()
        self._questions.put(_Question(question, self._cancel))

    def cancel(self) -> None:
        """Stop the answer to the last question; its part is kept."""
        self._cancel.set()

    def stop(self) -> None:
        """End the thread as soon as the engine lets go."""
        self._stopping.set()
        self._cancel.set()
        self._questions.put(None)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the thread; say whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        conversation = None
        try:
            conversation = self._make_conversation(self._loading)
            self._open(conversation)
            while (question := self._questions.get()) and not self._stopping.is_set():
                self._answer(conversation, question)
        except _Stop:
            pass
        except Exception as error:  # noqa: BLE001 - the screen shows it and the caller gets it
            self.error = error
            self._fail(error, fatal=True)
        finally:
            if conversation is not None:
                conversation.close()

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
                chunk_size=engine.config.router.chunk_size,
                group_size=engine.config.router.group_size,
                document_start=conversation.document_start,
                layout=conversation.layout,
                skipped=conversation.skipped,
                turns=tuple(conversation.turns),
                notes=tuple(conversation.notes),
            )
        )
        self._report_memory(conversation)
        unread = conversation.unread
        began = time.perf_counter()
        for progress in conversation.read(self._stopping):
            self._outbox.put(Reading(progress.fraction, progress.tokens, progress.seconds))
            self._report_memory(conversation, now=False)
        if not self._stopping.is_set():
            self._report_memory(conversation)
            self._outbox.put(Ready(engine.num_tokens, unread, time.perf_counter() - began))
            self._save(conversation)

    def _answer(self, conversation: "Conversation", question: _Question) -> None:
        from hga_chat.conversation import Answer
        from hga_engine.events import TextDelta

        pace = _Pace()
        try:
            for event in conversation.ask(question.text, self._sampling, question.cancel):
                if isinstance(event, Answer):
                    self._report_memory(conversation)
                    self._outbox.put(Answered(event, conversation.engine.num_tokens))
                elif isinstance(event, TextDelta):
                    self._outbox.put(pace.report(event))
                else:
                    self._outbox.put(ReadingQuestion(event.fraction))
                self._report_memory(conversation, now=False)
        except Exception as error:  # noqa: BLE001 - the session stands; the next question may work
            self._fail(error, fatal=False)
        else:
            self._save(conversation)

    def _save(self, conversation: "Conversation") -> None:
        for note in conversation.save_if_possible():
            self._outbox.put(Note(note))
        self._report_memory(conversation)

    def _report_memory(self, conversation: "Conversation", *, now: bool = True) -> None:
        moment = time.perf_counter()
        if now or moment >= self._memory_due:
            self._memory_due = moment + MEMORY_INTERVAL_S
            self._outbox.put(MemoryReport(conversation.engine.memory()))

    def _fail(self, error: Exception, *, fatal: bool) -> None:
        from hga_chat.cli.errors import describe

        self._outbox.put(Failed(describe(error), fatal))


class _Pace:
    """Speed and sparsity of the answer under way."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._first = 0.0
        self._tokens = 0
        self._shares = 0.0

    def report(self, delta: "TextDelta") -> Streamed:
        now = time.perf_counter()
        self._first = self._first or now
        self._tokens += 1
        trace = delta.trace
        self._shares += min(trace.tokens_attended / (trace.position + 1), 1.0)
        elapsed = now - self._first
        return Streamed(
            text=delta.text,
            mass=trace.group_mass,
            tokens=self._tokens,
            tokens_per_s=(self._tokens - 1) / elapsed if elapsed > 0 else 0.0,
            ttft_s=self._first - self._began,
            sparsity=self._shares / self._tokens,
        )
