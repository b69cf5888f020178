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
    loaded: documents.LoadedDocuments | None
    layout: documents.DocumentTokens | None
    budget: int
    """Document tokens there is room for."""

    def check_budget(self) -> None:
        """Raise ``OverBudgetError`` if the documents are too long."""
        over = documents.over_budget(self.layout, self.budget) if self.layout else None
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
    # What can be wrong with the paths is said before torch is imported.
    loaded = documents.load_documents(paths, settings.include, settings.exclude) if paths else None
    from hga_chat.conversation import room_for_documents
    from hga_engine.tokenizer import load_tokenizer

    files = find_or_pull(settings, output)
    tokenizer = load_tokenizer(files)
    room = room_for_documents(tokenizer, settings.context, settings.max_new_tokens, question)
    budget = room if settings.max_tokens is None else min(room, settings.max_tokens)
    layout = documents.lay_out(loaded, tokenizer) if loaded else None
    return Prepared(files, loaded, layout, budget)


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
    skipped = prepared.loaded.skipped if prepared.loaded else ()
    return Conversation(engine, prepared.layout, skipped)


def note_skipped(prepared: Prepared, output: Output) -> None:
    """Say what was not read: the first few, and how many more."""
    skipped = prepared.loaded.skipped if prepared.loaded else ()
    for entry in skipped[:_SKIPPED_SHOWN]:
        output.note(f"Skipped {entry.path}: {entry.reason}")
    if len(skipped) > _SKIPPED_SHOWN:
        more = len(skipped) - _SKIPPED_SHOWN
        output.note(f"Skipped {more} more; 'hga-chat ingest --dry-run' lists them.")
