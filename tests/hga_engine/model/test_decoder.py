import math

import pytest
import torch

from hga_engine.model.decoder import Decoder, Rotation
from hga_engine.model.files import ModelFiles
from hga_engine.model.load import load_model
from hga_kernels.reference.model import rotate
from tests.hga_engine.model.conftest import KINDS


@pytest.fixture
def loaded(reference_model, tmp_path):
    """A random transformers model, and ours loaded from the checkpoint it wrote."""

    def make(kind, dtype=torch.float32, **changes):
        model = reference_model(kind, **changes)
        model.save_pretrained(tmp_path)
        return model, load_model(ModelFiles(kind, tmp_path, None), dtype)

    return make


def prompt(tokens):
    return torch.randint(0, 101, (tokens,), generator=torch.Generator().manual_seed(tokens))


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind, loaded, dense_logits, difference):
    model, weights = loaded(kind)
    for tokens in (1, 7, 131):
        with torch.no_grad():
            expected = model(prompt(tokens)[None]).logits[0]
        logits = dense_logits(weights, prompt(tokens))
        assert logits.dtype == torch.float32
        assert difference(logits, expected) < 1e-4


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_float64_weights_give_float64_logits(kind, loaded, dense_logits, difference):
    model, weights = loaded(kind, torch.float64)
    with torch.no_grad():
        expected = model.double()(prompt(33)[None]).logits[0]
    logits = dense_logits(weights, prompt(33))
    assert logits.dtype == torch.float64
    assert difference(logits, expected) < 1e-6


@pytest.mark.parametrize("kind", ["llama", "qwen3", "qwen3_moe"])
def test_bfloat16_weights_come_close_to_float32(kind, loaded, dense_logits, difference):
    # All experts for every token, so that rounding cannot change which are chosen.
    all_experts = {"num_experts_per_tok": 8} if kind == "qwen3_moe" else {}
    model, weights = loaded(kind, torch.bfloat16, **all_experts)
    with torch.no_grad():
        expected = model(prompt(33)[None]).logits[0]
    logits = dense_logits(weights, prompt(33))
    assert logits.dtype == torch.float32
    assert difference(logits, expected) < 0.06


def test_a_token_projects_the_same_alone_and_among_others(loaded):
    _, weights = loaded("qwen3")
    decoder = Decoder(weights)
    hidden = decoder.embed(prompt(50))
    whole = decoder.project(1, hidden, 300)
    alone = decoder.project(1, hidden[17:18], 317)
    for among, single in zip(whole, alone, strict=True):
        torch.testing.assert_close(among[17:18], single)


def plain_rotation(head_dim: int, base: float, dtype: torch.dtype) -> Rotation:
    frequencies = base ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    return Rotation(frequencies, 1.0, dtype, torch.device("cpu"))


def turn(rotation: Rotation, heads: torch.Tensor, positions: list[int]) -> torch.Tensor:
    cos, sin = (
        torch.cat(rows)
        for rows in zip(*(rotation.angles(p, p + 1) for p in positions), strict=True)
    )
    return rotate(heads, cos, sin, heads.shape[1])


def test_rotation_multiplies_complex_numbers():
    heads = torch.randn(3, 2, 8, dtype=torch.float64)
    positions = [60_001, 0, 5]
    turned = turn(plain_rotation(8, 1e6, torch.float64), heads, positions)
    angles = torch.tensor(positions)[:, None, None] * torch.tensor(
        [1.0, 1e6**-0.25, 1e6**-0.5, 1e6**-0.75]
    )
    numbers = torch.complex(heads[..., :4], heads[..., 4:])
    expected = numbers * torch.polar(torch.ones_like(angles.double()), angles.double())
    torch.testing.assert_close(turned[..., :4], expected.real, atol=1e-2, rtol=0)
    torch.testing.assert_close(turned[1], heads[1], atol=0, rtol=0)
    torch.testing.assert_close(turned[2, :, 4:], expected.imag[2])


def test_rotation_far_out_is_exact_to_float32():
    rotation = plain_rotation(64, 1_749_695.854, torch.float32)
    near = turn(rotation, torch.ones(1, 1, 64), [3])
    far = turn(rotation, torch.ones(1, 1, 64), [65_535])[0, 0]
    again = turn(rotation, torch.ones(1, 1, 64), [3])
    torch.testing.assert_close(near, again, atol=0, rtol=0)
    for pair in (0, 13, 31):
        angle = 65_535 * 1_749_695.854 ** (-pair / 32)
        assert far[pair].item() == pytest.approx(math.cos(angle) - math.sin(angle), abs=1e-6)
        assert far[pair + 32].item() == pytest.approx(math.cos(angle) + math.sin(angle), abs=1e-6)


@pytest.mark.parametrize("positions", [1, 2, 4097])
def test_a_mean_over_positions_is_that_of_every_position(positions):
    frequencies = 1e6 ** -(torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    rotation = Rotation(frequencies, 1.25, torch.float64, torch.device("cpu"))
    heads = torch.randn(3, 8, dtype=torch.float64)
    turned = turn(rotation, heads.expand(positions, 3, 8), list(range(positions)))
    torch.testing.assert_close(rotation.mean(heads, positions), turned.mean(0))
