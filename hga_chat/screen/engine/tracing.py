"""Recording what the tokens of an answer attend to, summed up for the screen."""

import time
from typing import TYPE_CHECKING

from hga_chat.screen.engine.reports import TraceReport
from hga_chat.sources import add_mass, standing_out_in

if TYPE_CHECKING:
    import torch

    from hga_engine.events import Trace

INTERVAL_S = 0.25
"""Time between two reports while an answer is generated."""
SHARE_OF_TIME = 0.05
"""Largest share of the time that reports may take; they take longer as the answer grows."""
TOP_BINS = 24
"""Bins reported for each token: those in which its mass stands out most."""


class TraceRecorder:
    """Traces of one answer.

    The report is made by the thread that owns the engine, between two tokens: elsewhere torch
    would compete with the engine for the same cores.
    """

    def __init__(self, bins: range) -> None:
        """Begin an answer about documents that lie in these bins of the session."""
        import torch

        self._bins = bins
        self._masses: list[torch.Tensor] = []
        self._routed = torch.zeros(0)
        self._window: torch.Tensor | None = None
        self._reported = 0
        self._due = 0.0

    def add(self, trace: "Trace") -> None:
        """Take the trace of the next token."""
        self._masses.append(trace.all_mass)
        self._routed = add_mass(self._routed, trace.bin_mass)
        self._window = trace.window_mass

    @property
    def tokens(self) -> int:
        """Number of tokens so far."""
        return len(self._masses)

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next report."""
        return len(self._masses) > self._reported and time.perf_counter() >= self._due

    def report(self, layers: "torch.Tensor") -> TraceReport:
        """Sum up the answer so far.

        Args:
            layers: [layers, bins] attention mass of each layer, summed over the answer.
        """
        import torch

        began = time.perf_counter()
        above, _ = standing_out_in(self._bins, self._masses)
        before = (self._bins.start, 0)
        top = above.topk(min(TOP_BINS, above.shape[1]), dim=1)
        window = self._window
        if window is None:
            window = torch.zeros(0)
        found = TraceReport(
            standing_out=torch.nn.functional.pad(above.sum(0), before),
            newest=torch.nn.functional.pad(above[self._reported :].sum(0), before),
            token_bins=(top.indices + self._bins.start).int(),
            token_mass=top.values.float(),
            routed=self._routed,
            window=bytes((window > 0).tolist()),
            layers=layers,
        )
        self._reported = len(self._masses)
        ended = time.perf_counter()
        self._due = ended + max(INTERVAL_S, (ended - began) / SHARE_OF_TIME)
        return found
