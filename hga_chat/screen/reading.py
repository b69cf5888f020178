"""What the tokens of an answer read, small enough to keep."""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

KEPT_GROUPS = 24
"""Groups kept of each token: those it read most."""


class AnswerReading:
    """Attention mass per group of the session: of the whole answer, of each token and layer.

    Attributes:
        total: [groups] mass summed over the answer.
        layers: [layers, groups] the same of each layer, or None where it is not known.
        tokens: how many tokens are known one by one.
    """

    def __init__(self) -> None:
        self.total: Sequence[float] = []
        self.layers: torch.Tensor | None = None
        self._ends: list[int] = []
        self._groups = array("i")
        self._masses = array("f")

    @property
    def tokens(self) -> int:
        """How many tokens are known one by one."""
        return len(self._ends)

    def add(self, lengths: Sequence[int], masses: "Sequence[torch.Tensor]") -> list[float]:
        """Take further tokens.

        Args:
            lengths: characters that each adds to the answer as it is shown.
            masses: for each, [groups] attention mass; later ones may be longer.

        Returns:
            [groups] the mass of these tokens together.
        """
        import torch

        padded = torch.nn.utils.rnn.pad_sequence(list(masses), batch_first=True)
        kept = min(KEPT_GROUPS, padded.shape[1])
        values, groups = padded.topk(kept, dim=1)
        if kept < KEPT_GROUPS:
            missing = (0, KEPT_GROUPS - kept)
            values = torch.nn.functional.pad(values, missing)
            groups = torch.nn.functional.pad(groups, missing)
        self._groups.extend(groups.flatten().tolist())
        self._masses.extend(values.flatten().tolist())
        begin = self._ends[-1] if self._ends else 0
        self._ends += [begin + end for end in accumulate(lengths)]
        newest: list[float] = padded.sum(0).tolist()
        self.total = added(self.total, newest)
        return newest

    def token_at(self, offset: int) -> int | None:
        """The token that wrote the character at ``offset`` of the answer."""
        token = bisect_right(self._ends, offset)
        return token if token < len(self._ends) else None

    def span(self, token: int) -> tuple[int, int]:
        """The characters of the answer that a token wrote."""
        return (self._ends[token - 1] if token else 0), self._ends[token]

    def of_token(self, token: int) -> list[float]:
        """[groups] what one token read, as far as it is kept."""
        mass = [0.0] * len(self.total)
        at = token * KEPT_GROUPS
        groups, masses = self._groups[at : at + KEPT_GROUPS], self._masses[at : at + KEPT_GROUPS]
        for group, value in zip(groups, masses, strict=True):
            mass[group] += value
        return mass

    @property
    def num_layers(self) -> int:
        """How many layers are known one by one."""
        return 0 if self.layers is None else self.layers.shape[0]

    def of_layer(self, layer: int) -> list[float]:
        """[groups] what one layer read."""
        assert self.layers is not None
        mass: list[float] = self.layers[layer].tolist()
        return mass

    def keep_sum(self) -> None:
        """Keep the sum alone."""
        self.layers = None
        self.total = array("d", self.total)
        self._ends, self._groups, self._masses = [], array("i"), array("f")


def added(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Sum two masses of which one may be longer."""
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    return [*map(add, longer, shorter), *longer[len(shorter) :]]


def written_at(source: str, shown: str) -> list[int]:
    """Where in Markdown each character of its rendered text was written.

    Rendering leaves signs out and keeps the order of the others, so each is looked for behind the
    one before it.

    Returns:
        An offset into ``source`` for every character of ``shown``.
    """
    offsets = []
    at = 0
    for sign in shown:
        found = source.find(sign, at)
        if found < 0 or found - at > 400:
            found = min(at, max(len(source) - 1, 0))
        else:
            at = found + 1
        offsets.append(found)
    return offsets
