"""From settings and paths to a conversation: the one place that puts them together."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hga_chat import documents
from hga_chat.errors import OverBudgetError, describe
from hga_chat.output import Output
from hga_chat.settings import Settings

if TYPE_CHECKING:
    from hga_chat.conversation.conversation import Conversation
    from hga_chat.conversation.opening import Keeping
    from hga_chat.sessions.saved import SavedSession
    from hga_engine.model.files import ModelFiles

    Progress = Callable[[str, float], None]

_SKIPPED_SHOWN = 3


@dataclass(frozen=True)
class Prepared:
    """Documents as tokens of a model that is there but not loaded."""

    files: "ModelFiles"
    survey: documents.Survey
    layout: documents.DocumentTokens | None
    """None without documents, and where they are too long."""
    budget: int
    """Document tokens there is room for."""
    is_fitted: bool
    """Whether what could be left out has been."""

    @property
    def loaded(self) -> documents.LoadedDocuments:
        """What is read, and what is not."""
        return self.survey.loaded

    def check_budget(self) -> None:
        """Raise ``OverBudgetError`` if the documents are too long."""
        over = documents.over_budget(self.survey.counted, self.budget, is_fitted=self.is_fitted)
        if over is not None:
            raise OverBudgetError(over)


def find_or_pull(settings: Settings, output: Output) -> "ModelFiles":
    """The model's files; the embedded model is fetched if it is not there."""
    from hga_chat.models import EMBEDDED_MODEL, ModelMissingError, find_model, pull_model

    try:
        return find_model(settings.model)
    except ModelMissingError:
        if settings.model != EMBEDDED_MODEL:
            raise
    output.note(f"The model {EMBEDDED_MODEL} is not here yet.")
    return pull_model(EMBEDDED_MODEL, output.note)


def prepare(
    paths: Sequence[str], settings: Settings, output: Output, question: str = ""
) -> Prepared:
    """Read documents and lay them out in the model's tokens.

    Raises:
        DocumentError: nothing can be read.
        EngineError: the model is missing or damaged.
    """
    # What can be wrong with the paths is said before the model is looked for.
    entries = documents.iter_documents(paths, settings.include, settings.exclude) if paths else ()
    from hga_chat.conversation.prompts import room_for_documents
    from hga_engine.tokenizer.load import load_tokenizer

    files = find_or_pull(settings, output)
    tokenizer = load_tokenizer(files)
    room = room_for_documents(tokenizer, settings.context, settings.max_new_tokens, question)
    budget = room if settings.max_tokens is None else min(room, settings.max_tokens)
    survey = documents.survey_documents(
        entries, tokenizer, budget, fit=settings.fit, without_secrets=settings.redact
    )
    if survey.secrets:
        output.note(documents.secrets_note(survey.secrets, redacted=settings.redact))
    is_laid_out = paths and survey.tokens <= budget
    layout = documents.lay_out(survey.loaded, tokenizer) if is_laid_out else None
    return Prepared(files, survey, layout, budget, settings.fit)


@dataclass(frozen=True)
class Start:
    """A conversation that is opened when there is somebody to wait for the model."""

    settings: Settings
    """The person's, or those of the saved session."""
    open: "Callable[[Progress], Conversation]"
    """Loads the model; tells what is being loaded and which share of it is done."""


