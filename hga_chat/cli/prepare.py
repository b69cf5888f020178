"""From settings and paths to a conversation: the one place that puts them together."""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hga_chat import documents, engine_access
from hga_chat.documents.files import resolved
from hga_chat.documents.types import STANDARD_INPUT
from hga_chat.errors import OverBudgetError, describe
from hga_chat.output import Output
from hga_chat.settings import AUTO, Settings

if TYPE_CHECKING:
    from hga_chat.conversation.conversation import Conversation
    from hga_chat.conversation.opening import SaveTarget
    from hga_chat.sessions.saved import SavedSession
    from hga_chat.sessions.types import SessionInfo
    from hga_engine.model.files import ModelFiles

    Progress = Callable[[str, float], None]

_SKIPPED_SHOWN = 3

NOT_SAVED = "A chat without documents is not saved; /export writes it to a file."


@dataclass(frozen=True)
class Prepared:
    """Documents as tokens of a model whose weights are not loaded yet."""

    files: "ModelFiles"
    settings: Settings
    """The user's settings, with the model's name and context."""
    survey: documents.Survey
    layout: documents.DocumentTokens | None
    """None without documents, and if they exceed the budget."""
    budget: int
    """Document tokens that fit."""
    is_fitted: bool
    """Whether --fit has left documents out."""

    @property
    def loaded(self) -> documents.LoadedDocuments:
        """The loaded documents, and what was skipped."""
        return self.survey.loaded

    def check_budget(self) -> None:
        """Raise ``OverBudgetError`` if the documents exceed the budget."""
        over = documents.over_budget(self.survey.counted, self.budget, is_fitted=self.is_fitted)
        if over is not None:
            raise OverBudgetError(over)


def find_or_pull(settings: Settings, output: Output) -> "tuple[ModelFiles, Settings]":
    """Find the model's files, and fetch them if the model is a default one or a person agrees.

    Returns:
        The files, and the settings with the model's name and context filled in.

    Raises:
        ModelMissingError: it is not on this machine, and is not fetched.
        FetchError: it cannot be fetched.
        ModelFileError: it is damaged.
    """
    from hga_chat import models
    from hga_chat.cli.fetching import asking, is_interactive
    from hga_chat.cli.outlook import unmet_need

    name = settings.model
    if name == AUTO:
        name = models.default_model()
    elif models.is_path(name):  # a session must find it from any folder
        name = str(Path(name).expanduser().absolute())
    access = engine_access.access
    need = unmet_need(name, settings)
    try:
        files = access.find_model(name)
    except models.ModelMissingError as error:
        is_default = name in (models.DEFAULT_MODEL, models.SMALL_DEFAULT_MODEL)
        is_small = is_default or name == models.EMBEDDED_MODEL
        if not models.is_fetchable(name) or not (is_small or is_interactive(output)):
            if need is not None:
                raise models.ModelMissingError(need) from error
            raise
        if need is not None:
            output.note(need)
        output.note(f"The model {name} is not downloaded yet.")
        if settings.model == AUTO:
            _note_better(name, settings, output)
        files = models.pull_model(name, output.note, output.progress, asking(output))
    else:
        if need is not None:
            output.note(need)
    return files, settings.for_model(name, access.native_context(files))


def _note_better(default: str, settings: Settings, output: Output) -> None:
    """Before the default model is fetched, name a better one that this machine can run."""
    from hga_chat.cli.outlook import describe_model, recommend

    found = recommend(settings)
    if found is not None and found[0].name != default:
        name = found[0].name
        output.note(
            f"This machine can also run a better one, {describe_model(*found)}: "
            f"'hga-chat models pull {name}', then --model {name}."
        )


def prepare(
    paths: Sequence[str], settings: Settings, output: Output, question: str = ""
) -> Prepared:
    """Load documents and lay them out as tokens of the model.

    Raises:
        DocumentError: nothing can be loaded.
        EngineError: the model is missing or damaged.
    """
    if STANDARD_INPUT in paths and sys.stdin.isatty():
        output.note("Type or paste the text; Ctrl+D on a new line ends it.")
    # Wrong paths are reported before the model is looked for.
    entries = documents.iter_documents(paths, settings.include, settings.exclude) if paths else ()
    from hga_chat.conversation.prompts import room_for_documents
    from hga_chat.conversation.thought import THOUGHT_TOKENS

    files, settings = find_or_pull(settings, output)
    assert settings.context is not None
    tokenizer = engine_access.access.load_tokenizer(files)
    answer = settings.max_new_tokens + (THOUGHT_TOKENS if settings.think else 0)
    room = room_for_documents(tokenizer, settings.context, answer, question, settings.system)
    if settings.fit:
        room = min(room, settings.context - documents.room_for_turns(settings.context))
    budget = room if settings.max_tokens is None else min(room, settings.max_tokens)
    survey = documents.survey_documents(
        entries, tokenizer, budget, fit=settings.fit, without_secrets=settings.redact
    )
    if survey.secrets:
        output.note(documents.secrets_note(survey.secrets, redacted=settings.redact))
    is_laid_out = paths and survey.tokens <= budget
    layout = None
    if is_laid_out:
        failed: list[documents.Skipped] = []
        layout = documents.lay_out(survey.loaded, tokenizer, failed)
        survey = survey.without(failed) if failed else survey
    if paths and not (survey.counted or settings.fit):
        raise documents.DocumentError(_nothing_left(survey))
    return Prepared(files, settings, survey, layout, budget, settings.fit)


