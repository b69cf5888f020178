"""Lays documents out as one run of tokens, each of which knows its file and line or page."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from hga_chat.display import displayable
from hga_chat.documents.types import (
    STANDARD_INPUT,
    Document,
    LoadedDocuments,
    Passage,
    Section,
    Skipped,
    failure_reason,
)

_MAX_MARGIN_CHARS = 200
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?= )")


class DocumentTokenizer(Protocol):
    """The methods of ``hga_engine.tokenizer.tokenizer.Tokenizer`` that documents need."""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``; special tokens in it count as plain text."""

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the token ids and the range of characters of each."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text; several threads may call this at once."""


@dataclass(frozen=True)
class SectionSpan:
    """A section's tokens ``[start, end)``, of which ``[text_start, text_end)`` are its text.

    The others introduce it (the document's header, a page marker) or end it.
    """

    section: Section
    start: int
    text_start: int
    text_end: int
    end: int
    offsets: tuple[tuple[int, int], ...]
    """For each token of the text, its range of characters in ``section.text``."""


@dataclass(frozen=True)
class Chapter:
    """The tokens ``[start, end)`` under one heading of a document without lines or pages."""

    label: str
    """The headings from the outermost to its own, joined by ``HEADING_JOINT``."""
    start: int
    end: int


@dataclass(frozen=True)
class DocumentSpan:
    """A document's tokens ``[start, end)``; its sections cover all of them."""

    document: Document
    start: int
    end: int
    sections: tuple[SectionSpan, ...]

    @property
    def tokens(self) -> int:
        """How many tokens the document has, including its header."""
        return self.end - self.start

    @property
    def chapters(self) -> tuple[Chapter, ...]:
        """Its chapters in order, which cover all its tokens; empty if lines or pages address it.

        Also empty if there is only one.
        """
        found: list[Chapter] = []
        part = 1
        for span in self.sections:
            if span.section.start_line is not None or span.section.page is not None:
                return ()
            label = span.section.label
            # Long chapters are cut into sections of their own.
            if found and label == f"{found[-1].label}, part {part + 1}":
                part += 1
                found[-1] = replace(found[-1], end=span.end)
            else:
                part = 1
                found.append(Chapter(label, span.start, span.end))
        return tuple(found) if len(found) > 1 else ()


class DocumentTokens:
    """The token ids of all documents one after another, with provenance."""

    def __init__(self, token_ids: list[int], documents: tuple[DocumentSpan, ...]) -> None:
        self.token_ids = token_ids
        self.documents = documents
        self._sections = [section for span in documents for section in span.sections]
        self._starts = [section.start for section in self._sections]

    def __len__(self) -> int:
        return len(self.token_ids)

    def locate(self, start: int, end: int) -> list[Passage]:
        """Return the places of the tokens ``[start, end)``, one passage for each section touched.

        Tokens that introduce a section count as its first line, those that end it as its last.
        Tokens outside the documents are left out.
        """
        start, end = max(start, 0), min(end, len(self.token_ids))
        if start >= end:
            return []
        first = bisect_right(self._starts, start) - 1
        passages = []
        for span in self._sections[first:]:
            if span.start >= end:
                break
            passages.append(_passage(span, max(start, span.start), min(end, span.end)))
        return passages


def lay_out(
    loaded: LoadedDocuments,
    tokenizer: DocumentTokenizer,
    failed: list[Skipped] | None = None,
) -> DocumentTokens:
    """Encode documents one after another, each after a line that names it.

    Sections are encoded separately, so that each token belongs to exactly one of them.

    Args:
        loaded: The documents.
        tokenizer: The model's.
        failed: Takes the documents that cannot be encoded, and leaves them out; None raises the
            error of the first.
    """
    token_ids: list[int] = []
    documents = []
    for document in loaded.documents:
        start = len(token_ids)
        try:
            documents.append(_lay_out_document(document, tokenizer, token_ids))
        except BaseException as error:
            if failed is None:
                raise
            del token_ids[start:]
            failed.append(Skipped(document.path, failure_reason(error)))
    return DocumentTokens(token_ids, tuple(documents))


