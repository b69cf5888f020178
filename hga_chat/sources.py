"""Which passages of the documents an answer read, from the attention mass of its tokens."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

from hga_chat.documents.types import where
from hga_engine.config import RouterConfig

if TYPE_CHECKING:
    import torch

    from hga_chat.documents import DocumentTokens, Passage

GROUP_SIZE = RouterConfig.trace_bin_tokens
"""Tokens of a group as traces tell them; the router may choose smaller ones."""
MAX_SOURCES = 5
LEAST_MASS = 0.0035
"""Mass in the mean of a sentence's tokens: a passage that rises less does not stand out."""
LEAST_SHARE_OF_BEST = 0.1
"""Of the mass of the sentence's best passage."""

_NEARLY_AS_MUCH = 0.3
_REACH = 2
_LEAST_SENTENCE_TOKENS = 6
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+|\n+")


@dataclass(frozen=True)
class Source:
    """A passage an answer read."""

    path: str
    label: str
    start_line: int | None
    end_line: int | None
    page: str | None
    score: float
    """Share of the attention mass that stands out on the documents, 0 to 1; of the whole answer."""
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
        """What is printed and exported of it as JSON."""
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
    """Where an answer is from, as far as its attention tells."""

    sources: tuple[Source, ...] = ()
    """The passages it read most; none if none stands out."""
    from_conversation: bool = False
    """Whether it read earlier turns more than any passage; it then has no sources."""
    standing_out: "torch.Tensor | None" = field(default=None, compare=False)
    """[groups] float64: the mass that stands out, summed over the answer; 0 off the documents."""


@dataclass(frozen=True)
class _Peak:
    """Groups of one section that stand out for one sentence, numbered within the documents."""

    rank: int
    """0 for the heaviest of the sentence."""
    sentence: int
    groups: range
    mass: float


def add_mass(total: "torch.Tensor", mass: "torch.Tensor") -> "torch.Tensor":
    """Sum two [groups] tensors of which the later one may be longer, as a session grows."""
    longer, shorter = (mass, total) if mass.numel() > total.numel() else (total, mass)
    summed = longer.clone()
    summed[: shorter.numel()] += shorter
    return summed


def standing_out(per_token: "Sequence[torch.Tensor]") -> "torch.Tensor":
    """Attention mass above what the answer reads whatever it says.

    Some groups, at the start and the end above all, are read for every token alike. What was read
    for the words of this answer rises above a group's median over its tokens.

    Args:
        per_token: for each token of the answer, [groups] attention mass; later ones may be longer,
            as the session grows.

    Returns:
        [tokens, groups] float32, the mass above the median; all mass of a single token, and where
        every token read the same.
    """
    import torch

    if not per_token:
        return torch.zeros(0, 0)
    stacked = torch.nn.utils.rnn.pad_sequence(list(per_token), batch_first=True)
    above = (stacked - stacked.median(0).values).clamp_min(0)
    return above if bool(above.any()) else stacked


