"""From settings and paths to a conversation: the one place that puts them together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hga_chat import documents
from hga_chat.cli.errors import OverBudgetError
from hga_chat.output import Output
from hga_chat.settings import Settings

if TYPE_CHECKING:
    from hga_chat.conversation import Conversation
    from hga_engine.model.files import ModelFiles

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

    @property
    def loaded(self) -> documents.LoadedDocuments:
        """What is read, and what is not."""
        return self.survey.loaded

    def check_budget(self) -> None:
        """Raise ``OverBudgetError`` if the documents are too long."""
        over = documents.over_budget(self.survey.counted, self.budget)
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
    entries = documents.read_documents(paths, settings.include, settings.exclude) if paths else ()
    from hga_chat.prompts import room_for_documents
    from hga_engine.tokenizer import load_tokenizer

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
    return Prepared(files, survey, layout, budget)


def open_conversation(
    prepared: Prepared, settings: Settings, progress: Callable[[str, float], None]
) -> "Conversation":
    """Load the model. Nothing has been read yet.

    Raises:
        EngineError: the model is damaged or does not fit the memory.
    """
    from hga_chat.conversation import Conversation
    from hga_engine.engine import load_engine

    engine = load_engine(prepared.files, settings.engine(), progress)
    return Conversation(engine, prepared.layout, prepared.loaded.skipped)


def note_skipped(prepared: Prepared, output: Output) -> None:
    """Say what was not read: the first few, and how many more."""
    skipped = prepared.loaded.skipped
    for entry in skipped[:_SKIPPED_SHOWN]:
        output.note(f"Skipped {entry.path}: {entry.reason}")
    if len(skipped) > _SKIPPED_SHOWN:
        more = len(skipped) - _SKIPPED_SHOWN
        output.note(f"Skipped {more} more; 'hga-chat ingest --dry-run' lists them.")
