"""Lists documents with their lengths, and what was skipped, as JSON and as text."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hga_chat import documents
from hga_chat.output import table

if TYPE_CHECKING:
    from hga_chat.conversation.conversation import Conversation


def as_object(survey: documents.Survey, budget: int) -> dict[str, Any]:
    """Return the object that ``ingest --dry-run --json`` prints."""
    return {**documents.listing(survey.counted, survey.loaded.skipped), "budget": budget}


def conversation_as_object(conversation: "Conversation") -> dict[str, Any]:
    """Return a conversation's documents as ``as_object`` lists them, without the budget."""
    spans = conversation.layout.documents if conversation.layout else ()
    counted = [documents.Counted.of(span.document, span.tokens) for span in spans]
    return documents.listing(counted, conversation.skipped)


def as_text(survey: documents.Survey, budget: int) -> str:
    """Return the tree of folders and files with their tokens, for people."""
    parts = [table(("tokens", "format", "path"), [*_rows(_tree(survey.counted))])]
    rows = [(entry.path, ", ".join(entry.left_out)) for entry in survey.counted if entry.left_out]
    if rows:
        parts.append(table(("path", "left out of it"), rows))
    if survey.loaded.skipped:
        rows = [(entry.reason, entry.path) for entry in survey.loaded.skipped]
        parts.append(table(("skipped because", "path"), rows))
    if survey.secrets:
        rows = [(secret.kind, secret.place) for secret in survey.secrets]
        parts.append(table(("possible secret", "place"), rows))
    parts.append(f"{survey.tokens:,} of {budget:,} tokens")
    return "\n\n".join(parts) + "\n"


@dataclass
class _Folder:
    """A folder of the tree; its entries are in the order of the documents."""

    tokens: int = 0
    entries: "dict[str, _Folder | documents.Counted]" = field(default_factory=dict)


def _tree(counted: tuple[documents.Counted, ...]) -> _Folder:
    root = _Folder()
    for document in counted:
        *folders, name = document.path.split("/")
        place = root
        place.tokens += document.tokens
        for folder in folders:
            below = place.entries.setdefault(f"{folder}/", _Folder())
            assert isinstance(below, _Folder)  # a file name has no slash
            place = below
            place.tokens += document.tokens
        place.entries[name] = document
    return root


def _rows(folder: _Folder, depth: int = 0) -> Iterator[tuple[int, str, str]]:
    """Yield tokens, format and indented name of everything in a folder."""
    for name, entry in folder.entries.items():
        indented = "  " * depth + name
        if isinstance(entry, _Folder):
            yield entry.tokens, "", indented
            yield from _rows(entry, depth + 1)
        else:
            yield entry.tokens, entry.format, indented
