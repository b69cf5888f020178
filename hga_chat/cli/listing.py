"""What ``ingest --dry-run`` prints: what would be read, how long it is, and what is left out."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hga_chat import documents
from hga_chat.output import table


def as_object(survey: documents.Survey, budget: int) -> dict[str, object]:
    """The object that ``--json`` prints."""
    return {
        "documents": [
            {
                "path": document.path,
                "format": document.format,
                "sections": document.sections,
                "tokens": document.tokens,
            }
            for document in survey.counted
        ],
        "skipped": [
            {"path": entry.path, "reason": entry.reason} for entry in survey.loaded.skipped
        ],
        "tokens": survey.tokens,
        "budget": budget,
    }


def as_text(survey: documents.Survey, budget: int) -> str:
    """The tree with the tokens of files and folders, for people."""
    parts = [table(("tokens", "format", "path"), [*_rows(_tree(survey.counted))])]
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
    """A folder of the tree, with what is in it in the order in which that is first read."""

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
            assert isinstance(below, _Folder)  # a file's name holds no slash
            place = below
            place.tokens += document.tokens
        place.entries[name] = document
    return root


def _rows(folder: _Folder, depth: int = 0) -> Iterator[tuple[int, str, str]]:
    """Tokens, format and indented name of everything in a folder."""
    for name, entry in folder.entries.items():
        indented = "  " * depth + name
        if isinstance(entry, _Folder):
            yield entry.tokens, "", indented
            yield from _rows(entry, depth + 1)
        else:
            yield entry.tokens, entry.format, indented
