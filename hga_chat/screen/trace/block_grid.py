"""From attention mass to what is shown: shares per block and document, and their colours."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens, Passage


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

    @property
    def tokens(self) -> int:
        """Tokens of the documents."""
        return self._end - self._start

    def block_sums(self, mass: Sequence[float]) -> list[float]:
        """Attention mass of each block, from the mass [groups] of the session."""
        groups = self._chunk // self._group
        begin = self._first * groups
        of_blocks = list(mass[begin : begin + self.blocks * groups])
        of_blocks += [0.0] * (self.blocks * groups - len(of_blocks))
        return list(map(sum, zip(*(of_blocks[n::groups] for n in range(groups)), strict=True)))

    def block_levels(self, mass: Sequence[float]) -> list[float]:
        """Brightness of each block, 0 to 1; attention is skewed, so the square root is shown."""
        sums = self.block_sums(mass)
        most = max(sums, default=0.0)
        return [(value / most) ** 0.5 for value in sums] if most > 0 else [0.0] * self.blocks

    def always(self, groups: bytes) -> list[bool]:
        """For each block, whether all its [groups] are 1, which stands for those always read."""
        size = self._chunk // self._group
        begins = range(self._first * size, (self._first + self.blocks) * size, size)
        return [begin < len(groups) and all(groups[begin : begin + size]) for begin in begins]

    def groups_of(self, start: int, end: int) -> range:
        """The groups of the session that hold tokens ``[start, end)`` of the documents."""
        first = (start + self._start) // self._group
        return range(first, max(-(-(end + self._start) // self._group), first + 1))

    def mass_of(self, start: int, end: int, value: float) -> list[float]:
        """[groups] a mass spread evenly over tokens ``[start, end)`` of the documents."""
        groups = self.groups_of(start, end)
        return [0.0] * groups.start + [value / len(groups)] * len(groups)

    def shares(
        self, mass: Sequence[float], spans: Sequence[tuple[int, int]], whole: float | None = None
    ) -> list[float]:
        """Shares of a mass [groups] that tokens ``[start, end)`` of the documents drew.

        Args:
            mass: of the session.
            spans: first token and one past the last, counted from the documents' first.
            whole: what shares are of; None: the mass on the documents.
        """
        up_to = self._adder(mass)
        whole = whole or up_to(self._end) - up_to(self._start)
        if whole <= 0:
            return [0.0] * len(spans)
        return [
            (up_to(self._start + end) - up_to(self._start + start)) / whole for start, end in spans
        ]

    def document_shares(self, mass: Sequence[float], whole: float | None = None) -> list[float]:
        """Share of a mass [groups] that each document drew; of what, see ``shares``."""
        documents = self._layout.documents if self._layout else ()
        return self.shares(mass, [(span.start, span.end) for span in documents], whole)

    def _adder(self, mass: Sequence[float]) -> Callable[[int], float]:
        """A function that adds up the mass before a position of the session."""
        before = [0.0, *accumulate(mass)]

        def up_to(position: int) -> float:
            group, rest = divmod(position, self._group)
            if group >= len(mass):
                return before[-1]
            return before[group] + mass[group] * rest / self._group

        return up_to

    def brightness(self, mass: Sequence[float]) -> Callable[[int, int], float]:
        """A function that tells how bright tokens from and to are, 0 to 1, as blocks are."""
        up_to = self._adder(mass)
        most = max(self.block_sums(mass), default=0.0) / self._chunk

        def level(start: int, end: int) -> float:
            if most <= 0 or end <= start:
                return 0.0
            drawn = up_to(self._start + end) - up_to(self._start + start)
            return min(sqrt(drawn / (end - start) / most), 1.0)

        return level

    def tokens_of(self, block: int) -> tuple[int, int]:
        """The document tokens ``[start, end)`` of a block."""
        start = (self._first + block) * self._chunk - self._start
        return max(start, 0), min(start + self._chunk, self.tokens)

    def block_of(self, token: int) -> int:
        """The block that holds a token of the documents."""
        return (self._start + token) // self._chunk - self._first

    def passage(self, block: int) -> "Passage | None":
        """Where a block stands; of several files the first."""
        if self._layout is None:
            return None
        found = self._layout.locate(*self.tokens_of(block))
        return max(found, key=lambda passage: len(passage.text), default=None)
