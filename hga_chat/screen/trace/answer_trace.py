"""The trace of an answer as the screen keeps it."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from hga_chat.screen.engine.reports import TraceReport


class AnswerTrace:
    """Attention mass per trace bin of the session: of the whole answer, each token and each layer.

    Mass counts as far as it stands out, which ``hga_chat.sources`` defines. The window draws
    attention whatever is asked; its bins count only where they hold a source.

    Attributes:
        whole: the mass that shares refer to, or None if nothing stands out yet.
        window: [bins] 1 for each bin of the window.
    """

    def __init__(self) -> None:
        self.whole: float | None = None
        self.window = b""
        self._ends: list[int] = []
        self._report: TraceReport | None = None
        self._total: torch.Tensor | None = None
        self._routed: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens whose characters are known."""
        return len(self._ends)

    @property
    def total(self) -> list[float]:
        """[bins] mass that stands out, summed over the answer."""
        return [] if self._total is None else self._total.tolist()

    @property
    def shares(self) -> "torch.Tensor | None":
        """[bins] shares of the mass that stands out; None if nothing does."""
        if self._total is None or not self.whole:
            return None
        return self._total / self.whole

    @property
    def routed(self) -> list[float]:
        """[bins] all mass of routed groups, summed over the answer."""
        return [] if self._routed is None else self._routed.tolist()

    def extend(self, lengths: Sequence[int]) -> None:
        """Add tokens, given the number of characters that each adds to the answer."""
        begin = self._ends[-1] if self._ends else 0
        self._ends += [begin + end for end in accumulate(lengths)]

    def update(self, report: "TraceReport", sources: Sequence[range] = ()) -> None:
        """Replace the figures.

        Args:
            report: the answer so far.
            sources: the bins of each source.
        """
        import torch

        found = report.standing_out
        self._report, self._routed, self.window = report, report.routed, report.window
        self.whole = float(found.sum()) or None
        left_out = torch.zeros(len(found), dtype=torch.bool)
        known = min(len(self.window), len(found))
        left_out[:known] = torch.tensor(list(self.window[:known]), dtype=torch.bool)
        for bins in sources:
            left_out[bins.start : bins.stop] = False
        self._total = found.masked_fill(left_out, 0.0)

    def restore(self, sources: Sequence[tuple[range, float]]) -> None:
        """Spread the shares of saved sources over their bins; nothing else of a trace is saved."""
        import torch

        mass = torch.zeros(max((bins.stop for bins, _ in sources), default=0))
        for bins, share in sources:
            mass[bins.start : bins.stop] += share / len(bins)
        self._total = self._routed = mass
        self.whole = 1.0

    def token_at(self, offset: int) -> int | None:
        """Return the token that wrote the character at ``offset`` of the answer."""
        token = bisect_right(self._ends, offset)
        return token if token < len(self._ends) else None

    def span(self, token: int) -> tuple[int, int]:
        """Return the range of characters that a token wrote."""
        return (self._ends[token - 1] if token else 0), self._ends[token]

    def of_token(self, token: int) -> list[float]:
        """Return [bins] the mass of one token in the bins where it stands out most."""
        report = self._report
        if report is None or token >= len(report.token_bins):
            return []
        mass = [0.0] * len(report.standing_out)
        bins, masses = report.token_bins[token].tolist(), report.token_mass[token].tolist()
        for number, value in zip(bins, masses, strict=True):
            mass[number] = value
        return mass

    @property
    def num_layers(self) -> int:
        """Number of layers whose mass is known."""
        return 0 if self._report is None else self._report.layers.shape[0]

    def of_layer(self, layer: int) -> list[float]:
        """Return [bins] all mass of one layer, summed over the answer."""
        assert self._report is not None
        mass: list[float] = self._report.layers[layer].tolist()
        return mass

    def drop_tokens(self) -> None:
        """Forget tokens and layers; keep the sums, to two digits."""
        if self._total is not None and self._routed is not None:
            self._total, self._routed = self._total.bfloat16(), self._routed.bfloat16()
        self._report = None
        self._ends = []
