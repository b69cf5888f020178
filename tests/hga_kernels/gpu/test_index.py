"""The routing index built by Triton kernels, against its plain definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hga_kernels import reference
from hga_kernels.reference.pages import Window
from tests.support.kernel_cases import CHUNK, GROUP_SIZES, random, seeds

index = pytest.importorskip("hga_kernels.gpu.index")

Entries = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def entries(device: torch.device, *leading: int, dim: int) -> Entries:
    """Room for entries, of values that no index has."""
    codes = torch.full((*leading, CHUNK, dim // 4), 77, dtype=torch.uint8)
    return (
        torch.full((*leading, dim), torch.nan, dtype=torch.bfloat16, device=device),
        codes.to(device),
        torch.full((*leading, CHUNK), torch.nan, dtype=torch.bfloat16, device=device),
    )


def turns(dim: int, device: torch.device, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.rand(CHUNK, dim // 2, generator=torch.Generator().manual_seed(seed)) - 0.5
    return angles.cos().to(device), angles.sin().to(device)


def levels(codes: torch.Tensor) -> torch.Tensor:
    return torch.stack([(codes >> (2 * i)) & 3 for i in range(4)]).int()


def assert_same_index(found: Entries, expected: Entries) -> None:
    """But for numbers that are all but on the border between two levels."""
    torch.testing.assert_close(found[0], expected[0], rtol=2**-7, atol=1e-6)
    steps = (levels(found[1]) - levels(expected[1])).abs()
    assert int(steps.max()) <= 1
    assert float(steps.float().mean()) < 1e-3
    torch.testing.assert_close(found[2], expected[2], rtol=2**-6, atol=1e-6)


@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from([16, 32, 64, 128, 256]), st.integers(1, 3), st.integers(1, 3),
    st.sampled_from([0.0, 4.0]), seeds,
)  # fmt: skip
def test_chunks_are_indexed_as_defined(
    device: torch.device, dim: int, heads: int, chunks: int, apart: float, seed: int
) -> None:
    """Also where all keys have much in common; only the given places are written."""
    common = random(heads, 1, dim, seed=seed + 1, size=apart)
    keys = (random(heads, chunks * CHUNK, dim, seed=seed) + common).to(device)
    whole = entries(device, heads, chunks + 2, dim=dim)
    untouched = [entry.clone() for entry in whole]
    own = [entry[:, 1 : 1 + chunks] for entry in whole]
    cos, sin = turns(dim, device, seed)
    assert index.index_chunks(keys, cos, sin, *own)
    plain = entries(device, heads, chunks, dim=dim)
    reference.index_chunks(keys, cos, sin, *plain)
    assert_same_index((own[0], own[1], own[2]), plain)
    for entry, before in zip(whole, untouched, strict=True):
        for chunk in (0, chunks + 1):
            same = entry[:, chunk], before[:, chunk]
            torch.testing.assert_close(*same, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("size", GROUP_SIZES)
@pytest.mark.parametrize("position", [0, 63, 64, 65, 128, 640, 700])
def test_a_chunk_is_indexed_in_every_layer_when_it_closes(
    device: torch.device, position: int, size: int
) -> None:
    """From its places in the window: sinks, or the ring, which has gone round by then."""
    layers, heads, dim, chunks = 2, 3, 32, 12
    window = Window(sinks=64 // size, recent=128 // size, group_size=size)
    resident = random(layers, heads, window.slots + 5, 2, size, dim, seed=position).to(device)
    found = entries(device, layers, heads, chunks, dim=dim)
    expected = entries(device, layers, heads, chunks, dim=dim)
    cos, sin = turns(dim, device, 1)
    here = torch.tensor([position], dtype=torch.int32, device=device)
    index.index_closed_chunk(here, resident, cos, sin, *found, window)
    if position and position % CHUNK == 0:
        chunk = position // CHUNK - 1
        groups = range(chunk * CHUNK // size, (chunk + 1) * CHUNK // size)
        slots = [g if g < window.sinks else window.sinks + g % window.recent for g in groups]
        for layer in range(layers):
            keys = resident[layer][:, slots, 0].flatten(1, 2)
            own = [entry[layer][:, chunk : chunk + 1] for entry in expected]
            reference.index_chunks(keys, cos, sin, *own)
            mine = [entry[layer][:, chunk : chunk + 1] for entry in found]
            assert_same_index((mine[0], mine[1], mine[2]), (own[0], own[1], own[2]))
            for place, entry in zip(own, mine, strict=True):
                place.copy_(entry)
    for entry, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(entry, plain, rtol=0, atol=0, equal_nan=True)


def test_other_kinds_of_index_are_left_to_the_definition(device: torch.device) -> None:
    keys = random(1, CHUNK, 32).to(device)
    cos, sin = turns(32, device, 0)
    summaries, codes, scales = entries(device, 1, 1, dim=32)
    assert index.index_chunks(keys.float(), cos, sin, summaries, codes, scales) is None
    slabs = codes.view(1, 1, 4, 2, 16, 4)
    assert index.index_chunks(keys, cos, sin, summaries, slabs, scales) is None
