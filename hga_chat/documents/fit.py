"""Choosing which documents to read when not all of them fit, by rules a person can foresee.

Readmes, manifests and entry points are taken first, then other files, then examples and
translations, then tests, and at last data, logs, change logs and generated files; of each of these
the smaller before the larger. What no longer fits is left out, whatever comes after it.
"""

import heapq

from hga_chat.documents.tree.kinds import Kind
from hga_chat.documents.types import Document

_RANKS = (
    {
        Kind.DATA: "data",
        Kind.LOG: "a log",
        Kind.CHANGES: "a change log",
        Kind.GENERATED: "generated",
    },
    {Kind.TEST: "a test"},
    {Kind.EXAMPLE: "an example", Kind.TRANSLATION: "a translation"},
    {Kind.FILE: "among the largest", Kind.LICENCE: "a licence"},
    dict.fromkeys((Kind.README, Kind.MANIFEST, Kind.ENTRY), ""),
)
_STAYS = len(_RANKS) - 1
_HELD = 16
"""How many times the budget is held to choose from."""
_Key = tuple[int, int, int]


class Fitting:
    """Documents that come one by one, of which those are chosen that fit ``budget`` tokens.

    The last in the order of choice are let go of as soon as there is far more than fits, so that
    memory does not grow with the tree.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held = 0
        self._reasons: dict[int, str] = {}
        self._heap: list[tuple[_Key, Document]] = []  # the last in the order of choice on top
        self._let_go: _Key = (-1, 0, 0)

    def add(self, number: int, document: Document, kind: Kind, tokens: int) -> None:
        """Take a document into account.

        Args:
            number: Its place in reading order; of two alike, the earlier one is chosen.
            document: The document.
            kind: What it is to the reader.
            tokens: How long it is.
        """
        rank = next(place for place, kinds in enumerate(_RANKS) if kind in kinds)
        self._reasons[number] = _RANKS[rank][kind]
        if tokens > self._budget and rank != _STAYS:
            self._reasons[number] = "longer than all there is room for"
            return
        key = (rank, -tokens, -number)
        if key < self._let_go:
            return
        heapq.heappush(self._heap, (key, document))
        self._held += tokens
        while self._held > _HELD * self._budget:
            self._let_go, _ = heapq.heappop(self._heap)
            self._held += self._let_go[1]

    def choose(self) -> tuple[list[Document], dict[int, str]]:
        """Return what to read, in reading order, and by their numbers why others are left out.

        The reason is empty where a document that has to stay does not fit.
        """
        room, chosen = self._budget, {}
        for (_, negative_tokens, negative_number), document in sorted(self._heap, reverse=True):
            if -negative_tokens <= room:
                room += negative_tokens
                chosen[-negative_number] = document
        left_out = {n: reason for n, reason in self._reasons.items() if n not in chosen}
        return [chosen[number] for number in sorted(chosen)], left_out
