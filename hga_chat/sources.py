"""Which passages of the documents an answer read, from the attention mass of its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from hga_chat.documents import DocumentTokens, Passage

GROUP_SIZE = 16
MAX_SOURCES = 5
HEAVIEST_GROUPS = 24
LEAST_SHARE_OF_BEST = 0.1


@dataclass(frozen=True)
class Source:
    """A passage an answer read."""

    path: str
    label: str
    start_line: int | None
    end_line: int | None
    page: str | None
    score: float
    """Share of the attention mass that stands out on the documents, 0 to 1."""
    text: str
    start_token: int
    """First token, counted from the first token of the documents."""
    end_token: int
    """One past the last token."""

    @property
    def place(self) -> str:
        """Path with lines, page or label: ``app.py:10-24``, ``a.pdf, page iv``, ``b.epub, II``."""
        if self.page is not None:
            return f"{self.path}, page {self.page}"
        if self.start_line is None:
            return f"{self.path}, {self.label}" if self.label else self.path
        lines = f"{self.path}:{self.start_line}"
        return lines if self.end_line == self.start_line else f"{lines}-{self.end_line}"

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


@dataclass
class _Run:
    """Heavy groups close together in one section; token positions within the documents."""

    section: tuple[str, str]
    last_group: int
    start: int
    end: int
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
        per_token: for each token of the answer, [groups] attention mass per group of the session;
            later ones may be longer, as the session grows.

    Returns:
        [groups] float32, the mass above the median summed over tokens; of a single token its mass.
    """
    import torch

    if not per_token:
        return torch.zeros(0)
    stacked = torch.nn.utils.rnn.pad_sequence(list(per_token), batch_first=True)
    if len(per_token) == 1:
        return stacked[0]
    return (stacked - stacked.median(0).values).clamp_min(0).sum(0)


def find_sources(
    group_mass: "torch.Tensor", layout: "DocumentTokens", document_start: int
) -> tuple[Source, ...]:
    """The passages that drew most attention, heaviest first, at most ``MAX_SOURCES``.

    The heaviest groups are taken; those of one section with at most one group between them make
    one passage.

    Args:
        group_mass: [groups] attention mass per group of the session that stands out.
        layout: where each document token comes from.
        document_start: position in the session of the first document token.
    """
    tokens = len(layout.token_ids)
    first_group = document_start // GROUP_SIZE
    mass = group_mass[first_group : -(-(document_start + tokens) // GROUP_SIZE)].double()
    total = float(mass.sum())
    if total <= 0:
        return ()
    heaviest = mass.topk(min(HEAVIEST_GROUPS, mass.numel())).indices.sort().values.tolist()
    runs: list[_Run] = []
    for group in heaviest:
        if mass[group] <= 0:
            continue
        position = (first_group + group) * GROUP_SIZE - document_start
        start, end = max(position, 0), min(position + GROUP_SIZE, tokens)
        passage = max(layout.locate(start, end), key=lambda found: len(found.text))
        section = (passage.path, passage.label)
        last = runs[-1] if runs else None
        if last and last.section == section and group - last.last_group <= 2:
            last.mass += float(mass[last.last_group + 1 : group + 1].sum())
            last.last_group, last.end = group, end
        else:
            runs.append(_Run(section, group, start, end, float(mass[group])))
    runs.sort(key=lambda run: -run.mass)
    return tuple(
        _source(run, layout, run.mass / total)
        for run in runs[:MAX_SOURCES]
        if run.mass >= LEAST_SHARE_OF_BEST * runs[0].mass
    )


def _source(run: _Run, layout: "DocumentTokens", score: float) -> Source:
    found: Passage = next(
        passage
        for passage in layout.locate(run.start, run.end)
        if (passage.path, passage.label) == run.section
    )
    return Source(
        path=found.path,
        label=found.label,
        start_line=found.start_line,
        end_line=found.end_line,
        page=found.page,
        score=score,
        text=found.text,
        start_token=run.start,
        end_token=run.end,
    )