def start_on_documents(
    prepared: Prepared,
    paths: Sequence[str],
    settings: Settings,
    output: Output,
    *,
    for_one_answer: bool = False,
) -> Start:
    """A conversation about documents, which goes on from a saved reading of them.

    Args:
        prepared: the documents.
        paths: where they are from; none: there are no documents, and nothing is kept.
        settings: the person's.
        output: told what stands in the way of keeping the reading.
        for_one_answer: leave the turns of the saved reading aside, and do without it where it is
            in use; standard input is not kept.

    Raises:
        SessionInUseError: another process has the saved reading open.
    """
    from hga_engine.model.weight_cache import read_ahead

    read_ahead(prepared.files)
    keeping = None
    if paths and not settings.no_save and not (for_one_answer and "-" in paths):
        keeping = _find_keeping(prepared, paths, settings, output, for_one_answer=for_one_answer)
    skipped = prepared.loaded.skipped

    def open_(progress: "Progress") -> "Conversation":
        from hga_chat.conversation.opening import open_documents
        from hga_engine.compiling import compile_kernels
        from hga_engine.opening import prepare_model

        with _closing_on_failure(keeping.saved if keeping else None):
            model = prepare_model(prepared.files, progress, settings.device)
            compile_kernels(model, settings.engine(), progress)
            return open_documents(
                model, settings, prepared.layout, skipped, keeping, with_turns=not for_one_answer
            )

    return Start(settings, open_)


def _find_keeping(
    prepared: Prepared,
    paths: Sequence[str],
    settings: Settings,
    output: Output,
    *,
    for_one_answer: bool,
) -> "Keeping | None":
    """Where the reading is kept; None: nowhere, because the saved one is in use."""
    from hga_chat.conversation.opening import Keeping, find_reading, origin_of
    from hga_chat.sessions.store import SessionStore
    from hga_chat.sessions.types import SessionError, SessionInUseError

    store = SessionStore(settings.disk_limit)
    origin = origin_of(paths, prepared.files, settings)
    saved = None
    try:
        found = find_reading(store, origin, prepared.loaded.documents, output.note)
        saved = store.open(found) if found else None
    except SessionInUseError as error:
        if not for_one_answer:
            raise
        output.note(f"{error} The documents are read for this answer alone.")
        return None
    except (OSError, SessionError) as error:
        output.note(f"A saved reading cannot be used: {describe(error)}")
    return Keeping(store, tuple(paths), origin, saved)


def start_on_session(name: str, settings: Settings, output: Output) -> Start:
    """A conversation that goes on with a saved session, found by its id or title.

    Raises:
        SessionMissingError: there is none like this, or more than one.
        SessionInUseError: another process has it open.
        SessionError: it is damaged.
        EngineError: its model is missing or damaged.
    """
    from hga_chat.conversation.opening import lay_out_saved, open_session, settings_of
    from hga_chat.sessions.store import SessionStore
    from hga_engine.model.weight_cache import read_ahead

    store = SessionStore(settings.disk_limit)
    saved = store.open(store.find(name))
    saved.is_written = not settings.no_save
    own = settings_of(saved.info, settings)
    if own != settings:
        output.note(
            f"The session keeps its own settings: model {own.model}, context {own.context:,}, "
            f"router {own.router}, budget {own.budget:,} tokens."
        )
    files = find_or_pull(own, output)
    read_ahead(files)
    # Encoding lets other threads run, so it is done by the time torch is imported.
    threads = ThreadPoolExecutor(1)
    layout = threads.submit(lay_out_saved, saved, files)
    threads.shutdown(wait=False)

    def open_(progress: "Progress") -> "Conversation":
        with _closing_on_failure(saved):
            from hga_engine.compiling import compile_kernels
            from hga_engine.opening import prepare_model

            model = prepare_model(files, progress, own.device)
            compile_kernels(model, own.engine(), progress)
            return open_session(model, own, saved, layout.result())

    return Start(own, open_)


@contextmanager
def _closing_on_failure(saved: "SavedSession | None") -> Iterator[None]:
    """Let others open the session if this process cannot."""
    try:
        yield
    except BaseException:
        if saved is not None:
            saved.close()
        raise


def note_skipped(prepared: Prepared, output: Output) -> None:
    """Say what was not read: the first few, and how many more."""
    skipped = prepared.loaded.skipped
    for entry in skipped[:_SKIPPED_SHOWN]:
        output.note(f"Skipped {entry.path}: {entry.reason}")
    if len(skipped) > _SKIPPED_SHOWN:
        more = len(skipped) - _SKIPPED_SHOWN
        output.note(f"Skipped {more} more; 'hga-chat ingest --dry-run' lists them.")