@dataclass(frozen=True)
class Start:
    """A conversation that is ready to be opened; opening it loads the model."""

    settings: Settings
    """The user's settings, or those of the saved session."""
    open: "Callable[[Progress], Conversation]"
    """Loads the model and opens the conversation; reports the step and its fraction, 0 to 1."""
    again: "Callable[[Settings], Start] | None" = None
    """Starts anew with other settings, where the session is not saved; None: that is impossible."""

    def watching(self) -> "Start":
        """Return a start whose conversation looks for files that change."""

        def open_(progress: "Progress") -> "Conversation":
            conversation = self.open(progress)
            conversation.watches = True
            return conversation

        return replace(self, open=open_)

    def with_note(self, note: str) -> "Start":
        """Return a start whose conversation begins with a note."""

        def open_(progress: "Progress") -> "Conversation":
            conversation = self.open(progress)
            conversation.notes.insert(0, note)
            return conversation

        return replace(self, open=open_)


def start_on_documents(
    prepared: Prepared,
    paths: Sequence[str],
    output: Output,
    *,
    for_one_answer: bool = False,
) -> Start:
    """Start a conversation about documents, from saved K/V of them if there is any.

    Args:
        prepared: the documents.
        paths: where they come from; empty: there are no documents, and nothing is saved.
        output: receives notes on K/V that cannot be saved or used.
        for_one_answer: ignore the turns of the saved session, and do without its K/V while another
            process has it open; standard input is not saved.

    Raises:
        SessionInUseError: another process has the saved session open.
    """
    settings = prepared.settings
    target = None
    if paths and not settings.no_save and not (for_one_answer and "-" in paths):
        target = _find_target(prepared, paths, settings, output, for_one_answer=for_one_answer)
    given = resolved(paths)
    start = start_on_target(
        prepared.files,
        settings,
        prepared.loaded,
        target,
        given,
        layout=prepared.layout,
        resume_turns=not for_one_answer,
    )
    if STANDARD_INPUT in paths:
        return start

    def again(settings: Settings) -> Start:
        return start_on_documents(prepare(paths, settings, output), paths, output)

    return replace(start, again=again)


def start_on_target(
    files: "ModelFiles",
    settings: Settings,
    loaded: documents.LoadedDocuments,
    target: "SaveTarget | None",
    given: dict[str, Path],
    *,
    layout: documents.DocumentTokens | None = None,
    resume_turns: bool = True,
) -> Start:
    """Start a conversation about loaded documents.

    Args:
        files: the model's files.
        settings: with the model's name and context.
        loaded: the documents; none: a conversation without.
        target: where it is saved; None: nowhere.
        given: see ``resolved``.
        layout: the documents as tokens; None: they are laid out when the model is loaded.
        resume_turns: go on after the turns of the saved session.
    """
    from hga_engine.model.weight_cache import read_ahead

    read_ahead(files)

    def open_(progress: "Progress") -> "Conversation":
        from hga_chat.conversation.opening import open_documents

        with _closing_on_failure(target.saved if target else None):
            about = _about_model(files, settings)
            model = engine_access.access.load_model(
                files, settings.engine(), settings.device, progress
            )
            tokens = layout
            if tokens is None and loaded.documents:
                tokens = documents.lay_out(loaded, model.tokenizer)
            conversation = open_documents(
                model, settings, tokens, loaded.skipped, target, resume_turns=resume_turns
            )
            conversation.given = given
            conversation.notes[:0] = about
            if resume_turns and not loaded.documents and not settings.no_save:
                conversation.notes.append(NOT_SAVED)
        return _letting_think(conversation, settings)

    return Start(settings, open_)


def _about_model(files: "ModelFiles", settings: Settings) -> list[str]:
    """Say what the model is good for, before it takes the memory that a better one would use."""
    from hga_chat.cli.outlook import about_model

    about = about_model(settings.model, engine_access.access.parameters(files), settings)
    return [about] if about else []


