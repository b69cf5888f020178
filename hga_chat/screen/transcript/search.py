"""Finding text in the transcript."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hga_chat.screen.transcript.pieces import Piece


@dataclass(frozen=True)
class Match:
    """Where a text was found: a piece, one of its rows, and characters of the row."""

    piece: Piece
    row: int
    start: int
    end: int


def find(text: str, pieces: Sequence[Piece]) -> list[Match]:
    """All places of ``text``; case counts only if there is a capital letter in it."""
    return list(_find(text, pieces)) if text else []


def _find(text: str, pieces: Sequence[Piece]) -> Iterator[Match]:
    folds = text == text.lower()
    for piece in pieces:
        for number, row in enumerate(piece.rows):
            plain = row.plain.lower() if folds else row.plain
            at = plain.find(text)
            while at >= 0:
                yield Match(piece, number, at, at + len(text))
                at = plain.find(text, at + len(text))
