"""Sampling: the tokens that can be drawn, how often, and the greedy choice."""

import math
from collections.abc import Callable

import pytest
import torch

from hga_kernels import reference

pytestmark = pytest.mark.usefixtures("poisoned")

Draw = Callable[..., int]


@pytest.fixture
def draw(device: torch.device) -> Draw:
    def run(
        logits: torch.Tensor,
        temperature: float,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 7,
        step: int = 3,
    ) -> int:
        from hga_kernels.gpu.sampling import sample

        token = sample(
            logits.to(device),
            torch.tensor([temperature, top_p], device=device),
            torch.tensor([top_k], dtype=torch.int32, device=device),
            torch.tensor([seed], device=device),
            torch.tensor([step], device=device),
        )
        assert token is not None
        assert token.dtype == torch.int64
        assert token.shape == (1,)
        return int(token)

    return run


def random(vocab: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, vocab, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("vocab", [5, 2048, 5000])
def test_greedy_takes_the_first_of_the_largest(vocab: int, draw: Draw) -> None:
    logits = random(vocab, seed=vocab)
    assert draw(logits, 0.0) == int(logits.argmax())
    logits[0, [vocab // 2, vocab - 1]] = logits.max() + 1
    assert draw(logits, 0.0, 0.5, 3) == vocab // 2


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_show(wrong: float, temperature: float, draw: Draw) -> None:
    logits = random(3000)
    logits[0, 2500] = wrong
    if wrong == -math.inf:
        logits[:] = wrong
    assert draw(logits, temperature, 0.9) == -1


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, 7), (0.7, 0.6, 0), (1.5, 0.5, 20), (0.3, 0.9, 5), (1.0, 1e-6, 0), (2.0, 0.9, 9000)],
)
def test_kept_tokens_are_those_of_the_definition(
    temperature: float, top_p: float, top_k: int, device: torch.device
) -> None:
    from hga_kernels.gpu import sampling

    logits = random(3000, seed=top_k)
    settings = torch.tensor([temperature, top_p])
    limit, number = torch.tensor([top_k], dtype=torch.int32), torch.tensor([1])
    arguments = (logits, settings, limit, number, number)
    token, deepest = sampling.draw(*(argument.to(device) for argument in arguments))
    depths = (logits.max() - logits) / temperature
    kept = (depths * 2**19).int() <= int(deepest)
    assert torch.equal(kept, reference.nucleus(logits, settings, limit))
    assert kept[0, int(token)]


def test_draws_follow_the_weights(draw: Draw, device: torch.device) -> None:
    shares = torch.tensor([0.4, 0.25, 0.2, 0.15])
    # The interpreter takes its time.
    draws = 80 if device.type == "cpu" else 4000
    # Spread over two blocks of tokens.
    logits = torch.full((1, 2100), -math.inf)
    places = [5, 900, 2050, 2099]
    logits[0, places] = shares.log() * 1.3
    drawn = [draw(logits, 1.3, step=step) for step in range(draws)]
    counts = torch.tensor([drawn.count(place) for place in places])
    assert counts.sum() == draws
    chi_square = ((counts - draws * shares) ** 2 / (draws * shares)).sum()
    # A fair draw is above 16.3 once in a thousand times (3 degrees of freedom); steps are fixed.
    assert chi_square < 16.3


def test_draws_depend_on_seed_and_step_alone(draw: Draw) -> None:
    logits = random(500) / 3
    first = [draw(logits, 1.0, step=step) for step in range(8)]
    assert first == [draw(logits, 1.0, step=step) for step in range(8)]
    assert len(set(first)) > 5
    assert first != [draw(logits, 1.0, seed=8, step=step) for step in range(8)]
    far = [draw(logits, 1.0, step=step + 2**31) for step in range(8)]
    assert first != far