def _find_target(
    prepared: Prepared,
    paths: Sequence[str],
    settings: Settings,
    output: Output,
    *,
    for_one_answer: bool,
) -> "SaveTarget | None":
    """Return where the session is to be saved; None if the saved one is in use."""
    from hga_chat.conversation.opening import SaveTarget, find_saved_session, origin_of
    from hga_chat.sessions.store import SessionStore
    from hga_chat.sessions.types import SessionError, SessionInUseError

    store = SessionStore(settings.disk_limit)
    origin = origin_of(paths, prepared.files, settings)
    saved = None
    try:
        found = find_saved_session(store, origin, prepared.loaded.documents, output.note)
        saved = store.open(found) if found else None
    except SessionInUseError as error:
        if not for_one_answer:
            raise
        output.note(f"{error} The documents are read for this answer only, and not saved.")
        return None
    except (OSError, SessionError) as error:
        output.note(f"A saved session cannot be used: {describe(error)}")
    return SaveTarget(store, tuple(paths), origin, saved)


def start_on_session(name: str, settings: Settings, output: Output) -> Start:
    """Start a conversation from a saved session, found by id or title.

    Raises:
        SessionMissingError: no session matches, or more than one.
        SessionInUseError: another process has it open.
        SessionError: it is damaged.
        EngineError: its model is missing or damaged.
    """
    from hga_chat.conversation.opening import lay_out_saved, open_session, settings_of
    from hga_chat.sessions.changes import changes_note
    from hga_chat.sessions.store import SessionStore
    from hga_engine.model.weight_cache import read_ahead

    store = SessionStore(settings.disk_limit)
    saved = store.open(store.find(name))
    saved.is_written = not settings.no_save
    own = settings_of(saved.info, settings)
    model = own.model if settings.model == AUTO else settings.model
    if own != replace(settings, model=model, context=settings.context or own.context):
        output.note(
            f"The session keeps its own settings: model {own.model}, context {own.context:,}, "
            f"router {own.router}, budget {own.budget:,} tokens."
        )
    files, own = find_or_pull(own, output)
    read_ahead(files)
    # Tokenize in a thread while this one imports torch.
    threads = ThreadPoolExecutor(1)
    layout = threads.submit(lay_out_saved, saved, files)
    threads.shutdown(wait=False)

    def open_(progress: "Progress") -> "Conversation":
        with _closing_on_failure(saved):
            about = _about_model(files, own)
            model = engine_access.access.load_model(files, own.engine(), own.device, progress)
            conversation = open_session(model, own, saved, layout.result())
            conversation.given = given_places(saved.info)
            changes = changes_note(saved, conversation.given)
            if changes is not None:
                conversation.notes.append(changes)
            conversation.notes[:0] = about
        return _letting_think(conversation, own)

    return Start(own, open_)


def given_places(info: "SessionInfo") -> dict[str, Path]:
    """Return the paths of a session as the user typed them, with where they are."""
    places = zip(info.given, map(Path, info.origin.paths), strict=True)
    return {path: place for path, place in places if path != STANDARD_INPUT}


def _letting_think(conversation: "Conversation", settings: Settings) -> "Conversation":
    """Let the model think before it answers, if the user wants it and the model can."""
    from hga_chat.conversation.thought import CANNOT_THINK

    conversation.thinks = settings.think
    if settings.think and not conversation.engine.tokenizer.can_think:
        conversation.notes.append(CANNOT_THINK)
    return conversation


@contextmanager
def _closing_on_failure(saved: "SavedSession | None") -> Iterator[None]:
    """Close the session if opening fails, so that other processes can open it."""
    try:
        yield
    except BaseException:
        if saved is not None:
            saved.close()
        raise


def _nothing_left(survey: documents.Survey) -> str:
    """Say why no document that was loaded can be used."""
    first, *others = survey.loaded.skipped
    more = f" (and {len(others):,} more)" if others else ""
    return f"nothing to load: {first.path}: {first.reason}{more}"


def note_skipped(prepared: Prepared, output: Output) -> None:
    """Say what is left out of the documents, name the first few skipped files, count the rest."""
    left_out = documents.left_out_note(prepared.loaded.documents)
    if left_out is not None:
        output.note(left_out)
    skipped = prepared.loaded.skipped
    for entry in skipped[:_SKIPPED_SHOWN]:
        output.note(f"Skipped {entry.path}: {entry.reason}")
    if len(skipped) > _SKIPPED_SHOWN:
        more = len(skipped) - _SKIPPED_SHOWN
        output.note(f"Skipped {more} more; 'hga-chat ingest --dry-run' lists them.")
