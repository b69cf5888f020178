"""Loads documents and counts their tokens, keeping no more text than the budget has room for."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from hga_chat.documents.fit import Fitting, Importance
from hga_chat.documents.layout import DocumentTokenizer, count_tokens
from hga_chat.documents.load import Loaded
from hga_chat.documents.secrets import Secret, find_secrets, redact
from hga_chat.documents.types import Document, LoadedDocuments, Skipped, failure_reason

_BATCH_CHARS = 500_000
_MAX_COUNTERS = 4
_Entry = tuple[Loaded, tuple[Secret, ...]]


@dataclass(frozen=True)
class Counted:
    """A loaded document, its length and the secrets found in it."""

    path: str
    format: str
    sections: int
    tokens: int
    """Including its header."""
    secrets: tuple[Secret, ...] = ()
    left_out: tuple[str, ...] = ()
    """What of the source is not in the text."""
    importance: Importance = (0, 0)
    """How much it matters to a reader of its tree."""

    @classmethod
    def of(cls, document: Document, tokens: int, secrets: tuple[Secret, ...] = ()) -> "Counted":
        """Return the entry of a document that takes this many tokens."""
        sections, left_out = len(document.sections), document.left_out
        return cls(document.path, document.format, sections, tokens, secrets, left_out)


@dataclass(frozen=True)
class Survey:
    """The documents that were found, with their token counts.

    ``loaded`` holds all of them, unless they take more tokens than the budget.
    """

    counted: tuple[Counted, ...]
    loaded: LoadedDocuments

    @property
    def tokens(self) -> int:
        """Tokens of all documents."""
        return sum(document.tokens for document in self.counted)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Secrets of all documents."""
        return tuple(secret for document in self.counted for secret in document.secrets)

    def without(self, failed: Sequence[Skipped]) -> "Survey":
        """Return this survey with documents skipped after all."""
        paths = {entry.path for entry in failed}
        loaded = LoadedDocuments(
            tuple(entry for entry in self.loaded.documents if entry.path not in paths),
            (*self.loaded.skipped, *failed),
        )
        return Survey(tuple(e for e in self.counted if e.path not in paths), loaded)


def listing(counted: Iterable[Counted], skipped: Iterable[Skipped]) -> dict[str, Any]:
    """Return documents, skipped sources and the total of tokens as JSON values."""
    documents = [
        {
            "path": entry.path,
            "format": entry.format,
            "sections": entry.sections,
            "tokens": entry.tokens,
            "left_out": list(entry.left_out),
        }
        for entry in counted
    ]
    return {
        "documents": documents,
        "skipped": [{"path": entry.path, "reason": entry.reason} for entry in skipped],
        "tokens": sum(entry["tokens"] for entry in documents),
    }


def survey_documents(
    entries: Iterable[Loaded | Skipped],
    tokenizer: DocumentTokenizer,
    budget: int,
    *,
    fit: bool = False,
    without_secrets: bool = False,
) -> Survey:
    """Load documents and count their tokens.

    Args:
        entries: From ``iter_documents``.
        tokenizer: The model's.
        budget: How many document tokens there is room for.
        fit: Leave out documents until the rest fits, unless not even one does.
        without_secrets: Redact secrets in the text.
    """
    counted: list[Counted] = []
    skipped: list[Skipped] = []
    fitting = Fitting(budget)
    searched = _with_secrets(entries, skipped, without_secrets=without_secrets)
    for batch, tokens in _in_batches(searched, tokenizer):
        for (loaded, secrets), count in zip(batch, tokens, strict=True):
            document = loaded.document
            if isinstance(count, str):
                skipped.append(Skipped(document.path, count))
                continue
            fitting.add(len(counted), document, loaded.kind, count)
            counted.append(Counted.of(document, count, secrets))
    documents, reasons = fitting.choose()
    for number, importance in fitting.importance.items():
        counted[number] = replace(counted[number], importance=importance)
    if fit and documents:
        skipped[:0] = (
            Skipped(counted[number].path, f"left out by --fit: {reason}")
            for number, reason in reasons.items()
        )
        counted = [entry for number, entry in enumerate(counted) if number not in reasons]
    return Survey(tuple(counted), LoadedDocuments(tuple(documents), tuple(skipped)))


def _with_secrets(
    entries: Iterable[Loaded | Skipped], skipped: list[Skipped], *, without_secrets: bool
) -> Iterator[_Entry]:
    """Yield documents with the secrets found in them, redacted if ``without_secrets``."""
    for entry in entries:
        if isinstance(entry, Skipped):
            skipped.append(entry)
            continue
        try:
            secrets = find_secrets(entry.document)
            if secrets and without_secrets:
                entry = Loaded(redact(entry.document), entry.kind)
        except Exception as error:  # noqa: BLE001 - one bad file must not end the run
            skipped.append(Skipped(entry.document.path, failure_reason(error)))
            continue
        yield entry, secrets


def _in_batches(
    searched: Iterable[_Entry], tokenizer: DocumentTokenizer
) -> Iterator[tuple[list[_Entry], Sequence[int | str]]]:
    """Yield batches with their token counts; other threads count while this one loads."""
    counters = min(os.cpu_count() or 1, _MAX_COUNTERS)
    waiting: deque[tuple[list[_Entry], Future[Sequence[int | str]]]] = deque()
    with ThreadPoolExecutor(counters) as pool:
        for batch in _batches(searched):
            documents = [loaded.document for loaded, _ in batch]
            waiting.append((batch, pool.submit(_count, documents, tokenizer)))
            if len(waiting) > counters:
                first, counts = waiting.popleft()
                yield first, counts.result()
        for batch, counts in waiting:
            yield batch, counts.result()


def _count(documents: Sequence[Document], tokenizer: DocumentTokenizer) -> Sequence[int | str]:
    """Return how many tokens each document takes, or why that cannot be told."""
    try:
        return count_tokens(documents, tokenizer)
    except BaseException as error:  # noqa: BLE001 - a panic in Rust is no Exception
        reason = failure_reason(error)
        if len(documents) == 1:
            return [reason]
    return [count for document in documents for count in _count([document], tokenizer)]


def _batches(searched: Iterable[_Entry]) -> Iterator[list[_Entry]]:
    batch: list[_Entry] = []
    chars = 0
    for loaded, secrets in searched:
        batch.append((loaded, secrets))
        chars += sum(len(section.text) for section in loaded.document.sections)
        if chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
