"""How much of dense attention's mass the chosen groups hold.

Drawn groups hold less of it than the heaviest would, and stand for the rest.
"""

import torch


class Coverage:
    """Compares selections with dense attention of the same queries, for a sample of positions.

    Attributes:
        stride: of every so many positions the last is sampled, with the block it is in.
        routed: [layers, kv_heads] float64: of the mass between sinks and recent tokens, what the
            chosen groups hold; summed over query rows and query heads.
        selectable: likewise all of that mass.
        attended: likewise what sinks, recent tokens and chosen groups hold together.
        total: likewise all mass.
    """

    def __init__(self, layers: int, kv_heads: int, stride: int) -> None:
        self.stride = stride
        shape = (layers, kv_heads)
        self.routed = torch.zeros(shape, dtype=torch.float64)
        self.selectable = torch.zeros(shape, dtype=torch.float64)
        self.attended = torch.zeros(shape, dtype=torch.float64)
        self.total = torch.zeros(shape, dtype=torch.float64)

    def sampled(self, positions: torch.Tensor) -> torch.Tensor:
        """Which of the blocks [blocks, rows] hold a sampled position: their numbers."""
        hit = (positions % self.stride == self.stride - 1).any(1)
        return hit.nonzero()[:, 0]

    def add(
        self, layer: int, mass: torch.Tensor, always: torch.Tensor, selected: torch.Tensor
    ) -> None:
        """Count one layer's blocks.

        Args:
            layer: layer number.
            mass: [blocks, kv_heads, groups] of dense attention, for every group of the session.
            always: [blocks, kv_heads, n] groups of sinks and recent tokens, -1 for none.
            selected: [blocks, kv_heads, n] the chosen groups, -1 for none.
        """
        mass = mass.double()
        total = mass.sum((0, 2))
        windows, chosen = (
            mass.gather(2, groups.clamp_min(0).long()).masked_fill(groups < 0, 0).sum((0, 2))
            for groups in (always, selected)
        )
        self.total[layer] += total.cpu()
        self.selectable[layer] += (total - windows).cpu()
        self.routed[layer] += chosen.cpu()
        self.attended[layer] += (windows + chosen).cpu()
