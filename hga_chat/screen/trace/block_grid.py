"""Attention mass per block and document, and its brightness."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens, Passage


class BlockGrid:
    """The blocks and documents of a session.

    A block is a chunk that holds document tokens. A trace bin never crosses the border of a chunk.

    Attributes:
        blocks: number of blocks.
        documents: for each block, the number of the document that fills most of it.
    """

    def __init__(
        self,
        layout: "DocumentTokens | None",
        document_start: int,
        chunk_size: int,
        trace_bin_tokens: int,
    ) -> None:
        self._layout = layout
        self._start = document_start
        self._chunk = chunk_size
        self._bin = trace_bin_tokens
        self._end = document_start + (len(layout.token_ids) if layout else 0)
        self._first = document_start // chunk_size
        self.blocks = -(-self._end // chunk_size) - self._first if layout else 0
        self.documents = self._documents_of_blocks()

    def _documents_of_blocks(self) -> list[int]:
        """Return for each block the document that fills most of it."""
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
        """Number of document tokens."""
        return self._end - self._start

    def block_sums(self, mass: Sequence[float]) -> list[float]:
        """Return the attention mass of each block, given the mass of the session's [bins]."""
        size = self._chunk // self._bin
        begin = self._first * size
        bins = list(mass[begin : begin + self.blocks * size])
        bins += [0.0] * (self.blocks * size - len(bins))
        return list(map(sum, zip(*(bins[n::size] for n in range(size)), strict=True)))

    def block_levels(self, mass: Sequence[float]) -> list[float]:
        """Return the brightness of each block, 0 to 1: the square root, as attention is skewed."""
        sums = self.block_sums(mass)
        most = max(sums, default=0.0)
        return [(value / most) ** 0.5 for value in sums] if most > 0 else [0.0] * self.blocks

    def window_blocks(self, window: bytes) -> list[bool]:
        """Return for each block whether all its bins are in the window, given as [bins] 0 or 1."""
        size = self._chunk // self._bin
        begins = range(self._first * size, (self._first + self.blocks) * size, size)
        return [begin < len(window) and all(window[begin : begin + size]) for begin in begins]

    def bins_of(self, start: int, end: int) -> range:
        """Return the bins that hold tokens ``[start, end)`` of the documents."""
        first = (start + self._start) // self._bin
        return range(first, max(-(-(end + self._start) // self._bin), first + 1))

    def shares(
        self, mass: Sequence[float], spans: Sequence[tuple[int, int]], whole: float | None = None
    ) -> list[float]:
        """Return the share of a mass that each span of document tokens drew.

        Args:
            mass: [bins] over the session.
            spans: first token and one past the last, counted from the first document token.
            whole: the mass that shares refer to; None: the mass on the documents.
        """
        up_to = self._adder(mass)
        whole = whole or up_to(self._end) - up_to(self._start)
        if whole <= 0:
            return [0.0] * len(spans)
        return [
            (up_to(self._start + end) - up_to(self._start + start)) / whole for start, end in spans
        ]

    def _adder(self, mass: Sequence[float]) -> Callable[[int], float]:
        """Return a function that sums the mass before a position of the session."""
        before = [0.0, *accumulate(mass)]

        def up_to(position: int) -> float:
            number, rest = divmod(position, self._bin)
            if number >= len(mass):
                return before[-1]
            return before[number] + mass[number] * rest / self._bin

        return up_to

    def brightness(self, mass: Sequence[float]) -> Callable[[int, int], float]:
        """Return a function from a token range to its brightness, 0 to 1, on the blocks' scale."""
        up_to = self._adder(mass)
        most = max(self.block_sums(mass), default=0.0) / self._chunk

        def level(start: int, end: int) -> float:
            if most <= 0 or end <= start:
                return 0.0
            drawn = up_to(self._start + end) - up_to(self._start + start)
            return min(sqrt(drawn / (end - start) / most), 1.0)

        return level

    def tokens_of(self, block: int) -> tuple[int, int]:
        """Return the document tokens ``[start, end)`` of a block."""
        start = (self._first + block) * self._chunk - self._start
        return max(start, 0), min(start + self._chunk, self.tokens)

    def block_of(self, token: int) -> int:
        """Return the block that holds a document token."""
        return (self._start + token) // self._chunk - self._first

    def passage(self, block: int) -> "Passage | None":
        """Return the passage that holds most of a block's text; None without documents."""
        if self._layout is None:
            return None
        found = self._layout.locate(*self.tokens_of(block))
        return max(found, key=lambda passage: len(passage.text), default=None)