def _lay_out_document(
    document: Document, tokenizer: DocumentTokenizer, token_ids: list[int]
) -> DocumentSpan:
    """Add a document's tokens to ``token_ids``."""
    document_start = len(token_ids)
    sections = []
    for section, introduction, ending in _framed(document):
        start = len(token_ids)
        if introduction:
            token_ids += tokenizer.encode(introduction)
        text_start = len(token_ids)
        ids, offsets = tokenizer.encode_with_offsets(section.text)
        token_ids += ids
        text_end = len(token_ids)
        if ending:
            token_ids += tokenizer.encode(ending)
        sections.append(
            SectionSpan(section, start, text_start, text_end, len(token_ids), tuple(offsets))
        )
    return DocumentSpan(document, document_start, len(token_ids), tuple(sections))


def count_tokens(documents: Sequence[Document], tokenizer: DocumentTokenizer) -> list[int]:
    """Return how many tokens each document takes when it is laid out."""
    texts = [
        [
            text
            for section, before, after in _framed(document)
            for text in (before, section.text, after)
        ]
        for document in documents
    ]
    counts = iter(tokenizer.count([text for pieces in texts for text in pieces]))
    return [sum(islice(counts, len(pieces))) for pieces in texts]


def _framed(document: Document) -> Iterator[tuple[Section, str, str]]:
    """Yield each section with the text that introduces it and the text that ends it."""
    last = len(document.sections) - 1
    for index, section in enumerate(document.sections):
        introduction = _header(document) if index == 0 else ""
        if section.page is not None:
            introduction += f"[page {_one_line(section.page)}]\n"
        yield section, introduction, _ending(section, is_last=index == last)


def _header(document: Document) -> str:
    if document.path == STANDARD_INPUT:
        return "Text from standard input\n\n"
    return f"File: {_one_line(document.path)}\n\n"


def _one_line(name: str) -> str:
    return displayable(name).replace("\n", "\u2424").replace("\t", " ")


def _ending(section: Section, *, is_last: bool) -> str:
    """Return line ends that keep the next page or document apart."""
    if not is_last and section.page is None:
        return ""
    return "\n" if section.text.endswith("\n") else "\n\n"


def _passage(span: SectionSpan, start: int, end: int) -> Passage:
    section = span.section
    begin, stop = _characters(span, start, end)
    start_line, end_line = section.line_at(begin), section.line_at(max(begin, stop - 1))
    text = _with_surroundings(section.text, begin, stop)
    return Passage(section.path, section.label, start_line, end_line, section.page, text)


def _characters(span: SectionSpan, start: int, end: int) -> tuple[int, int]:
    """Return the section's characters behind the tokens ``[start, end)``."""
    text = span.section.text
    start, end = max(start, span.text_start), min(end, span.text_end)
    if start < end:
        touched: Sequence[tuple[int, int]] = span.offsets[
            start - span.text_start : end - span.text_start
        ]
        return min(begin for begin, _ in touched), max(stop for _, stop in touched)
    if start >= span.text_end > span.text_start:
        return max(len(text) - 1, 0), len(text)
    return 0, min(1, len(text))


def _with_surroundings(text: str, begin: int, stop: int) -> str:
    """Widen a range of characters to whole lines.

    Where a line is very long, widen it to whole sentences; where those are too, to whole words.
    """
    line_start = text.rfind("\n", 0, begin) + 1
    if begin - line_start > _MAX_MARGIN_CHARS:
        line_start = begin - _MAX_MARGIN_CHARS
        ends = [found.end() for found in _SENTENCE_END.finditer(text, line_start, begin)]
        word_end = ends[0] if ends else text.find(" ", line_start, begin)
        line_start = word_end + 1 if word_end >= 0 else line_start
    line_end = text.find("\n", max(begin, stop - 1))
    line_end = len(text) if line_end < 0 else line_end
    if line_end - stop > _MAX_MARGIN_CHARS:
        line_end = stop + _MAX_MARGIN_CHARS
        # Include a full stop at the very end of the range.
        before = max(stop - 2, begin)
        ends = [found.end() for found in _SENTENCE_END.finditer(text, before, line_end)]
        word_end = ends[-1] if ends else text.rfind(" ", stop, line_end)
        line_end = word_end if word_end >= 0 else line_end
    return text[line_start:line_end]
