"""Searching the transcript."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hga_chat.screen.transcript.pieces import Piece


@dataclass(frozen=True)
class Match:
    """A place where a text was found: characters of a row of a piece."""

    piece: Piece
    row: int
    start: int
    end: int


def find(text: str, pieces: Sequence[Piece]) -> list[Match]:
    """Return all matches of ``text``; case counts only if it has a capital letter."""
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
