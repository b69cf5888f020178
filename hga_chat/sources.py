"""Find the passages of the documents that an answer attended to."""

import operator
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, takewhile
from typing import TYPE_CHECKING

from hga_chat.documents.types import where
from hga_engine.config import Routing

if TYPE_CHECKING:
    import torch

    from hga_chat.documents import DocumentTokens, Passage

TRACE_BIN_TOKENS = Routing.trace_bin_tokens
"""Tokens that a trace counts together; the router may choose smaller groups."""
MAX_SOURCES = 5
MAX_HIDDEN = 8
"""Passages that are hidden to test whether an answer depends on what it attended to. More than are
named: a fact may be in several places."""
LEAST_MASS = 0.0035
"""Least mean mass over the tokens of a sentence for a passage to stand out."""
LEAST_SHARE_OF_BEST = 0.1
"""Least share of the mass of the sentence's best passage."""

_NEARLY_AS_MUCH = 0.3
_REACH = 2
_LEAST_SENTENCE_TOKENS = 6
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+|\n+")


@dataclass(frozen=True)
class Source:
    """A passage that an answer attended to."""

    path: str
    label: str
    start_line: int | None
    end_line: int | None
    page: str | None
    score: float
    """Share of the mass that stands out on the documents over the whole answer, 0 to 1."""
    text: str
    start_token: int
    """First token, counted from the first token of the documents."""
    end_token: int
    """One past the last token."""

    @property
    def place(self) -> str:
        """Path with lines, page or label."""
        return where(self.path, self.start_line, self.end_line, self.page, self.label)

    def as_object(self) -> dict[str, object]:
        """Return the fields that are printed and exported as JSON."""
        return {
            "path": self.path,
            "label": self.label,
            "start_line": self.start_line,
            "end_line": self.end_line,
            "page": self.page,
            "score": round(self.score, 4),
            "text": self.text,
        }


@dataclass(frozen=True)
class Attribution:
    """Where an answer comes from, judged by its attention."""

    sources: tuple[Source, ...] = ()
    """The passages it attended to most; empty if none stands out."""
    from_conversation: bool = False
    """Whether a passage of earlier turns drew more attention than any of the documents; it then has
    no sources."""
    attended: tuple[tuple[int, int], ...] = ()
    """First token and one past the last, as ``Source`` counts them, of the passages to hide in a
    test: the sources and the next heaviest, whether they stand out or not."""


@dataclass(frozen=True)
class _Peak:
    """Neighbouring bins of one section that stand out for one sentence."""

    rank: int
    """0 for the heaviest peak of the sentence."""
    stands_out: bool
    sentence: int
    bins: range
    """Numbered from the first bin of the documents."""
    mass: float


def add_mass(one: "torch.Tensor", other: "torch.Tensor") -> "torch.Tensor":
    """Sum two [bins] tensors; the shorter one is from earlier, before the session grew."""
    longer, shorter = (other, one) if other.numel() > one.numel() else (one, other)
    summed = longer.clone()
    summed[: shorter.numel()] += shorter
    return summed


def standing_out(per_token: "Sequence[torch.Tensor]") -> "torch.Tensor":
    """Return the attention mass of each token above the median over the answer.

    Some bins, above all at the start and the end, draw attention from every token alike. Attention
    that the words of this answer cause rises above a bin's median over the answer's tokens.

    Args:
        per_token: for each token of the answer, [bins] attention mass; later ones may be longer,
            as the session grows.

    Returns:
        [tokens, bins] float32, the mass above the median. If no token differs from the others, as
        with a single token, all mass.
    """
    import torch

    if not per_token:
        return torch.zeros(0, 0)
    stacked = torch.nn.utils.rnn.pad_sequence(list(per_token), batch_first=True)
    above = (stacked - stacked.median(0).values).clamp_min(0)
    return above if bool(above.any()) else stacked


