"""The compiled row-wise and index kernels against their torch references; threads.

Expected values come from the reference in float64 on the same bf16 numbers. All memory that the
wrappers allocate is filled with NaN (or 123) first, so that unwritten places show.
"""

import ctypes
import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hga_kernels import Angles, Budget, ChunkIndex, ChunkRange, cpu, reference
from hga_kernels.arguments import HeadWeights
from hga_kernels.cpu import build, library
from tests.support.kernel_cases import (
    BF16_STEP,
    CHUNK,
    assert_near,
    index_of,
    page_case,
    random,
    seeds,
)

compiled = pytest.mark.usefixtures("compiled")
dtypes = st.sampled_from([torch.bfloat16, torch.float32])


# Linear and row-wise kernels


@compiled
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 16), st.integers(1, 300), st.integers(1, 200), st.booleans(), seeds)
def test_linear(rows: int, size_in: int, size_out: int, wide: bool, seed: int) -> None:
    inputs, weight = random(rows, size_in, seed=seed), random(size_out, size_in, seed=seed + 1)
    out = cpu.linear(inputs, weight, torch.float32 if wide else None)
    assert out is not None
    assert out.dtype == (torch.float32 if wide else torch.bfloat16)
    expected = reference.linear(inputs.double(), weight.double())
    assert_near(out, expected, 1e-5 if wide else BF16_STEP, math.sqrt(size_in))


@compiled
def test_linear_takes_rows_that_are_not_contiguous() -> None:
    inputs, weight = random(5, 80)[:, :40], random(30, 40, seed=1)
    out = cpu.linear(inputs, weight)
    assert out is not None
    assert_near(out, inputs.double() @ weight.double().T, BF16_STEP, 1)


def within(found: torch.Tensor, expected: torch.Tensor, steps: float, of: float) -> None:
    """Assert an error of so many steps of rounding to bf16, or of 1e-5 for float32."""
    if found.dtype == torch.float32:
        assert_near(found, expected, 1e-5, max(of, 1))
    else:
        assert_near(found, expected, steps * BF16_STEP, of)


@compiled
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 300), dtypes, seeds)
def test_rms_norm(rows: int, size: int, dtype: torch.dtype, seed: int) -> None:
    inputs = random(rows, size, seed=seed, size=3).to(dtype)
    weight = random(size, seed=seed + 1).to(dtype)
    out = cpu.rms_norm(inputs, weight, 1e-5)
    assert out is not None
    assert out.dtype == dtype
    within(out, reference.rms_norm(inputs.double(), weight.double(), 1e-5), 2.1, 1e-6)


@compiled
def test_rms_norm_of_heads() -> None:
    inputs, weight = random(5, 3, 24), random(24, seed=1)
    out = cpu.rms_norm(inputs[:, 1:], weight, 1e-6)
    assert out is not None
    expected = reference.rms_norm(inputs[:, 1:].double(), weight.double(), 1e-6)
    assert_near(out, expected, 2.1 * BF16_STEP, 1e-6)


def head_weights(
    counts: tuple[int, int, int], seed: int, *, bias: bool, norms: bool
) -> HeadWeights:
    query_heads, kv_heads, dim = counts
    return HeadWeights(
        random(dim, seed=seed) if norms else None,
        random(dim, seed=seed + 1) if norms else None,
        1e-6,
        random((query_heads + 2 * kv_heads) * dim, seed=seed + 2).float() * 9 if bias else None,
        random(kv_heads, dim, seed=seed + 3).float() * 9 if bias else None,
    )


