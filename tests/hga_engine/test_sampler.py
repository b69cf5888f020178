"""Sampled tokens against distributions computed by hand."""

import math
from collections import Counter

import pytest
import torch

from hga_engine.config import SamplingParams
from hga_engine.errors import NotANumberError
from hga_engine.sampler import Sampler

# Logits of the probabilities 0.1, 0.4, 0.2, 0.05, 0.25, up to a constant.
PROBABILITIES = [0.1, 0.4, 0.2, 0.05, 0.25]
LOGITS = torch.tensor([math.log(p) + 3.0 for p in PROBABILITIES])
DRAWS = 4000


def shares(params: SamplingParams, logits: torch.Tensor = LOGITS) -> list[float]:
    sampler = Sampler(params)
    counts = Counter(sampler.sample(logits) for _ in range(DRAWS))
    return [counts[token] / DRAWS for token in range(len(logits))]


def assert_drawn_from(observed: list[float], expected: list[float]) -> None:
    """Nothing outside the support; chi-square below the 99.9 % point of 4 degrees of freedom."""
    assert all(share == 0 for share, p in zip(observed, expected, strict=True) if p == 0)
    chi_square = sum(
        DRAWS * (share - p) ** 2 / p for share, p in zip(observed, expected, strict=True) if p
    )
    assert chi_square < 18.5


def test_greedy_takes_the_largest_and_the_lowest_id_among_equals() -> None:
    greedy = Sampler(SamplingParams(temperature=0))
    assert greedy.sample(LOGITS) == 1
    assert greedy.sample(torch.tensor([1.0, 5.0, 2.0, 5.0, 5.0])) == 1
    many = torch.zeros(50_000)
    many[[777, 30_000, 49_999]] = 2.5
    assert greedy.sample(many) == 777


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (SamplingParams(temperature=1, seed=1), PROBABILITIES),
        # Squares: 0.01, 0.16, 0.04, 0.0025, 0.0625, which add up to 0.275.
        (
            SamplingParams(temperature=0.5, seed=2),
            [0.01 / 0.275, 0.16 / 0.275, 0.04 / 0.275, 0.0025 / 0.275, 0.0625 / 0.275],
        ),
        # The three largest: 0.4, 0.25, 0.2, of 0.85.
        (
            SamplingParams(temperature=1, top_k=3, seed=3),
            [0, 0.4 / 0.85, 0.2 / 0.85, 0, 0.25 / 0.85],
        ),
        # 0.4 + 0.25 = 0.65 is short of 0.7, so the token that crosses it, 0.2, is in.
        (
            SamplingParams(temperature=1, top_p=0.7, seed=4),
            [0, 0.4 / 0.85, 0.2 / 0.85, 0, 0.25 / 0.85],
        ),
        # 0.4 alone passes 0.3.
        (SamplingParams(temperature=1, top_p=0.3, seed=5), [0, 1, 0, 0, 0]),
        # Of the top 3 (0.471, 0.294, 0.235), two reach 0.75; of all five, 0.65 would not.
        (
            SamplingParams(temperature=1, top_k=3, top_p=0.75, seed=6),
            [0, 0.4 / 0.65, 0, 0, 0.25 / 0.65],
        ),
        (SamplingParams(temperature=1, top_k=1, seed=7), [0, 1, 0, 0, 0]),
        (SamplingParams(temperature=1, top_k=99, seed=8), PROBABILITIES),
        (SamplingParams(temperature=1e-9, seed=9), [0, 1, 0, 0, 0]),
    ],
)
def test_draws_follow_the_distribution(params: SamplingParams, expected: list[float]) -> None:
    assert_drawn_from(shares(params), expected)


def test_a_nucleus_larger_than_the_first_candidates() -> None:
    sampler = Sampler(SamplingParams(temperature=1, top_p=0.5, seed=0))
    logits = torch.zeros(4000)
    logits[2000:] = 1e-3  # slightly likelier: the nucleus lies within these 2000
    drawn = [sampler.sample(logits) for _ in range(500)]
    assert min(drawn) >= 2000
    assert len(set(drawn)) > 400  # 500 draws of 2000: 442 different ones are expected


def test_a_seed_gives_the_same_draws() -> None:
    def draws(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=1, seed=seed))
        return [sampler.sample(torch.zeros(1000)) for _ in range(20)]

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)
    assert draws(None) != draws(None)


def test_excluded_tokens_are_never_drawn() -> None:
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 0.0])
    assert_drawn_from(shares(SamplingParams(temperature=1, seed=0), logits), [0, 0.5, 0, 0.5])
    assert_drawn_from(
        shares(SamplingParams(temperature=1, top_k=4, seed=0), logits), [0, 0.5, 0, 0.5]
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "bad", [[1.0, math.nan, 2.0], [math.inf, 0.0, 0.0], [-math.inf, -math.inf, -math.inf]]
)
def test_nan_and_infinite_logits_are_an_error(temperature: float, bad: list[float]) -> None:
    with pytest.raises(NotANumberError):
        Sampler(SamplingParams(temperature=temperature)).sample(torch.tensor(bad))