def document_bins(layout: "DocumentTokens", document_start: int) -> range:
    """Return the bins of the session in which only document tokens count.

    The first bin is a sink whatever it holds. The bins with the documents' beginning and end also
    hold the end of the system prompt, another sink, and the beginning of a question.
    """
    first = max(-(-document_start // TRACE_BIN_TOKENS), 1)
    return range(first, (document_start + len(layout.token_ids)) // TRACE_BIN_TOKENS)


def standing_out_in(
    bins: range, per_token: "Sequence[torch.Tensor]"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return what stands out in the documents and after them.

    Args:
        bins: those of the documents; earlier ones are left out.
        per_token: for each token of the answer, [bins of the session] attention mass.

    Returns:
        Two float64 tensors: [tokens, bins of the documents] and [tokens, later bins].
    """
    above = standing_out([mass[bins.start :] for mass in per_token]).double()
    in_documents, later = above.tensor_split([len(bins)], 1)
    return in_documents, later


def sentence_numbers(pieces: Sequence[str]) -> list[int]:
    """Number the sentences or lines of an answer; return the number for each token's text.

    Anything shorter than a few tokens, such as an abbreviation, belongs to what follows.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer("".join(pieces))]
    last_characters = [end - 1 for end in accumulate(map(len, pieces))]
    numbers: list[int] = []
    number = tokens = 0
    for _, run in groupby(last_characters, lambda last: bisect_right(ends, last)):
        length = len(list(run))
        numbers += [number] * length
        tokens += length
        if tokens >= _LEAST_SENTENCE_TOKENS:
            number, tokens = number + 1, 0
    return numbers


def attribute(
    per_token: "Sequence[torch.Tensor]",
    pieces: Sequence[str],
    layout: "DocumentTokens",
    document_start: int,
    turn_start: int,
    earlier: Sequence[str] = (),
) -> Attribution:
    """Find the passages that an answer attended to most, at most ``MAX_SOURCES``.

    A passage is a bin that stands out for a sentence, with neighbours in its section that stand out
    nearly as much. The heaviest passages of all sentences come first, in the order of the
    sentences, then the second heaviest, and so on.

    An answer is from the conversation if the best passage of earlier turns is heavier than the
    best passage of the documents, both added up over the sentences. Passages are compared, so what
    many earlier turns draw together does not count. Nor does an opening that an earlier answer has
    as well, such as "According to the text,": it attends to that answer whatever follows.

    Args:
        per_token: for each token of the answer, [bins] attention mass over the session, the window
            included.
        pieces: the text of each of these tokens.
        layout: where each document token comes from.
        document_start: position in the session of the first document token.
        turn_start: position of the question's first token.
        earlier: the answers of earlier turns.
    """
    bins = document_bins(layout, document_start)
    in_documents, later = standing_out_in(bins, per_token)
    numbers = sentence_numbers(pieces)
    texts = _BinTexts(layout, bins.start * TRACE_BIN_TOKENS - document_start)
    turns_end = turn_start // TRACE_BIN_TOKENS - max(bins.stop, bins.start)
    in_turns = later[:, : max(turns_end, 0)]
    peaks: list[_Peak] = []
    opening, best_in_turns = _repeated_opening(pieces, earlier), 0.0
    for sentence, tokens in groupby(range(len(numbers)), numbers.__getitem__):
        rows = list(tokens)
        peaks += _peaks(sentence, in_documents[rows], texts)
        best_in_turns += _heaviest(in_turns[[row for row in rows if row >= opening]])
    best = sum(peak.mass for peak in peaks if peak.rank == 0 and peak.stands_out)
    # A single token has nothing to stand out from.
    if len(per_token) > 1 and best_in_turns > max(best, LEAST_MASS * len(per_token)):
        return Attribution(from_conversation=True)
    peaks.sort(key=lambda peak: (peak.rank, -peak.mass))
    chosen: list[_Peak] = []
    for peak in peaks:
        if all(_are_apart(peak.bins, other.bins) for other in chosen):
            chosen.append(peak)
    named = [peak for peak in chosen if peak.stands_out][:MAX_SOURCES]
    mass = in_documents.sum(0)
    shares = (mass / mass.sum().clamp_min(1e-30)).tolist()
    sources = [
        texts.source(peak.bins, sum(shares[peak.bins.start : peak.bins.stop]))
        for peak in sorted(named, key=lambda peak: (peak.rank, peak.sentence))
    ]
    hidden = [*named, *(peak for peak in chosen if peak not in named)][:MAX_HIDDEN]
    return Attribution(tuple(sources), attended=tuple(texts.tokens(peak.bins) for peak in hidden))


def _are_apart(one: range, other: range) -> bool:
    return one.stop <= other.start or other.stop <= one.start


class _BinTexts:
    """The text of the documents' bins; the first bin begins at document token ``offset``."""

    def __init__(self, layout: "DocumentTokens", offset: int) -> None:
        self._layout = layout
        self._offset = offset

    def tokens(self, bins: range) -> tuple[int, int]:
        """Return the first token of these bins, and one past the last."""
        start = self._offset + bins.start * TRACE_BIN_TOKENS
        end = self._offset + bins.stop * TRACE_BIN_TOKENS
        return max(start, 0), min(end, len(self._layout.token_ids))

    def passage(self, bins: range) -> "Passage":
        """Return the passage that holds most of the text of these bins."""
        found = self._layout.locate(*self.tokens(bins))
        return max(found, key=lambda passage: len(passage.text))

    def section(self, number: int) -> tuple[str, str]:
        """Return path and label of the section that holds most of a bin."""
        passage = self.passage(range(number, number + 1))
        return passage.path, passage.label

    def source(self, bins: range, score: float) -> Source:
        found = self.passage(bins)
        start, end = self.tokens(bins)
        return Source(
            path=found.path,
            label=found.label,
            start_line=found.start_line,
            end_line=found.end_line,
            page=found.page,
            score=score,
            text=found.text,
            start_token=start,
            end_token=end,
        )


def _peaks(sentence: int, above: "torch.Tensor", texts: _BinTexts) -> Iterator[_Peak]:
    """Yield the heaviest passages for one sentence, heaviest first.

    Args:
        sentence: its number.
        above: [tokens of the sentence, bins of the documents] mass that stands out.
        texts: the text of the bins.
    """
    left = dict(enumerate(above.sum(0).tolist()))
    least = LEAST_MASS * above.shape[0]
    for rank in range(MAX_HIDDEN):
        heaviest = max(left, key=left.__getitem__, default=None)
        if heaviest is None or left[heaviest] <= 0:
            return
        bins = _around(heaviest, left, texts)
        mass = sum(left.pop(number) for number in bins)
        yield _Peak(rank, rank < MAX_SOURCES and mass >= least, sentence, bins, mass)
        if rank == 0:
            least = max(least, LEAST_SHARE_OF_BEST * mass)


def _repeated_opening(pieces: Sequence[str], earlier: Sequence[str]) -> int:
    """Return how many tokens of an answer begin an earlier answer too; 0 if all of them do."""
    text = "".join(pieces)
    equal = (map(operator.eq, text, answer) for answer in earlier)
    shared = max((sum(takewhile(bool, pairs)) for pairs in equal), default=0)
    if shared >= len(text.rstrip()):
        return 0
    return bisect_right(list(accumulate(map(len, pieces))), shared)


def _heaviest(above: "torch.Tensor") -> float:
    """Return the mass of the heaviest passage of earlier turns for one sentence.

    Args:
        above: [tokens of the sentence, bins of the turns] mass that stands out.
    """
    mass = dict(enumerate(above.sum(0).tolist()))
    heaviest = max(mass, key=mass.__getitem__, default=None)
    if heaviest is None or mass[heaviest] <= 0:
        return 0.0
    return sum((mass[number] for number in _grown(heaviest, mass, lambda _: True)), 0.0)


def _around(peak: int, mass: dict[int, float], texts: _BinTexts) -> range:
    """Return a bin with the neighbours in its section that stand out nearly as much."""
    section = texts.section(peak)
    return _grown(peak, mass, lambda number: texts.section(number) == section)


def _grown(peak: int, mass: dict[int, float], may_join: Callable[[int], bool]) -> range:
    """Return a bin with the neighbours that may join it and stand out nearly as much."""

    def belongs(number: int) -> bool:
        return mass.get(number, 0.0) >= _NEARLY_AS_MUCH * mass[peak] and may_join(number)

    start, stop = peak, peak + 1
    while peak - start < _REACH and belongs(start - 1):
        start -= 1
    while stop - 1 - peak < _REACH and belongs(stop):
        stop += 1
    return range(start, stop)
