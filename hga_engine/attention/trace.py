"""What queries attended to: counts for measurements, traces for people."""

import torch

from hga_engine.attention.coverage import Coverage


class AttentionTotals:
    """Adds up what queries attended to, over layers.

    ``group_mass`` [groups] float64: attention mass per group, summed over layers and query heads. A
    group that was drawn to stand for others has its own mass only, so all together may be below 1
    a query.
    ``attended`` and ``visible``: tokens, summed over queries, KV heads and layers.
    ``coverage``: where selections are compared with dense attention, or None.
    ``layer_mass`` [layers, groups] float32: where given, the part of it that was chosen is added to
    it, layer by layer.
    ``shares`` [tokens] float64: of what each position could see, what it attended to, summed over
    layers and KV heads; counted for as many positions as it was made for.
    """

    def __init__(
        self,
        groups: int,
        coverage: Coverage | None = None,
        tokens: int = 0,
        layer_mass: torch.Tensor | None = None,
    ) -> None:
        self.coverage = coverage
        self.layer_mass = layer_mass
        self.shares = torch.zeros(tokens, dtype=torch.float64)
        self.group_mass = torch.zeros(groups, dtype=torch.float64)
        self.attended = 0
        self.visible = 0

    @property
    def sparsity(self) -> float:
        """Share of the visible tokens that was attended to."""
        return self.attended / self.visible if self.visible else 1.0
