"""From attention mass to what is shown: shares per block and document, and their colours."""

from collections.abc import Sequence
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING

from textual.color import Color, Gradient

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens, Passage

LEVELS = 24
"""Steps of the colour ramp: few enough that neighbouring cells share a style."""


class ReadMap:
    """Where the blocks and documents lie in the session, and how much of each an answer read.

    A block is a chunk of the session that holds document tokens. Groups divide chunks evenly.

    Attributes:
        blocks: how many blocks there are.
        documents: number of the document that each block belongs to.
    """

    def __init__(
        self,
        layout: "DocumentTokens | None",
        document_start: int,
        chunk_size: int,
        group_size: int,
    ) -> None:
        self._layout = layout
        self._start = document_start
        self._chunk = chunk_size
        self._group = group_size
        self._end = document_start + (len(layout.token_ids) if layout else 0)
        self._first = document_start // chunk_size
        self.blocks = -(-self._end // chunk_size) - self._first if layout else 0
        self.documents = self._documents_of_blocks()
        self.mass: list[float] = []

    def _documents_of_blocks(self) -> list[int]:
        """The document that fills most of each block."""
        if self._layout is None:
            return []
        owners = [0] * self.blocks
        most = [0] * self.blocks
        for number, span in enumerate(self._layout.documents):
            start, end = span.start + self._start, span.end + self._start
            for block in range(start // self._chunk, -(-end // self._chunk)):
                low, high = block * self._chunk, (block + 1) * self._chunk
                tokens = min(end, high) - max(start, low)
                if tokens > most[block - self._first]:
                    owners[block - self._first] = number
                    most[block - self._first] = tokens
        return owners

    def clear(self) -> None:
        """Begin a new answer."""
        self.mass = []

    def add(self, mass: Sequence[float]) -> None:
        """Add the attention mass [groups] of further tokens."""
        longer, shorter = (mass, self.mass) if len(mass) > len(self.mass) else (self.mass, mass)
        self.mass = [*map(add, longer, shorter), *longer[len(shorter) :]]

    def block_levels(self, mass: Sequence[float]) -> list[float]:
        """Brightness of each block, 0 to 1; attention is skewed, so the square root is shown."""
        groups = self._chunk // self._group
        begin = self._first * groups
        of_blocks = list(mass[begin : begin + self.blocks * groups])
        of_blocks += [0.0] * (self.blocks * groups - len(of_blocks))
        sums = list(map(sum, zip(*(of_blocks[n::groups] for n in range(groups)), strict=True)))
        most = max(sums, default=0.0)
        return [(value / most) ** 0.5 for value in sums] if most > 0 else [0.0] * self.blocks

    def document_shares(self) -> list[float]:
        """Share of the answer's attention on the documents that each document drew; sums to 1."""
        if self._layout is None:
            return []
        before = [0.0, *accumulate(self.mass)]

        def up_to(position: int) -> float:
            group, rest = divmod(position, self._group)
            if group >= len(self.mass):
                return before[-1]
            return before[group] + self.mass[group] * rest / self._group

        total = up_to(self._end) - up_to(self._start)
        if total <= 0:
            return [0.0] * len(self._layout.documents)
        return [
            (up_to(self._start + span.end) - up_to(self._start + span.start)) / total
            for span in self._layout.documents
        ]

    def passage(self, block: int) -> "Passage | None":
        """Where a block stands; of several files the first."""
        if self._layout is None:
            return None
        start = (self._first + block) * self._chunk - self._start
        found = self._layout.locate(start, start + self._chunk)
        return max(found, key=lambda passage: len(passage.text), default=None)


def ramp(cold: Color, hot: Color, dark: bool) -> list[Color]:
    """Colours of the levels, from what was not read to what is being read now."""
    if dark:
        stops = [cold, Color.parse("#1f6a98"), Color.parse("#2fb3b0"), hot, Color.parse("#fff6d8")]
    else:
        stops = [cold, Color.parse("#b9dcea"), Color.parse("#4fa7b8"), hot, Color.parse("#7a1500")]
    gradient = Gradient(*((index / 4, stop) for index, stop in enumerate(stops)), quality=LEVELS)
    return [gradient.get_color(level / (LEVELS - 1)) for level in range(LEVELS)]


def step(level: float) -> int:
    """The colour ramp's step for a level of 0 to 1; anything read differs from nothing."""
    if level <= 0:
        return 0
    return min(max(round(level * (LEVELS - 1)), 1), LEVELS - 1)


def where(
    path: str, start_line: int | None, end_line: int | None, page: str | None, label: str = ""
) -> str:
    """A place in a document as people write it: ``path:12–40`` or ``path, page 7``."""
    if page is not None:
        return f"{path}, page {page}"
    if start_line is None:
        return f"{path}, {label}" if label and label != path else path
    return f"{path}:{start_line}" + (f"–{end_line}" if end_line != start_line else "")
