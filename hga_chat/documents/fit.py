"""Chooses which documents to load when not all of them fit, by rules a person can predict.

Readmes, manifests and entry points are chosen first, then other files, then examples and
translations, then tests, and finally data, logs, changelogs and generated files; within each, the
smaller before the larger. A document that does not fit is left out; a later one may still fit.
"""

import heapq

from hga_chat.documents.tree.kinds import Kind
from hga_chat.documents.types import Document

_RANKS = (
    {
        Kind.DATA: "data",
        Kind.LOG: "a log",
        Kind.CHANGES: "a changelog",
        Kind.GENERATED: "generated",
    },
    {Kind.TEST: "a test"},
    {Kind.EXAMPLE: "an example", Kind.TRANSLATION: "a translation"},
    {Kind.FILE: "among the largest", Kind.LICENCE: "a licence"},
    dict.fromkeys((Kind.README, Kind.MANIFEST, Kind.ENTRY), ""),
)
_STAYS = len(_RANKS) - 1
_HELD = 16
"""How many budgets' worth of documents is kept to choose from."""
_Key = tuple[int, int, int]


class Fitting:
    """Takes documents one by one and chooses those that fit ``budget`` tokens.

    Once far more than fits has been added, the documents that would be chosen last are dropped,
    so that memory does not grow with the tree.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held = 0
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
        rank = next(place for place, kinds in enumerate(_RANKS) if kind in kinds)
        self._reasons[number] = _RANKS[rank][kind]
        if tokens > self._budget and rank != _STAYS:
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

    def choose(self) -> tuple[list[Document], dict[int, str]]:
        """Return the chosen documents in order, and the reasons for leaving out others by number.

        The reason is empty for a document that must stay but does not fit.
        """
        room, chosen = self._budget, {}
        for (_, negative_tokens, negative_number), document in sorted(self._heap, reverse=True):
            if -negative_tokens <= room:
                room += negative_tokens
                chosen[-negative_number] = document
        left_out = {n: reason for n, reason in self._reasons.items() if n not in chosen}
        return [chosen[number] for number in sorted(chosen)], left_out
