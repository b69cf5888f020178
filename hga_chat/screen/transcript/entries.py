"""The entries of the transcript: the card at the top, then turns and notices in order."""

from bisect import bisect_right

from hga_chat.screen.transcript.pieces import Piece
from hga_chat.screen.transcript.turn import Turn


class Entries:
    """Turns and single pieces, and which piece belongs to which turn.

    Attributes:
        turns: all turns, oldest first.
    """

    def __init__(self, card: Piece) -> None:
        self.turns: list[Turn] = []
        self._entries: list[Turn | Piece] = [card]
        self._starts = [0]

    @property
    def notices(self) -> list[str]:
        """The text of each notice."""
        return [entry.source for entry in self._entries[1:] if isinstance(entry, Piece)]

    def replace_card(self, card: Piece) -> None:
        """Show another card."""
        self._entries[0] = card

    def add(self, entry: Turn | Piece) -> None:
        """Append a turn or a notice."""
        self._entries.append(entry)
        if isinstance(entry, Turn):
            self.turns.append(entry)

    def remove(self, turn: Turn) -> None:
        """Remove a turn."""
        self.turns.remove(turn)
        self._entries.remove(turn)

    def clear(self) -> None:
        """Remove all turns and notices."""
        self.turns.clear()
        del self._entries[1:]

    def index(self, turn: Turn) -> int:
        """Return the number of the entry that is this turn."""
        return self._entries.index(turn)

    @property
    def last(self) -> int:
        """Number of the last entry."""
        return len(self._entries) - 1

    def pieces_from(self, entry: int, pieces: int) -> tuple[int, list[Piece]]:
        """Return the pieces of all entries from ``entry`` on, and the index of the first of them.

        Args:
            entry: the first entry that has changed.
            pieces: how many pieces there are so far, where a new entry begins.
        """
        start = self._starts[entry] if entry < len(self._starts) else pieces
        found: list[Piece] = []
        del self._starts[entry:]
        for item in self._entries[entry:]:
            self._starts.append(start + len(found))
            found += [item] if isinstance(item, Piece) else item.pieces
        return start, found

    def turn_at(self, index: int) -> Turn | None:
        """Return the turn that the piece at ``index`` belongs to, if it belongs to one."""
        entry = self._entries[bisect_right(self._starts, index) - 1]
        return entry if isinstance(entry, Turn) else None
