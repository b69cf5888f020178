"""Rows and their experts: who goes where, and in which tile."""

import math

import pytest
import torch

from hga_kernels import reference
from tests.support.linear_cases import EPS, error, random

pytestmark = pytest.mark.usefixtures("poisoned", "few_programs")


def logits_of(rows: int, experts: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, experts, generator=generator) * 2


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("rows", "experts", "chosen", "block"), [(1, 5, 2, 16), (50, 8, 3, 16), (9, 40, 4, 32)]
)
def test_every_assignment_is_in_a_tile_of_its_expert(
    rows: int, experts: int, chosen: int, block: int, normalize: bool, device: torch.device
) -> None:
    from hga_kernels.gpu.linear.assign import assign

    logits = logits_of(rows, experts)
    # One expert that nobody wants.
    logits[:, 1] = -math.inf
    assigned, shares = assign(logits.to(device), chosen, normalize, block)
    weights, ids = logits.softmax(1).sort(1, descending=True)
    weights, ids = weights[:, :chosen], ids[:, :chosen].flatten()
    expected = weights / weights.sum(1, keepdim=True) if normalize else weights
    torch.testing.assert_close(shares.cpu(), expected)
    order, seen = assigned.order.cpu(), []
    for expert, first, end in assigned.tiles.cpu().tolist():
        if expert >= 0:
            tile = order[first : min(first + block, end)]
            assert len(tile) > 0
            assert (ids[tile] == expert).all()
            seen += tile.tolist()
    assert sorted(seen) == list(range(rows * chosen))


@pytest.mark.parametrize(
    ("rows", "size", "experts", "chosen"), [(1, 96, 5, 2), (4, 160, 40, 4), (3, 2304, 6, 1)]
)
def test_gate_of_a_few_rows(
    rows: int, size: int, experts: int, chosen: int, device: torch.device
) -> None:
    from hga_kernels.gpu.linear.expert_gemv import gate

    inputs, norm, weight = random(rows, size), random(size, seed=1), random(experts, size, seed=2)
    normed = reference.rms_norm(inputs, norm, EPS)
    expected, ids = (normed.double() @ weight.double().T).softmax(1).topk(chosen)
    arguments = inputs.to(device), norm.to(device), EPS, weight.to(device), chosen, False
    # Twice: what counts the programs is left as it was found.
    for route in (gate(*arguments), gate(*arguments)):
        assert error(route.normed, normed) < 2e-4
        assert torch.equal(route.experts.cpu().long(), ids)
        torch.testing.assert_close(route.shares.cpu().double(), expected, rtol=5e-2, atol=1e-4)
