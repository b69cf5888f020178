"""Keys of models with a large bias are stored without it, and attention stays the same."""

import math

import torch

from hga_engine.model.decoder import Rotation
from hga_kernels import Angles, HeadWeights, reference

DIM, KV_HEADS, HEADS = 32, 2, 4


def heads_of(tokens):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(tokens, (HEADS + 2 * KV_HEADS) * DIM, generator=generator)


def attention(split):
    queries, keys, values = (part.double() for part in split)
    keys = keys.repeat_interleave(HEADS // KV_HEADS, 1)
    values = values.repeat_interleave(HEADS // KV_HEADS, 1)
    scores = torch.einsum("qhd,khd->hqk", queries, keys) / math.sqrt(DIM)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)


def test_a_shift_of_all_keys_changes_no_attention_but_its_rounding():
    turns = 1e6 ** -(torch.arange(0, DIM, 2, dtype=torch.float64) / DIM)
    tokens, rotation = 200, Rotation(turns, 1.0, torch.float64, torch.device("cpu"))
    bias = torch.zeros(HEADS + 2 * KV_HEADS, DIM)
    bias[HEADS : HEADS + KV_HEADS, [DIM // 2 - 1, DIM - 1]] = 150.0  # slow dimensions, as in Qwen2
    bias[:HEADS, [DIM // 2 - 1]] = 1.0
    angles = Angles(*rotation.angles(0, tokens))
    shift = rotation.mean(bias[HEADS : HEADS + KV_HEADS], 4096)

    def run(dtype, key_shift):
        weights = HeadWeights(None, None, 1e-6, bias.flatten(), key_shift)
        split = reference.split_heads(heads_of(tokens), weights, angles, HEADS, KV_HEADS)
        return attention(tuple(part.to(dtype) for part in split))

    exact = run(torch.float64, None)
    torch.testing.assert_close(run(torch.float64, shift), exact, rtol=1e-4, atol=1e-4)
    error, plain_error = ((run(torch.bfloat16, used) - exact).norm() for used in (shift, None))
    assert error < plain_error / 3
