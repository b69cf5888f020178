"""Which reading the map and the documents show: of an answer, of a word, of all answers."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from hga_chat.screen.drawing.bars import percent
from hga_chat.screen.drawing.legend import Legend
from hga_chat.screen.trace.answer_trace import added
from hga_chat.screen.trace.block_grid import ReadMap
from hga_chat.screen.transcript.turn import Turn

if TYPE_CHECKING:
    import torch

    from hga_chat.sources import Source

Mode = Literal["answer", "all", "unread"]
MODES: tuple[Mode, ...] = ("answer", "all", "unread")
TITLES = {"answer": "Blocks read", "all": "Blocks read by all answers", "unread": "Hardly read"}
LEAST_SHARE = 0.05
"""A block is hardly read where it drew less than this part of an even share."""
KEPT_TURNS = 20
"""Turns whose tokens can be gone through one by one."""


class ReadView:
    """What was read, and what of it is shown.

    Attributes:
        map: where blocks and documents lie.
        mode: what the map shows.
        turn: the turn whose reading is shown, or None.
        token: of that turn, or None for the whole answer.
        layer: of the model, counted from 0, or None for all of them; of whole answers only.
    """

    def __init__(self, read_map: ReadMap, turns: Callable[[], Sequence[Turn]]) -> None:
        self.map = read_map
        self.mode: Mode = "answer"
        self.turn: Turn | None = None
        self.token: int | None = None
        self.layer: int | None = None
        self._turns = turns

    def add_sources(self, turn: Turn, sources: "tuple[Source, ...]") -> None:
        """Let a turn that was saved show its passages, as its reading was not kept."""
        total: list[float] = []
        for source in sources:
            mass = self.map.mass_of(source.start_token, source.end_token, source.score)
            total = added(total, mass)
        turn.reading.restore(total)

    def complete(self, turn: Turn, standing_out: "torch.Tensor") -> None:
        """Let a turn show what stands out of its whole answer, [groups]."""
        spans = [(source.start_token, source.end_token) for source in turn.sources]
        turn.reading.complete(standing_out, [self.map.groups_of(*span) for span in spans])

    def trim(self) -> None:
        """Give up the tokens of old turns, and what is only needed to draw them."""
        for turn in self._turns()[:-KEPT_TURNS]:
            if turn is not self.turn and turn.reading.tokens:
                turn.reading.keep_sum()
                turn.fold()

    @property
    def mass(self) -> Sequence[float]:
        """[groups] what is shown."""
        if self.mode != "answer":
            return self._together()
        if self.turn is None:
            return []
        reading = self.turn.reading
        if self.token is not None:
            return reading.of_token(self.token)
        return reading.total if self.shown_layer is None else reading.of_layer(self.shown_layer)

    @property
    def is_whole(self) -> bool:
        """Whether whole answers are shown, rather than a word or a layer of one."""
        return self.mode != "answer" or (self.token is None and self.shown_layer is None)

    @property
    def legend(self) -> Legend:
        """Which signs the map then has."""
        if self.mode == "unread":
            return "unread"
        return "answer" if self.is_whole else "part"

    def document_shares(self) -> list[float]:
        """Share of what is shown that each document drew."""
        whole = None
        if self.mode != "answer":
            whole = float(sum(any(turn.reading.total) for turn in self._turns()))
        elif self.is_whole and self.turn is not None:
            whole = self.turn.reading.whole
        return self.map.document_shares(self.mass, whole)

    @property
    def always(self) -> list[bool]:
        """For each block, whether it is read whatever is asked."""
        turns = [self.turn] if self.mode == "answer" and self.turn else self._turns()
        known = [turn.reading.always for turn in turns if turn.reading.always]
        flags = [self.map.always(groups) for groups in known] or [[False] * self.map.blocks]
        return [all(of_block) for of_block in zip(*flags, strict=True)]

    @property
    def source_blocks(self) -> set[int]:
        """Blocks that sources stand in, of whole answers."""
        if self.mode == "unread" or not self.is_whole:
            return set()
        turns = [self.turn] if self.mode == "answer" and self.turn else self._turns()
        found: set[int] = set()
        for source in (source for turn in turns for source in turn.sources):
            first, last = source.start_token, max(source.end_token - 1, source.start_token)
            found.update(range(self.map.block_of(first), self.map.block_of(last) + 1))
        return found

    @property
    def shown_layer(self) -> int | None:
        """The layer whose reading is shown, or None."""
        is_told = self.mode == "answer" and self.token is None and self.turn is not None
        if self.layer is None or not is_told or self.layer >= self.num_layers:
            return None
        return self.layer

    @property
    def num_layers(self) -> int:
        """Layers that the turn's reading is known of."""
        return self.turn.reading.num_layers if self.turn else 0

    def step_layer(self, by: int) -> None:
        """Show another layer; before the first and after the last all of them together."""
        here = 0 if self.shown_layer is None else self.shown_layer + 1
        self.show_layer((here + by) % (self.num_layers + 1))

    def show_layer(self, number: int) -> None:
        """Show one layer of the answer, counted from 1; 0: all of them."""
        self.mode, self.token = "answer", None
        self.layer = number - 1 if number else None

    def _together(self) -> list[float]:
        """[groups] what all answers read, of each the share."""
        total: list[float] = []
        for turn in self._turns():
            mass = turn.reading.total
            whole = turn.reading.whole or sum(mass)
            if whole > 0:
                total = added(total, [value / whole for value in mass])
        return total

    def levels(self) -> list[float]:
        """Brightness of each block, 0 to 1."""
        if self.mode != "unread":
            return self.map.block_levels(self.mass)
        return [float(block) for block in self.unread()]

    def unread(self) -> list[bool]:
        """For each block, whether no answer has read it to speak of."""
        sums = [0.0] * self.map.blocks
        for turn in self._turns():
            of_turn = self.map.block_sums(turn.reading.all_mass)
            whole = sum(of_turn) or 1.0
            sums = [total + value / whole for total, value in zip(sums, of_turn, strict=True)]
        least = LEAST_SHARE * sum(sums) / max(len(sums), 1)
        pairs = zip(sums, self.always, strict=True)
        return [value <= least and not always for value, always in pairs]

    def title(self) -> str:
        """What the map shows, in words."""
        if self.mode == "unread":
            unread = self.unread()
            return f"{TITLES['unread']}: {sum(unread) / max(len(unread), 1):.0%}"
        if self.mode == "answer" and self.turn is not None and self.token is not None:
            begin, end = self.turn.reading.span(self.token)
            word = " ".join(self.turn.text[begin:end].split())
            return f"Read for “{word}”" if word else "Read for a space"
        if self.shown_layer is not None:
            return f"All that layer {self.shown_layer + 1} of {self.num_layers} read"
        if self.mode == "answer" and self.turn is not None and self.turn is not self._turns()[-1]:
            return f"Blocks read for answer {self.turn.number}"
        return TITLES[self.mode] if self._turns() else "Blocks"

    def readers(self, start: int, end: int) -> list[tuple[Turn, float]]:
        """Answers that read tokens ``[start, end)`` of the documents, those that did most first.

        Returns:
            Each with the share of its reading in the documents, as sources have.
        """
        found = []
        for turn in self._turns():
            reading = turn.reading
            (share,) = self.map.shares(reading.total, [(start, end)], reading.whole)
            if share > LEAST_SHARE * (end - start) / max(self.map.tokens, 1):
                found.append((turn, share))
        return sorted(found, key=lambda pair: -pair[1])

    def told(self, start: int, end: int) -> str:
        """Which answers read tokens ``[start, end)`` of the documents, in words."""
        found = self.readers(start, end)
        named = [f"answer {turn.number} ({percent(share)})" for turn, share in found[:6]]
        more = f" and {len(found) - 6} more" if len(found) > 6 else ""
        if named:
            return f"Read by {', '.join(named)}{more}"
        if not self._turns():
            return "No answer yet."
        blocks = range(self.map.block_of(start), self.map.block_of(max(end - 1, start)) + 1)
        if all(self.always[block] for block in blocks):
            return "Always read, whatever is asked."
        return "Hardly read by any answer."