def converted(weights: HeadWeights, norms: torch.dtype, others: torch.dtype) -> HeadWeights:
    def to(tensor: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
        return None if tensor is None else tensor.to(dtype)

    return HeadWeights(
        to(weights.q_norm, norms),
        to(weights.k_norm, norms),
        weights.eps,
        to(weights.bias, others),
        to(weights.key_shift, others),
    )


@compiled
@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.tuples(st.integers(1, 7), st.integers(1, 3), st.sampled_from([2, 16, 64, 96, 256])),
    dtypes,
    st.booleans(),
    st.booleans(),
    seeds,
)
def test_split_heads(
    rows: int,
    counts: tuple[int, int, int],
    dtype: torch.dtype,
    bias: bool,
    norms: bool,
    seed: int,
) -> None:
    query_heads, kv_heads, dim = counts
    heads = random(rows, (query_heads + 2 * kv_heads) * dim, seed=seed).to(dtype)
    angles = torch.rand(rows, dim // 2, generator=torch.Generator().manual_seed(seed)) * 7
    cos, sin = angles.cos(), angles.sin()
    weights = head_weights(counts, seed, bias=bias, norms=norms)
    out = cpu.split_heads(
        heads, converted(weights, dtype, torch.float32), Angles(cos, sin), query_heads, kv_heads
    )
    expected = reference.split_heads(
        heads.double(),
        converted(weights, torch.float64, torch.float64),
        Angles(cos.double(), sin.double()),
        query_heads,
        kv_heads,
    )
    assert out is not None
    for found, wanted in zip(out, expected, strict=True):
        assert found.dtype == dtype
        assert found.is_contiguous()
        # Rounded after the norm, after its weight and after RoPE, whose sums may cancel.
        within(found, wanted, 3, 8 if norms or bias else 1e-3)


@compiled
def test_split_heads_rounds_once_after_a_bias() -> None:
    heads, weights = random(3, 4 * 16), head_weights((2, 1, 16), 0, bias=True, norms=True)
    angles = Angles(torch.ones(3, 8), torch.zeros(3, 8))
    out = cpu.split_heads(heads, weights, angles, 2, 1)
    expected = reference.split_heads(heads.float(), weights, angles, 2, 1)
    assert out is not None
    for found, wanted in zip(out, expected, strict=True):
        torch.testing.assert_close(found, wanted.bfloat16(), rtol=2**-8, atol=0)


@compiled
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 300), st.sampled_from([0.1, 1.0, 40.0]), dtypes, seeds)
def test_gated_silu(rows: int, size: int, spread: float, dtype: torch.dtype, seed: int) -> None:
    inputs = random(rows, 2 * size, seed=seed, size=spread).to(dtype)
    out = cpu.gated_silu(inputs)
    assert out is not None
    assert out.dtype == dtype
    within(out, reference.gated_silu(inputs.double()), 1.1, 1e-6)


# The index


@compiled
@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from([1, 5, 16, 64]),
    st.sampled_from([2, 16, 64, 96, 256]),
    seeds,
)
def test_summarize(heads: int, runs: int, size: int, dim: int, seed: int) -> None:
    keys = random(heads, runs * size, dim, seed=seed)
    angles = torch.rand(size, dim // 2, generator=torch.Generator().manual_seed(seed)) * 7
    out = cpu.summarize(keys, angles.cos(), angles.sin())
    assert out is not None
    cos_and_sin = angles.cos().double(), angles.sin().double()
    assert_near(out, reference.summarize(keys.double(), *cos_and_sin), 1e-5, 1)


def levels(codes: torch.Tensor) -> torch.Tensor:
    """Unpack codes to levels [kv_heads, chunks, CHUNK, dim]."""
    ones = torch.ones(*codes.shape[:2], CHUNK, dtype=torch.bfloat16)
    return reference.decode_tokens(codes, ones) + 1.5


@compiled
@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from([16, 32, 64, 128, 256]),
    st.sampled_from([1e-3, 1.0, 100.0]),
    seeds,
)
def test_encode_tokens(heads: int, chunks: int, dim: int, spread: float, seed: int) -> None:
    keys = random(heads, chunks * CHUNK, dim, seed=seed, size=spread)
    centres = random(heads, chunks, dim, seed=seed + 1, size=spread)
    encoded = cpu.encode_tokens(keys, centres)
    assert encoded is not None
    expected = reference.encode_tokens(keys.double(), centres.double())
    assert encoded[0].shape == expected[0].shape
    # Levels may differ where float32 rounding moves a number across a border.
    own = keys.double().unflatten(1, (chunks, CHUNK)) - centres.double()[:, :, None]
    rotated = own @ reference.hadamard(dim, torch.float64)
    exact_levels = rotated / rotated.square().mean(-1, keepdim=True).sqrt()
    on_border = (exact_levels - exact_levels.round()).abs() < 1e-5
    differs = levels(encoded[0]) != levels(expected[0])
    assert not bool((differs & ~on_border).any())
    assert_near(encoded[1], expected[1].double(), 2.1 * BF16_STEP, 0)


@compiled
def test_encode_keys_equal_to_their_centre() -> None:
    encoded = cpu.encode_tokens(random(1, 1, 32).expand(1, CHUNK, 32), random(1, 1, 32))
    assert encoded is not None
    assert torch.equal(encoded[1], torch.zeros(1, 1, CHUNK, dtype=torch.bfloat16))


# Arguments that the compiled kernels refuse


