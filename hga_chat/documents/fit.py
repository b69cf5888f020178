"""Chooses which documents to load when not all of them fit, by rules a person can predict.

Readmes, manifests and entry points are chosen first, then source code by how many files import it,
then other text, examples, tests, what is neither text nor code, and finally data, logs, changelogs
and generated files; within each, the smaller before the larger. A document that does not fit is
left out; a later one may still fit.
"""

import heapq
from functools import cached_property
from pathlib import PurePath

from hga_chat.documents.tree.imports import Imports
from hga_chat.documents.tree.kinds import FOLDERS_OF, Kind, is_code, is_prose
from hga_chat.documents.types import Document

_DATA, _OTHER, _TEST, _EXAMPLE, _TEXT, _CODE, _FIRST = range(7)
_TOO_LARGE = "too large for what is left"
_RANKS = {
    Kind.DATA: (_DATA, "data"),
    Kind.LOG: (_DATA, "a log"),
    Kind.CHANGES: (_DATA, "a changelog"),
    Kind.GENERATED: (_DATA, "generated"),
    Kind.LICENCE: (_OTHER, "a licence"),
    Kind.TRANSLATION: (_OTHER, "a translation"),
    Kind.TEST: (_TEST, "a test"),
    Kind.EXAMPLE: (_EXAMPLE, "an example"),
    Kind.README: (_FIRST, _TOO_LARGE),
    Kind.MANIFEST: (_FIRST, _TOO_LARGE),
    Kind.ENTRY: (_FIRST, _TOO_LARGE),
}
_FIRST_KINDS = frozenset(kind for kind, (rank, _) in _RANKS.items() if rank == _FIRST)
_LEAST_ROOM, _ROOM_SHARE = 8192, 8
_HELD = 16
"""How many budgets' worth of documents is kept to choose from."""
Importance = tuple[int, int]
"""Of a document, the larger the more: the rank of its kind, and how many files import it."""
_Key = tuple[int, int, int]


def room_for_turns(context: int) -> int:
    """Return the tokens that ``--fit`` leaves for questions and answers."""
    return min(_LEAST_ROOM, context // _ROOM_SHARE)


class Fitting:
    """Takes documents one by one and chooses those that fit ``budget`` tokens.

    Once far more than fits has been added, the documents that would be chosen last are dropped,
    so that memory does not grow with the tree. Imports are counted at the end only, so of very
    large trees a file may be dropped before it is known how many import it.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held = 0
        self._imports = Imports()
        self._ranks: dict[int, int] = {}
        self._tokens: dict[int, int] = {}
        self._reasons: dict[int, str] = {}
        self._heap: list[tuple[_Key, Document]] = []  # the top is chosen last
        self._dropped: _Key = (-1, 0, 0)

    def add(self, number: int, document: Document, kind: Kind, tokens: int) -> None:
        """Add a document to choose from.

        Args:
            number: Its position in loading order; ties go to the earlier document.
            document: The document.
            kind: The kind of its file.
            tokens: Its length.
        """
        text = "\n".join(section.text for section in document.sections)
        self._imports.add(number, document.path, text)
        rank, reason = _rank_of(document, kind)
        self._ranks[number], self._tokens[number], self._reasons[number] = rank, tokens, reason
        if tokens > self._budget:
            self._reasons[number] = "longer than the whole token budget"
            return
        key = (rank, -tokens, -number)
        if key < self._dropped:
            return
        heapq.heappush(self._heap, (key, document))
        self._held += tokens
        while self._held > _HELD * self._budget:
            self._dropped, _ = heapq.heappop(self._heap)
            self._held += self._dropped[1]

    @cached_property
    def importance(self) -> dict[int, Importance]:
        """The importance of every document by its number, once all have been added."""
        counts = self._imports.counts()
        return {number: (rank, counts[number]) for number, rank in self._ranks.items()}

    def choose(self) -> tuple[list[Document], dict[int, str]]:
        """Return the chosen documents in order, and the reasons for leaving out others by number.

        Reasons begin with the document that matters most.
        """

        def order(number: int) -> tuple[int, int, int, int]:
            rank, imports = self.importance[number]
            return -rank, -imports if rank == _CODE else 0, self._tokens[number], number

        held = {-key[2]: document for key, document in self._heap}
        room, chosen = self._budget, {}
        for number in sorted(held, key=order):
            if self._tokens[number] <= room:
                room -= self._tokens[number]
                chosen[number] = held[number]
        left_out = sorted((n for n in self._reasons if n not in chosen), key=order)
        return (
            [chosen[number] for number in sorted(chosen)],
            {number: self._reasons[number] for number in left_out},
        )


def _rank_of(document: Document, kind: Kind) -> tuple[int, str]:
    """Return a document's rank, and why it is left out."""
    path = PurePath(document.path)
    if kind in _FIRST_KINDS and FOLDERS_OF[Kind.EXAMPLE].intersection(path.parts[:-1]):
        return _RANKS[Kind.EXAMPLE]
    if kind != Kind.FILE:
        return _RANKS[kind]
    if is_code(path):
        return _CODE, _TOO_LARGE
    if is_prose(path) or document.format not in {"text", "table"}:
        return _TEXT, _TOO_LARGE
    return _OTHER, "neither text nor code"
