"""The routing index built by Triton kernels, against its plain definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hga_kernels import ChunkIndex, Window, reference
from tests.support.kernel_cases import CHUNK, GROUP_SIZES, random, seeds

index = pytest.importorskip("hga_kernels.gpu.index")


def entries(device: torch.device, *leading: int, dim: int) -> ChunkIndex:
    """Return an index of values that no kernel writes."""
    codes = torch.full((*leading, CHUNK, dim // 4), 77, dtype=torch.uint8)
    return ChunkIndex(
        torch.full((*leading, dim), torch.nan, dtype=torch.bfloat16, device=device),
        codes.to(device),
        torch.full((*leading, CHUNK), torch.nan, dtype=torch.bfloat16, device=device),
    )


def tensors(index: ChunkIndex) -> list[torch.Tensor]:
    return [index.summaries, index.codes, index.scales]


def part(index: ChunkIndex, first: int, end: int) -> ChunkIndex:
    """Return the entries of the chunks from ``first`` up to ``end`` of one layer."""
    return ChunkIndex(*(entry[:, first:end] for entry in tensors(index)))


def layer_of(index: ChunkIndex, layer: int) -> ChunkIndex:
    return ChunkIndex(*(entry[layer] for entry in tensors(index)))


def angles_of(dim: int, device: torch.device, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.rand(CHUNK, dim // 2, generator=torch.Generator().manual_seed(seed)) - 0.5
    return angles.cos().to(device), angles.sin().to(device)


def levels(codes: torch.Tensor) -> torch.Tensor:
    return torch.stack([(codes >> (2 * i)) & 3 for i in range(4)]).int()


def assert_same_index(found: ChunkIndex, expected: ChunkIndex) -> None:
    """Assert equality but for values that are almost on the border between two levels."""
    torch.testing.assert_close(found.summaries, expected.summaries, rtol=2**-7, atol=1e-6)
    steps = (levels(found.codes) - levels(expected.codes)).abs()
    assert int(steps.max()) <= 1
    assert float(steps.float().mean()) < 1e-3
    torch.testing.assert_close(found.scales, expected.scales, rtol=2**-6, atol=1e-6)


@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from([16, 32, 64, 128, 256]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0.0, 4.0]),
    seeds,
)
def test_chunks_are_indexed_as_defined(
    device: torch.device, dim: int, heads: int, chunks: int, apart: float, seed: int
) -> None:
    """Also where all keys have much in common; only the given entries are written."""
    common = random(heads, 1, dim, seed=seed + 1, size=apart)
    keys = (random(heads, chunks * CHUNK, dim, seed=seed) + common).to(device)
    whole = entries(device, heads, chunks + 2, dim=dim)
    untouched = [entry.clone() for entry in tensors(whole)]
    own = part(whole, 1, 1 + chunks)
    cos, sin = angles_of(dim, device, seed)
    assert index.index_chunks(keys, cos, sin, own)
    plain = entries(device, heads, chunks, dim=dim)
    reference.index_chunks(keys, cos, sin, plain)
    assert_same_index(own, plain)
    for entry, before in zip(tensors(whole), untouched, strict=True):
        for chunk in (0, chunks + 1):
            same = entry[:, chunk], before[:, chunk]
            torch.testing.assert_close(*same, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("size", GROUP_SIZES)
@pytest.mark.parametrize("position", [0, 63, 64, 65, 128, 640, 700])
def test_a_chunk_is_indexed_in_every_layer_when_it_closes(
    device: torch.device, position: int, size: int
) -> None:
    """From its slots in the window: the sinks, or the ring of the open chunk."""
    layers, heads, dim, chunks = 2, 3, 32, 12
    window = Window(sinks=CHUNK // size, group_size=size)
    resident = random(layers, heads, window.slots + 5, 2, size, dim, seed=position).to(device)
    found = entries(device, layers, heads, chunks, dim=dim)
    expected = entries(device, layers, heads, chunks, dim=dim)
    cos, sin = angles_of(dim, device, 1)
    here = torch.tensor([position], dtype=torch.int32, device=device)
    index.index_closed_chunk(here, resident, window, cos, sin, found)
    if position and position % CHUNK == 0:
        chunk = position // CHUNK - 1
        groups = range(chunk * CHUNK // size, (chunk + 1) * CHUNK // size)
        slots = [g if g < window.sinks else window.slot(g) for g in groups]
        for layer in range(layers):
            keys = resident[layer][:, slots, 0].flatten(1, 2)
            own = part(layer_of(expected, layer), chunk, chunk + 1)
            reference.index_chunks(keys, cos, sin, own)
            mine = part(layer_of(found, layer), chunk, chunk + 1)
            assert_same_index(mine, own)
            for plain, entry in zip(tensors(own), tensors(mine), strict=True):
                plain.copy_(entry)
    for entry, plain in zip(tensors(found), tensors(expected), strict=True):
        torch.testing.assert_close(entry, plain, rtol=0, atol=0, equal_nan=True)


def test_other_kinds_of_index_are_left_to_the_definition(device: torch.device) -> None:
    keys = random(1, CHUNK, 32).to(device)
    cos, sin = angles_of(32, device, 0)
    own = entries(device, 1, 1, dim=32)
    assert index.index_chunks(keys.float(), cos, sin, own) is None
    slabs = ChunkIndex(own.summaries, own.codes.view(1, 1, 4, 2, 16, 4), own.scales)
    assert index.index_chunks(keys, cos, sin, slabs) is None
