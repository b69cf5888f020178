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
"""Groups kept of each token: those it read most beyond what every token reads."""
ALIKE = 1e-4
"""Of their mass: tokens that differ by less read the same."""

SERIAL = 16_384
"""Numbers that torch computes with on the thread that asks; with more it waits for others."""


class AnswerReading:
    """Attention mass per group of the session: of the whole answer, of each token and layer.

    Some groups, those before the question above all, are read for every token alike. What a token
    read is therefore counted above the mean of the tokens so far, and once the answer is complete
    as its sources are.

    Attributes:
        layers: [layers, groups] all mass of each layer, or None where it is not known.
        tokens: how many tokens are known one by one.
        whole: the mass of which shares are told, or None: what the documents drew so far.
        always: [groups] 1 for a group that is read for every token, whatever is asked.
    """

    def __init__(self) -> None:
        self.layers: torch.Tensor | None = None
        self.whole: float | None = None
        self.always = b""
        self._all: torch.Tensor | None = None
        self._above: torch.Tensor | None = None
        self._ends: list[int] = []
        self._groups = array("i")
        self._masses = array("f")

    @property
    def tokens(self) -> int:
        """How many tokens are known one by one."""
        return len(self._ends)

    @property
    def all_mass(self) -> list[float]:
        """[groups] all mass of the groups that were chosen, summed over the answer."""
        return [] if self._all is None else self._all.tolist()

    @property
    def total(self) -> list[float]:
        """[groups] mass above what every token reads, summed over the answer."""
        return [] if self._above is None else self._above.tolist()

    def add(
        self,
        lengths: Sequence[int],
        masses: "Sequence[torch.Tensor]",
        always: "torch.Tensor | None" = None,
    ) -> list[float]:
        """Take further tokens.

        Args:
            lengths: characters that each adds to the answer as it is shown.
            masses: for each, [groups] attention mass; later ones may be longer.
            always: [groups] mass of what the last of them would have read in any case.

        Returns:
            [groups] what these tokens read together, above what every token reads.
        """
        step = max(SERIAL // len(masses[-1]), 1)
        newest = None
        for first in range(0, len(masses), step):
            newest = _added(newest, self._add(masses[first : first + step]))
            begin = self._ends[-1] if self._ends else 0
            ends = accumulate(lengths[first : first + step])
            self._ends += [begin + end for end in ends]
        if always is not None:
            self.always = bytes((always > 0).tolist())
        return [] if newest is None else newest.tolist()

    def _add(self, masses: "Sequence[torch.Tensor]") -> "torch.Tensor":
        """Take further tokens; [groups] what they read together above what every token reads."""
        import torch

        padded = torch.nn.utils.rnn.pad_sequence(list(masses), batch_first=True)
        self._all = _added(self._all, padded.sum(0))
        mean = self._all[: padded.shape[1]] / (self.tokens + len(masses))
        above = (padded - mean).clamp_min(0)
        if float(above.sum()) <= ALIKE * float(padded.sum()):
            above = padded
        kept = min(KEPT_GROUPS, padded.shape[1])
        values, groups = above.topk(kept, dim=1)
        if kept < KEPT_GROUPS:
            missing = (0, KEPT_GROUPS - kept)
            values = torch.nn.functional.pad(values, missing)
            groups = torch.nn.functional.pad(groups, missing)
        self._groups.extend(groups.flatten().tolist())
        self._masses.extend(values.flatten().tolist())
        newest = above.sum(0)
        self._above = _added(self._above, newest)
        return newest

    def complete(self, standing_out: "torch.Tensor", sources: Sequence[range]) -> None:
        """Take what stands out of the whole answer in place of what was found on the way.

        Args:
            standing_out: [groups] mass.
            sources: groups of each source; of what is always read they alone are counted.
        """
        import torch

        self.whole = float(standing_out.sum()) or None
        left_out = torch.zeros(len(standing_out), dtype=torch.bool)
        known = min(len(self.always), len(standing_out))
        left_out[:known] = torch.tensor(list(self.always[:known]), dtype=torch.bool)
        for groups in sources:
            left_out[groups.start : groups.stop] = False
        self._above = standing_out.masked_fill(left_out, 0.0)

    def restore(self, mass: Sequence[float]) -> None:
        """Take the shares of the sources alone, where no more of the reading was saved.

        Args:
            mass: [groups] share that each drew.
        """
        import torch

        self._all = self._above = torch.tensor(mass)
        self.whole = 1.0

    def token_at(self, offset: int) -> int | None:
        """The token that wrote the character at ``offset`` of the answer."""
        token = bisect_right(self._ends, offset)
        return token if token < len(self._ends) else None

    def span(self, token: int) -> tuple[int, int]:
        """The characters of the answer that a token wrote."""
        return (self._ends[token - 1] if token else 0), self._ends[token]

    def of_token(self, token: int) -> list[float]:
        """[groups] what one token read above what every token reads, as far as it is kept."""
        assert self._all is not None
        mass = [0.0] * len(self._all)
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
        """[groups] all that one layer read."""
        assert self.layers is not None
        mass: list[float] = self.layers[layer].tolist()
        return mass

    def keep_sum(self) -> None:
        """Keep the sums alone, to two digits."""
        if self._all is not None and self._above is not None:
            self._all, self._above = self._all.bfloat16(), self._above.bfloat16()
        self.layers = None
        self._ends, self._groups, self._masses = [], array("i"), array("f")


def _added(total: "torch.Tensor | None", more: "torch.Tensor") -> "torch.Tensor":
    """Sum two masses of which the later one may be longer."""
    import torch

    if total is None:
        return more
    return torch.nn.functional.pad(total, (0, len(more) - len(total))) + more


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
