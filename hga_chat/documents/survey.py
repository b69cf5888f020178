"""Reading documents and counting their tokens, keeping no more text than there is room for."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from hga_chat.documents.fit import Fitting
from hga_chat.documents.layout import DocumentTokenizer, count_tokens
from hga_chat.documents.load import Read
from hga_chat.documents.secrets import Secret, find_secrets, redact
from hga_chat.documents.types import LoadedDocuments, Skipped

_BATCH_CHARS = 500_000
_MAX_COUNTERS = 4
_Batch = list[tuple[Read, tuple[Secret, ...]]]


@dataclass(frozen=True)
class Counted:
    """A document that was read, and how long it is."""

    path: str
    format: str
    sections: int
    tokens: int
    """Its header included."""
    secrets: tuple[Secret, ...]


@dataclass(frozen=True)
class Survey:
    """What there is to read.

    ``loaded`` is all of it, unless it takes more tokens than there is room for.
    """

    counted: tuple[Counted, ...]
    loaded: LoadedDocuments

    @property
    def tokens(self) -> int:
        """Of all documents."""
        return sum(document.tokens for document in self.counted)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Of all documents."""
        return tuple(secret for document in self.counted for secret in document.secrets)


def survey_documents(
    entries: Iterable[Read | Skipped],
    tokenizer: DocumentTokenizer,
    budget: int,
    *,
    fit: bool = False,
    without_secrets: bool = False,
) -> Survey:
    """Read documents and count their tokens.

    Args:
        entries: From ``read_documents``.
        tokenizer: The model's.
        budget: Document tokens there is room for.
        fit: Leave documents out until the rest fits. Where even those that have to stay do not
            fit, they are all that is counted.
        without_secrets: Take secrets out of the text.
    """
    counted: list[Counted] = []
    skipped: list[Skipped] = []
    fitting = Fitting(budget)
    prepared = _with_secrets(entries, skipped, without_secrets=without_secrets)
    for batch, tokens in _in_batches(prepared, tokenizer):
        for (read, secrets), count in zip(batch, tokens, strict=True):
            document = read.document
            fitting.add(len(counted), document, read.kind, count)
            sections = len(document.sections)
            counted.append(Counted(document.path, document.format, sections, count, secrets))
    documents, reasons = fitting.choose()
    if fit:
        skipped += (
            Skipped(counted[number].path, f"left out by --fit: {reason}")
            for number, reason in reasons.items()
            if reason
        )
        counted = [entry for number, entry in enumerate(counted) if not reasons.get(number)]
    return Survey(tuple(counted), LoadedDocuments(tuple(documents), tuple(skipped)))


def _with_secrets(
    entries: Iterable[Read | Skipped], skipped: list[Skipped], *, without_secrets: bool
) -> Iterator[tuple[Read, tuple[Secret, ...]]]:
    """Documents with the places of their secrets, which are taken out if that is wanted."""
    for entry in entries:
        if isinstance(entry, Skipped):
            skipped.append(entry)
            continue
        secrets = find_secrets(entry.document)
        if secrets and without_secrets:
            entry = Read(redact(entry.document), entry.kind)
        yield entry, secrets


def _in_batches(
    prepared: Iterable[tuple[Read, tuple[Secret, ...]]], tokenizer: DocumentTokenizer
) -> Iterator[tuple[_Batch, list[int]]]:
    """Batches of documents with their tokens, counted by other threads while this one reads."""
    counters = min(os.cpu_count() or 1, _MAX_COUNTERS)
    waiting: deque[tuple[_Batch, Future[list[int]]]] = deque()
    with ThreadPoolExecutor(counters) as pool:
        for batch in _batches(prepared):
            documents = [read.document for read, _ in batch]
            waiting.append((batch, pool.submit(count_tokens, documents, tokenizer)))
            if len(waiting) > counters:
                first, counts = waiting.popleft()
                yield first, counts.result()
        for batch, counts in waiting:
            yield batch, counts.result()


def _batches(prepared: Iterable[tuple[Read, tuple[Secret, ...]]]) -> Iterator[_Batch]:
    batch: _Batch = []
    chars = 0
    for read, secrets in prepared:
        batch.append((read, secrets))
        chars += sum(len(section.text) for section in read.document.sections)
        if chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