def refused() -> dict[str, Any]:
    queries, positions, groups, slots, pool = page_case(32, 1, 2, 1, 2, 3, 40, seed=0, group_size=2)
    pages = positions, groups, slots
    index = index_of(1, 2, 32, seed=0)
    centres = index.summaries
    rows = random(1, 1, 2, 32).float()
    ends = torch.tensor([2], dtype=torch.int32)
    ones = torch.ones(4, 8)
    keys = random(1, CHUNK, 32)
    wide_codes = torch.zeros(1, 2, 4, 6, 16, 4, dtype=torch.uint8)
    wide_index = ChunkIndex(random(1, 2, 96), wide_codes, index.scales)
    chunks = ChunkRange(0, ends)
    return {
        "linear of many rows": lambda: cpu.linear(random(17, 8), random(4, 8)),
        "linear of float32": lambda: cpu.linear(torch.ones(1, 8), torch.ones(4, 8)),
        "linear of a transposed weight": lambda: cpu.linear(random(1, 8), random(8, 4).T),
        "linear to float64": lambda: cpu.linear(random(1, 8), random(4, 8), torch.float64),
        "norm of float32 by bf16": lambda: cpu.rms_norm(torch.ones(2, 8), random(8), 1e-6),
        "heads in float64": lambda: cpu.split_heads(
            torch.ones(4, 3 * 16).double(),
            HeadWeights(None, None, 1e-6),
            Angles(ones, ones),
            1,
            1,
        ),
        "gated SiLU of float64": lambda: cpu.gated_silu(torch.ones(2, 8).double()),
        "summary of float32": lambda: cpu.summarize(torch.ones(1, 8, 16), ones, ones),
        "codes for a GPU": lambda: cpu.encode_tokens(keys, centres[:, :1], "tokens"),
        "codes of a small chunk": lambda: cpu.encode_tokens(keys[:, :32], centres[:, :1]),
        "selection in float64": lambda: cpu.select_groups(
            rows.double(), index, chunks, Budget(4, 2)
        ),
        "selection of groups of 8": lambda: cpu.select_groups(rows, index, chunks, Budget(4, 8)),
        "selection by 96 dimensions": lambda: cpu.select_groups(
            random(1, 1, 2, 96).float(), wide_index, chunks, Budget(4, 2)
        ),
        "attention in float32": lambda: cpu.attend_pages(
            queries.float(), *pages, pool.float(), 1.0
        ),
        "attention over large pages": lambda: cpu.attend_pages(
            queries, *pages, pool.repeat(1, 1, 4, 1), 1.0
        ),
        "attention over heads of 24": lambda: cpu.attend_pages(
            queries[..., :24], *pages, pool[..., :24].contiguous(), 1.0
        ),
    }


@compiled
@pytest.mark.parametrize("case", list(refused()))
def test_other_arguments_are_refused(case: str) -> None:
    assert refused()[case]() is None


# Threads


@pytest.fixture
def private_library(tmp_path: Path) -> Callable[[int], ctypes.CDLL]:
    """Open copies of the library, each with its own pool of threads."""

    def open_copy(threads: int) -> ctypes.CDLL:
        path = tmp_path / f"{threads}.so"
        shutil.copy(build.library_path(), path)
        return library.open_library(path, threads)

    return open_copy


def run_everything(seed: int) -> list[torch.Tensor]:
    index = index_of(2, 20, 64, seed)
    rows = random(2, 5, 6, 64, seed=seed).float() / 4
    ends = torch.tensor([20, 15, 10, 5, 2], dtype=torch.int32)
    angles = torch.linspace(0, 3, CHUNK * 32).view(CHUNK, 32)
    keys = random(2, 10 * CHUNK, 64, seed=seed)
    results = (
        cpu.linear(random(3, 200, seed=seed), random(1000, 200, seed=seed + 1)),
        cpu.rms_norm(random(200, 64, seed=seed), random(64), 1e-5),
        cpu.split_heads(
            random(64, 7 * 64, seed=seed),
            HeadWeights(None, None, 1e-6),
            Angles(angles.cos(), angles.sin()),
            3,
            2,
        ),
        cpu.gated_silu(random(200, 64, seed=seed)),
        cpu.summarize(keys, angles.cos(), angles.sin()),
        cpu.encode_tokens(keys, index.summaries[:, :10].contiguous()),
        cpu.select_groups(rows, index, ChunkRange(1, ends), Budget(12, 2)),
        cpu.attend_pages(*page_case(64, 2, 3, 4, 8, 9, 120, seed, group_size=2), 0.125, True),
    )
    flat: list[torch.Tensor] = []
    for result in results:
        assert result is not None
        flat += [t for t in (result if isinstance(result, tuple) else (result,)) if t is not None]
    return flat


def test_results_do_not_depend_on_threads(
    private_library: Callable[[int], ctypes.CDLL], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_threads = []
    for threads in (1, 2, 7):
        opened = private_library(threads)
        monkeypatch.setattr(library, "_load", lambda opened=opened: opened)
        by_threads.append(run_everything(seed=1))
    for others in by_threads[1:]:
        assert all(torch.equal(a, b) for a, b in zip(by_threads[0], others, strict=True))


def test_calls_of_several_threads_do_not_mix(
    private_library: Callable[[int], ctypes.CDLL], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = private_library(3)
    monkeypatch.setattr(library, "_load", lambda: opened)
    expected = [run_everything(seed) for seed in range(3)]
    right = [True] * 3

    def work(seed: int) -> None:
        for _ in range(5):
            found = run_everything(seed)
            pairs = zip(found, expected[seed], strict=True)
            right[seed] &= all(torch.equal(a, b) for a, b in pairs)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 3
