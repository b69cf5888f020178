"""Layers and sampling by hand; what the CPU composes against the plain definitions."""

import math

import pytest
import torch

import hga_kernels
from hga_kernels import Angles, HeadWeights, reference
from hga_kernels.cpu import layers
from hga_kernels.weights import BlockScaled


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_the_residual_is_added() -> None:
    inputs, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    residual = torch.tensor([[10.0, 20.0]])
    assert reference.linear(inputs, weight, residual=residual).tolist() == [[11.0, 23.0]]


def test_block_scaled_weights_are_multiplied_out() -> None:
    values = torch.full((2, 129), 2.0).to(torch.float8_e4m3fn)
    weight = BlockScaled(values, torch.tensor([[0.5, 8.0]]))
    # 128 ones and a sixteen in each row.
    assert reference.linear(torch.ones(1, 129), weight).tolist() == [[144.0, 144.0]]


@pytest.mark.parametrize("experts", [reference.experts, layers.experts])
def test_experts_by_hand(experts) -> None:
    """Two experts, one a row: expert 0 doubles what the gate lets through, expert 1 is zero."""
    # Mean square 1: the norm changes nothing.
    hidden = torch.tensor([[1.4, 0.2], [-1.4, 0.2]])
    gate = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    gate_up = torch.zeros(2, 2, 2)
    gate_up[0] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    down = torch.full((2, 2, 1), 2.0)
    out = 2.0 * 0.2 * 1.4 / (1 + math.exp(-1.4))
    mixed = experts(hidden, torch.ones(2), 0.0, gate, gate_up, down, 1, True)
    torch.testing.assert_close(mixed, hidden + torch.tensor([[out], [0.0]]))
    share = 1 / (1 + math.exp(-2.8))
    mixed = experts(hidden, torch.ones(2), 0.0, gate, gate_up, down, 1, False)
    torch.testing.assert_close(mixed, hidden + torch.tensor([[out * share], [0.0]]))


@pytest.mark.parametrize("normalize", [False, True])
def test_experts_on_the_cpu_are_the_definition(normalize: bool) -> None:
    hidden, norm, gate = random(9, 24), random(24, seed=1), random(6, 24, seed=2)
    gate_up, down = random(6, 10, 24, seed=3), random(6, 24, 5, seed=4)
    arguments = (hidden, norm, 1e-5, gate, gate_up, down, 3, normalize)
    torch.testing.assert_close(layers.experts(*arguments), reference.experts(*arguments))


def test_mlp_adds_to_its_input() -> None:
    hidden, norm = random(3, 8), random(8, seed=1)
    gate_up, down = random(10, 8, seed=2), random(8, 5, seed=3)
    normed = hidden / (hidden.square().mean(1, keepdim=True) + 0.1).sqrt() * norm
    gate, up = normed @ gate_up[:5].T, normed @ gate_up[5:].T
    # float32 is the least precision of the gate, float64 that of these inputs.
    expected = hidden + (gate * gate.sigmoid() * up) @ down.T
    torch.testing.assert_close(reference.mlp(hidden, norm, 0.1, gate_up, down), expected)
    torch.testing.assert_close(layers.mlp(hidden, norm, 0.1, gate_up, down), expected)


def test_heads_are_normalised_then_turned() -> None:
    heads, angles = random(2, 4 * 4), random(2, 2, seed=1)
    q_norm, k_norm = random(4, seed=2), random(4, seed=3)
    weights, turned = HeadWeights(q_norm, k_norm, 0.5), Angles(angles.cos(), angles.sin())
    queries, keys, values = reference.split_heads(heads, weights, turned, 2, 1)
    each = heads.view(2, 4, 4)
    for row in range(2):
        for head, found, norm in ((0, queries, q_norm), (1, queries, q_norm), (2, keys, k_norm)):
            own = each[row, head] / (each[row, head].square().mean() + 0.5).sqrt() * norm
            rotated = torch.complex(own[:2], own[2:]) * torch.polar(
                torch.ones(2).double(), angles[row]
            )
            torch.testing.assert_close(
                found[row, head if found is queries else 0], torch.cat((rotated.real, rotated.imag))
            )
    assert torch.equal(values[:, 0], each[:, 3])


def test_quantized_rows_use_the_whole_range() -> None:
    inputs = random(3, 200).float() * 7
    inputs[1, :128] = 0
    values, scales = reference.quantize(inputs)
    assert values.shape == (3, 200)
    assert scales.shape == (3, 2)
    for part, columns in enumerate((slice(0, 128), slice(128, 200))):
        largest = inputs[:, columns].abs().amax(1)
        torch.testing.assert_close(
            values[:, columns].float().abs().amax(1) * scales[:, part], largest
        )
        back = values[:, columns].float() * scales[:, part, None]
        # Three bits after the leading one: half a step is a sixteenth.
        near = largest[:, None] * 2**-6
        assert ((back - inputs[:, columns]).abs() <= inputs[:, columns].abs() / 16 + near / 8).all()


# Sampling


def settings(temperature: float, top_p: float = 1.0) -> torch.Tensor:
    return torch.tensor([temperature, top_p])


def number(value: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor([value], dtype=dtype)


@pytest.mark.parametrize(
    ("top_p", "top_k", "allowed"),
    [
        (1.0, 0, [0, 1, 2, 3]),
        (0.75, 0, [0, 2]),
        (0.76, 0, [0, 2, 3]),
        (0.2, 0, [2]),
        (1.0, 2, [0, 2]),
        (0.6, 2, [2]),
        (1.0, 9, [0, 1, 2, 3]),
    ],
)
def test_the_nucleus_by_hand(top_p: float, top_k: int, allowed: list[int]) -> None:
    shares = torch.tensor([[0.25, 0.1, 0.5, 0.15]])
    found = reference.nucleus(shares.log() * 2, settings(2.0, top_p), number(top_k))
    assert found[0].nonzero().flatten().tolist() == allowed


def test_the_lowest_of_the_likeliest_is_taken() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0, -math.inf]])
    assert hga_kernels.sample(logits, settings(0), number(0), number(1), number(2)).tolist() == [1]


@pytest.mark.parametrize("wrong", [[0.0, math.nan], [-math.inf, -math.inf], [0.0, math.inf]])
def test_logits_that_are_no_numbers_show(wrong: list[float]) -> None:
    for temperature in (0.0, 1.0):
        arguments = (settings(temperature), number(0), number(1), number(2))
        assert reference.sample(torch.tensor([wrong]), *arguments).tolist() == [-1]


def test_draws_follow_the_weights_and_the_seed() -> None:
    logits = torch.tensor([[0.5, 0.1, 0.3, 0.1]]).log()
    arguments = (settings(1.0, 0.7), number(0))
    drawn = [
        int(reference.sample(logits, *arguments, number(7), number(step))) for step in range(800)
    ]
    again = [
        int(reference.sample(logits, *arguments, number(7), number(step))) for step in range(20)
    ]
    assert drawn[:20] == again
    counts = torch.tensor([drawn.count(token) for token in range(4)])
    assert counts[[1, 3]].tolist() == [0, 0]
    # Five standard deviations of a binomial of 800 draws at 5/8.
    assert abs(int(counts[0]) - 500) < 5 * math.sqrt(800 * 5 / 8 * 3 / 8)
