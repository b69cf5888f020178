"""How much of dense attention's mass the chosen groups hold.

Sampled groups hold less of it than the top-k would, and stand for the rest.
"""

import torch


class Coverage:
    """Compares selections with dense attention of the same queries, for a sample of positions.

    Attributes:
        stride: every ``stride``-th position is sampled, with the block it is in.
        routed: [layers, kv_heads] float64: the mass outside the window that the chosen groups
            hold; summed over query rows and query heads.
        selectable: all mass outside the window, summed likewise.
        attended: the mass that window and chosen groups hold together, summed likewise.
        total: all mass, summed likewise.
    """

    def __init__(self, layers: int, kv_heads: int, stride: int) -> None:
        self.stride = stride
        shape = (layers, kv_heads)
        self.routed = torch.zeros(shape, dtype=torch.float64)
        self.selectable = torch.zeros(shape, dtype=torch.float64)
        self.attended = torch.zeros(shape, dtype=torch.float64)
        self.total = torch.zeros(shape, dtype=torch.float64)

    def sampled(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the numbers of the blocks [blocks, rows] that hold a sampled position."""
        hit = (positions % self.stride == self.stride - 1).any(1)
        return hit.nonzero()[:, 0]

    def add(
        self, layer: int, mass: torch.Tensor, window: torch.Tensor, selected: torch.Tensor
    ) -> None:
        """Count one layer's blocks.

        Args:
            layer: layer number.
            mass: [blocks, kv_heads, groups] of dense attention, for every group of the session.
            window: [blocks, kv_heads, n] groups of the window, -1 for none.
            selected: [blocks, kv_heads, n] the chosen groups, -1 for none.
        """
        mass = mass.double()
        total = mass.sum((0, 2))
        windows, chosen = (
            mass.gather(2, groups.clamp_min(0).long()).masked_fill(groups < 0, 0).sum((0, 2))
            for groups in (window, selected)
        )
        self.total[layer] += total.cpu()
        self.selectable[layer] += (total - windows).cpu()
        self.routed[layer] += chosen.cpu()
        self.attended[layer] += (windows + chosen).cpu()
