"""The selected view of the traces: one answer, one word or layer of it, or all answers."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Literal, Protocol

from hga_chat.screen.drawing.figures import percent
from hga_chat.screen.drawing.legend import Legend
from hga_chat.screen.trace.answer_trace import AnswerTrace
from hga_chat.screen.trace.block_grid import BlockGrid
from hga_chat.sources import Source, add_mass

if TYPE_CHECKING:
    from hga_chat.screen.engine.reports import TraceReport

Mode = Literal["answer", "all", "missed"]
MODES: tuple[Mode, ...] = ("answer", "all", "missed")
TITLES = {"answer": "Blocks read", "all": "Blocks read by all answers", "missed": "Hardly read"}
LEAST_SHARE = 0.05
"""A block is missed if it drew less than this part of an even share."""
TURNS_WITH_TOKENS = 20
"""Latest turns that can be gone through token by token."""


class TracedTurn(Protocol):
    """The part of a turn that a map shows."""

    number: int
    text: str
    sources: tuple[Source, ...]
    trace: AnswerTrace

    def fold(self) -> None:
        """Drop what is only needed for drawing."""


class MapView:
    """All traces, and the selection of what the map shows.

    Attributes:
        grid: where blocks and documents lie.
        mode: what the map shows.
        turn: the selected turn, or None.
        token: the selected token of that turn, or None for the whole answer.
        layer: the selected layer, counted from 0, or None for all; whole answers only.
    """

    def __init__(self, grid: BlockGrid, turns: Callable[[], Sequence[TracedTurn]]) -> None:
        self.grid = grid
        self.mode: Mode = "answer"
        self.turn: TracedTurn | None = None
        self.token: int | None = None
        self.layer: int | None = None
        self._turns = turns

    def restore(self, turn: TracedTurn, sources: tuple[Source, ...]) -> None:
        """Give a saved turn the trace of its sources; the rest of its trace was not saved."""
        turn.trace.restore([(self._bins_of(source), source.score) for source in sources])

    def update(self, turn: TracedTurn, report: "TraceReport") -> None:
        """Show the trace of a turn so far."""
        turn.trace.update(report, [self._bins_of(source) for source in turn.sources])

    def _bins_of(self, source: Source) -> range:
        return self.grid.bins_of(source.start_token, source.end_token)

    def trim(self) -> None:
        """Drop the tokens of old turns, and what is only needed to draw them."""
        for turn in self._turns()[:-TURNS_WITH_TOKENS]:
            if turn is not self.turn and turn.trace.tokens:
                turn.trace.drop_tokens()
                turn.fold()

    @property
    def mass(self) -> Sequence[float]:
        """[bins] mass that is shown."""
        if self.mode != "answer":
            return self._mass_of_all()
        if self.turn is None:
            return []
        trace = self.turn.trace
        if self.token is not None:
            return trace.of_token(self.token)
        return trace.total if self.shown_layer is None else trace.of_layer(self.shown_layer)

    def _mass_of_all(self) -> list[float]:
        """[bins] sum of the shares of all answers."""
        known = [turn.trace.shares for turn in self._turns()]
        shares = [share for share in known if share is not None]
        return reduce(add_mass, shares).tolist() if shares else []

    @property
    def is_whole(self) -> bool:
        """Whether whole answers are shown, rather than a word or a layer of one."""
        return self.mode != "answer" or (self.token is None and self.shown_layer is None)

    @property
    def legend(self) -> Legend:
        """The legend for what the map shows."""
        if self.mode == "missed":
            return "missed"
        return "answer" if self.is_whole else "part"

    def shares(self, spans: Sequence[tuple[int, int]]) -> list[float]:
        """Return the share of what is shown that each span of document tokens drew."""
        whole = None
        if self.mode != "answer":
            whole = float(sum(any(turn.trace.total) for turn in self._turns()))
        elif self.is_whole and self.turn is not None:
            whole = self.turn.trace.whole
        return self.grid.shares(self.mass, spans, whole)

    @property
    def window(self) -> list[bool]:
        """For each block, whether it is in the window, which is attended to whatever is asked."""
        turns = [self.turn] if self.mode == "answer" and self.turn else self._turns()
        known = [turn.trace.window for turn in turns if turn.trace.window]
        flags = [self.grid.window_blocks(bins) for bins in known] or [[False] * self.grid.blocks]
        return [all(of_block) for of_block in zip(*flags, strict=True)]

    @property
    def source_blocks(self) -> set[int]:
        """Blocks that hold sources of whole answers."""
        if self.mode == "missed" or not self.is_whole:
            return set()
        turns = [self.turn] if self.mode == "answer" and self.turn else self._turns()
        found: set[int] = set()
        for source in (source for turn in turns for source in turn.sources):
            first, last = source.start_token, max(source.end_token - 1, source.start_token)
            found.update(range(self.grid.block_of(first), self.grid.block_of(last) + 1))
        return found

    @property
    def shown_layer(self) -> int | None:
        """The layer that is shown, or None for all of them."""
        is_possible = self.mode == "answer" and self.token is None and self.turn is not None
        if self.layer is None or not is_possible or self.layer >= self.num_layers:
            return None
        return self.layer

    @property
    def num_layers(self) -> int:
        """Number of layers whose mass is known for the selected turn."""
        return self.turn.trace.num_layers if self.turn else 0

    def step_layer(self, by: int) -> None:
        """Select another layer; all of them come before the first and after the last."""
        here = 0 if self.shown_layer is None else self.shown_layer + 1
        self.show_layer((here + by) % (self.num_layers + 1))

    def show_layer(self, number: int) -> None:
        """Select a layer of the answer, counted from 1; 0 selects all of them."""
        self.mode, self.token = "answer", None
        self.layer = number - 1 if number else None

    def levels(self) -> list[float]:
        """Return the brightness of each block, 0 to 1."""
        if self.mode != "missed":
            return self.grid.block_levels(self.mass)
        return [float(block) for block in self.missed()]

    def missed(self) -> list[bool]:
        """Return for each block whether no answer attended to it noticeably."""
        sums = [0.0] * self.grid.blocks
        for turn in self._turns():
            of_turn = self.grid.block_sums(turn.trace.routed)
            whole = sum(of_turn) or 1.0
            sums = [total + value / whole for total, value in zip(sums, of_turn, strict=True)]
        least = LEAST_SHARE * sum(sums) / max(len(sums), 1)
        pairs = zip(sums, self.window, strict=True)
        return [value <= least and not in_window for value, in_window in pairs]

    def title(self) -> str:
        """Return the title of the map."""
        if self.mode == "missed":
            missed = self.missed()
            return f"{TITLES['missed']}: {sum(missed) / max(len(missed), 1):.0%}"
        if self.mode == "answer" and self.turn is not None and self.token is not None:
            begin, end = self.turn.trace.span(self.token)
            word = " ".join(self.turn.text[begin:end].split())
            return f"Blocks read for “{word}”" if word else "Blocks read for a space"
        if self.shown_layer is not None:
            return f"Blocks read by layer {self.shown_layer + 1} of {self.num_layers}"
        if self.mode == "answer" and self.turn is not None and self.turn is not self._turns()[-1]:
            return f"Blocks read for answer {self.turn.number}"
        return TITLES[self.mode] if self._turns() else "Blocks"

    def readers(self, start: int, end: int) -> list[tuple[TracedTurn, float]]:
        """Return the answers that attended to tokens ``[start, end)`` of the documents.

        Returns:
            Turns with the share of their mass, largest first; comparable to scores of sources.
        """
        found = []
        for turn in self._turns():
            trace = turn.trace
            (share,) = self.grid.shares(trace.total, [(start, end)], trace.whole)
            if share > LEAST_SHARE * (end - start) / max(self.grid.tokens, 1):
                found.append((turn, share))
        return sorted(found, key=lambda pair: -pair[1])

    def readers_text(self, start: int, end: int) -> str:
        """Return ``readers`` in words."""
        found = self.readers(start, end)
        named = [f"answer {turn.number} ({percent(share)})" for turn, share in found[:6]]
        more = f" and {len(found) - 6} more" if len(found) > 6 else ""
        if named:
            return f"Read by {', '.join(named)}{more}"
        if not self._turns():
            return "No answer yet."
        blocks = range(self.grid.block_of(start), self.grid.block_of(max(end - 1, start)) + 1)
        if all(self.window[block] for block in blocks):
            return "Always read, whatever the question."
        return "No answer used this passage."