def sentence_numbers(pieces: Sequence[str]) -> list[int]:
    """For each token's text the number of its sentence or line in the answer.

    What is shorter than a few tokens, such as an abbreviation, belongs to what follows.
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
) -> Attribution:
    """Find the passages that an answer read most, at most ``MAX_SOURCES``.

    A passage is a group that stands out for a sentence, with neighbours in its section that do so
    nearly as much. The heaviest passages of all sentences come first, in the order of the
    sentences, then their second ones, and so on.

    Args:
        per_token: for each token of the answer, [groups] attention mass per group of the session,
            that of sinks and recent tokens included.
        pieces: the text of each of these tokens.
        layout: where each document token comes from.
        document_start: position in the session of the first document token.
        turn_start: of the question's first token.
    """
    import torch

    # The first group is a sink whatever is in it; the one with the documents' end holds the
    # beginning of a question as well.
    first = max(document_start // GROUP_SIZE, 1)
    end = (document_start + len(layout.token_ids)) // GROUP_SIZE
    above = standing_out([mass[first:] for mass in per_token]).double()
    in_documents, later = above.tensor_split([max(end - first, 0)], 1)
    of_answer = torch.nn.functional.pad(in_documents.sum(0), (first, 0))
    numbers = sentence_numbers(pieces)
    places = _Places(layout, first * GROUP_SIZE - document_start)
    peaks: list[_Peak] = []
    for sentence, tokens in groupby(range(len(numbers)), numbers.__getitem__):
        peaks += _peaks(sentence, in_documents[list(tokens)], places)
    in_turns = float(later[:, : max(turn_start // GROUP_SIZE - max(end, first), 0)].sum())
    best = sum(peak.mass for peak in peaks if peak.rank == 0)
    # A single token has nothing to stand out from.
    if len(per_token) > 1 and in_turns > max(best, LEAST_MASS * len(per_token)):
        return Attribution(from_conversation=True, standing_out=of_answer)
    peaks.sort(key=lambda peak: (peak.rank, -peak.mass))
    chosen: list[_Peak] = []
    for peak in peaks:
        if all(_are_apart(peak.groups, other.groups) for other in chosen):
            chosen.append(peak)
    chosen = sorted(chosen[:MAX_SOURCES], key=lambda peak: (peak.rank, peak.sentence))
    shares = (of_answer / of_answer.sum().clamp_min(1e-30)).tolist()[first:]
    sources = [
        places.source(peak.groups, sum(shares[peak.groups.start : peak.groups.stop]))
        for peak in chosen
    ]
    return Attribution(tuple(sources), standing_out=of_answer)


def _are_apart(one: range, other: range) -> bool:
    return one.stop <= other.start or other.stop <= one.start


class _Places:
    """What the groups of the documents hold; the first of them begins at token ``offset``."""

    def __init__(self, layout: "DocumentTokens", offset: int) -> None:
        self._layout = layout
        self._offset = offset

    def _tokens(self, groups: range) -> tuple[int, int]:
        start, end = (self._offset + group * GROUP_SIZE for group in (groups.start, groups.stop))
        return max(start, 0), min(end, len(self._layout.token_ids))

    def passage(self, groups: range) -> "Passage":
        """The part that most of these groups' text is in."""
        found = self._layout.locate(*self._tokens(groups))
        return max(found, key=lambda passage: len(passage.text))

    def section(self, group: int) -> tuple[str, str]:
        """Path and label of the section that most of a group is in."""
        passage = self.passage(range(group, group + 1))
        return passage.path, passage.label

    def source(self, groups: range, score: float) -> Source:
        found = self.passage(groups)
        start, end = self._tokens(groups)
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


def _peaks(sentence: int, above: "torch.Tensor", places: _Places) -> Iterator[_Peak]:
    """The passages that stand out for the tokens of one sentence, heaviest groups first.

    Args:
        sentence: its number.
        above: [tokens, groups] mass that stands out.
        places: what the groups hold.
    """
    left = dict(enumerate(above.sum(0).tolist()))
    least = LEAST_MASS * above.shape[0]
    for rank in range(MAX_SOURCES):
        heaviest = max(left, key=left.__getitem__, default=None)
        if heaviest is None or left[heaviest] <= 0:
            return
        groups = _around(heaviest, left, places)
        mass = sum(left.pop(group) for group in groups)
        if mass < least:
            return
        yield _Peak(rank, sentence, groups, mass)
        if rank == 0:
            least = max(least, LEAST_SHARE_OF_BEST * mass)


def _around(peak: int, mass: dict[int, float], places: _Places) -> range:
    """A group with those neighbours in its section that stand out nearly as much."""
    section = places.section(peak)

    def belongs(group: int) -> bool:
        enough = mass.get(group, 0.0) >= _NEARLY_AS_MUCH * mass[peak]
        return enough and places.section(group) == section

    start, stop = peak, peak + 1
    while peak - start < _REACH and belongs(start - 1):
        start -= 1
    while stop - 1 - peak < _REACH and belongs(stop):
        stop += 1
    return range(start, stop)
