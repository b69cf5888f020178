"""Index entries against the paper's rule read plainly, and whatever the slicing."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hga_engine.attention import index as index_module
from hga_engine.attention.index import RoutingIndex, middle_rotations
from hga_engine.config import RopeScaling
from hga_kernels.reference.index import decode_tokens, encode_tokens
from tests.support.plain_routing import SMALL, Layer, Text, geometry, plain_summary, with_router

slices = st.lists(st.integers(1, 99), max_size=6)


def entries(index: RoutingIndex, chunks: int) -> list[torch.Tensor]:
    arrays = (index.summaries, index.codes, index.scales, index.group_summaries)
    return [array[0][:, :chunks] for array in arrays if array]


def turns(head_dim: int, rope_base: float) -> torch.Tensor:
    return rope_base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


@pytest.mark.parametrize("size", [4, 16, 64])
@pytest.mark.parametrize("rope_base", [100.0, 10_000.0, 1.75e6])
@pytest.mark.parametrize("start", [0, 12, 40_000])
def test_turns_to_the_middle_give_the_papers_summary(
    size: int, rope_base: float, start: int
) -> None:
    generator = torch.Generator().manual_seed(size)
    keys = torch.randn(size, 32, generator=generator, dtype=torch.float64)
    cos, sin = middle_rotations(size, turns(32, rope_base), torch.float64)
    assert cos.shape == sin.shape == (size, 16)
    first, second = keys.chunk(2, -1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), 1)
    torch.testing.assert_close(turned.mean(0), plain_summary(keys, start, rope_base))


def test_pairs_are_fast_above_half_a_radian() -> None:
    # Base 4096 and dim 8 give theta = 1, 1/8, 1/64 and 1/512.
    _, sin = middle_rotations(33, turns(8, 4096.0), torch.float64)
    # 32 steps turn by 32, 4, 0.5 and 1/16 rad: the third is not above half a radian.
    assert [bool(pair.any()) for pair in sin.T] == [False, False, True, True]
    assert float(sin[0, 2]) == pytest.approx(math.sin(16 / 64))
    assert float(sin[32, 2]) == pytest.approx(-math.sin(16 / 64))
    assert not bool(sin[16].any())
    _, sin = middle_rotations(34, turns(8, 4096.0), torch.float64)
    assert [bool(pair.any()) for pair in sin.T] == [False, False, False, True]


def test_an_index_turns_as_its_model_does() -> None:
    model = replace(geometry(1, 1, 32), rope_scaling=RopeScaling("linear", 4.0, 512))
    index = RoutingIndex(model, SMALL, 64, torch.float64, torch.device("cpu"))
    plain = turns(32, model.rope_base)
    expected = middle_rotations(SMALL.chunk_size, plain / 4, torch.float64)
    for found, rotation in zip(index.middle_rotations, expected, strict=True):
        torch.testing.assert_close(found, rotation)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 100), slices, st.integers(1, 3), st.integers(0, 99))
def test_entries_of_hga_are_their_definition(
    tokens: int, ends: list[int], kv_heads: int, seed: int
) -> None:
    text = Text.random(tokens, kv_heads, 1, seed)
    layer = Layer(text)
    for end in sorted({e for e in ends if e < tokens} | {tokens}):
        layer.add(end)
        # After every slice all closed chunks are there, as they will stay.
        for chunk in range(end // SMALL.chunk_size):
            span = slice(chunk * SMALL.chunk_size, (chunk + 1) * SMALL.chunk_size)
            for head in range(kv_heads):
                keys = text.keys[span, head]
                summary = plain_summary(keys, span.start)
                found = layer.index.summaries[0][head, chunk]
                torch.testing.assert_close(found, summary)
                codes, scales = encode_tokens(keys[None], found[None, None])
                assert torch.equal(layer.index.codes[0][head, chunk], codes[0, 0])
                assert torch.equal(layer.index.scales[0][head, chunk], scales[0, 0])


def test_codes_packed_for_a_gpu_hold_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = Text.random(40, 2, 1)
    slabs = Layer(text)
    monkeypatch.setattr(index_module, "packing_for", lambda device: "tokens")
    tokens = Layer(text)
    for layer in (slabs, tokens):
        layer.add(23)
        layer.add(40)
    decoded = []
    for layer in (slabs, tokens):
        _, codes, scales = entries(layer.index, 5)
        decoded.append(decode_tokens(codes, scales))
    assert tokens.index.codes[0].shape[2:] == (8, 4)
    assert torch.equal(*decoded)
    assert tokens.index.bytes() == slabs.index.bytes()
    stacked = tokens.index.stacked
    arrays = stacked.summaries, stacked.codes, stacked.scales
    for whole, own in zip(arrays, entries(tokens.index, 5), strict=True):
        assert torch.equal(whole[0, :, :5], own)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 100), slices, st.integers(1, 3), st.integers(0, 99))
def test_entries_of_paper_are_their_definition(
    tokens: int, ends: list[int], kv_heads: int, seed: int
) -> None:
    text = Text.random(tokens, kv_heads, 1, seed)
    layer = Layer(text, with_router("paper"))
    for end in sorted({e for e in ends if e < tokens} | {tokens}):
        layer.add(end)
    size = SMALL.paper_group_size
    for chunk in range(tokens // SMALL.chunk_size):
        start = chunk * SMALL.chunk_size
        for head in range(kv_heads):
            keys = text.keys[start : start + SMALL.chunk_size, head]
            summary = layer.index.summaries[0][head, chunk]
            torch.testing.assert_close(summary, plain_summary(keys, start))
            for group in range(SMALL.chunk_size // size):
                part = keys[group * size : (group + 1) * size]
                found = layer.index.group_summaries[0][head, chunk, group]
                torch.testing.assert_close(found, plain_summary(part, start + group * size))
    assert layer.index.codes == []


@settings(max_examples=20, deadline=None)
@given(
    st.integers(8, 100),
    st.integers(0, 100),
    st.sampled_from([torch.bfloat16, torch.float32]),
    st.sampled_from(["hga", "paper"]),
)
def test_entries_after_a_truncation_are_those_of_the_new_text(
    tokens: int, kept: int, dtype: torch.dtype, router: str
) -> None:
    text = Text.random(tokens, 2, 1, dtype=dtype)
    kept = min(kept, tokens)
    other = text.changed_from(kept)
    layer = Layer(text, with_router(router))
    layer.add(tokens)
    layer.store.truncate(kept)
    layer.index.truncate(kept)
    layer.text = other
    layer.add(tokens)
    fresh = Layer(other, with_router(router))
    fresh.add(tokens)
    chunks = tokens // SMALL.chunk_size
    pairs = zip(entries(layer.index, chunks), entries(fresh.index, chunks), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_bytes_count_the_closed_chunks() -> None:
    text = Text.random(30, 2, 1, dtype=torch.bfloat16)
    layer = Layer(text)
    assert layer.index.bytes() == 0
    layer.add(30)
    # A chunk and head: a summary of 16 bf16, 8 tokens of 16 two-bit codes, 8 bf16 scales.
    assert layer.index.bytes() == 3 * 2 * (32 + 8 * 4 + 16)
    layer.index.truncate(23)
    assert layer.index.bytes() == 2 * 2 * (32 + 8 * 4 + 16)
    paper = Layer(text, with_router("paper"))
    paper.add(30)
    assert paper.index.bytes() == 3 * 2 * (32 + 32)


def test_dense_needs_no_index() -> None:
    layer = Layer(Text.random(30, 2, 1), with_router("dense"))
    layer.add(30)
    assert entries(layer.index, 3) == []
    assert layer.index.bytes() == 0
