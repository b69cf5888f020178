"""Which reading the map and the documents show: of an answer, of a word, of all answers."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from hga_chat.screen.heat import ReadMap
from hga_chat.screen.reading import added
from hga_chat.screen.turn import Turn

if TYPE_CHECKING:
    from hga_chat.sources import Source

Mode = Literal["answer", "all", "unread"]
MODES: tuple[Mode, ...] = ("answer", "all", "unread")
TITLES = {"answer": "Blocks read", "all": "Read by all answers", "unread": "Hardly read"}
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
        self._gone: list[float] = []

    def add_sources(self, turn: Turn, sources: "tuple[Source, ...]") -> None:
        """Let a turn that was saved show its passages, as its reading was not kept."""
        for source in sources:
            turn.reading.total = added(
                turn.reading.total,
                self.map.mass_of(source.start_token, source.end_token, source.score),
            )

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
            return self.all_mass()
        if self.turn is None:
            return []
        reading = self.turn.reading
        if self.token is not None:
            return reading.of_token(self.token)
        return reading.total if self.shown_layer is None else reading.of_layer(self.shown_layer)

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

    def all_mass(self) -> list[float]:
        """[groups] what all answers read, each as much as the others."""
        total: list[float] = []
        for turn in self._turns():
            whole = sum(turn.reading.total)
            if whole > 0:
                total = added(total, [value / whole for value in turn.reading.total])
        return total

    def levels(self) -> list[float]:
        """Brightness of each block, 0 to 1."""
        if self.mode != "unread":
            return self.map.block_levels(self.mass)
        return [float(block) for block in self.unread()]

    def unread(self) -> list[bool]:
        """For each block, whether no answer has read it to speak of."""
        sums = self.map.block_sums(self.all_mass())
        least = LEAST_SHARE * sum(sums) / max(len(sums), 1)
        return [value <= least for value in sums]

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
            return f"Read by layer {self.shown_layer + 1} of {self.num_layers}"
        if self.mode == "answer" and self.turn is not None and self.turn is not self._turns()[-1]:
            return f"Blocks read for answer {self.turn.number}"
        return TITLES[self.mode]

    def readers(self, start: int, end: int) -> list[tuple[Turn, float]]:
        """Answers that read tokens ``[start, end)`` of the documents, those that did most first.

        Returns:
            Each with the share of its reading in the documents.
        """
        found = []
        for turn in self._turns():
            share = self.map.share(turn.reading.total, start, end)
            if share > LEAST_SHARE * (end - start) / max(self.map.tokens, 1):
                found.append((turn, share))
        return sorted(found, key=lambda pair: -pair[1])
