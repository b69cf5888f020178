"""The plan of a GPU's memory against figures worked out by hand."""

import pytest
import torch

from hga_chat.models.catalogue import QWEN3_30B_A3B
from hga_engine.config import CacheConfig, EngineConfig, resolve
from hga_engine.errors import GpuMemoryError
from hga_engine.memory.device_plan import DeviceUse, plan_device

GIB = 2**30
WEIGHTS = int(28.45 * GIB)


def plan(limit: float | None = 31, total: float = 80, **given):
    router = given.pop("router", "hga")
    cache = CacheConfig(device_limit_bytes=None if limit is None else int(limit * GIB), **given)
    return plan_device(
        QWEN3_30B_A3B,
        resolve(EngineConfig(router, cache=cache), "cuda"),
        DeviceUse(int(total * GIB), weights=WEIGHTS, other=GIB // 2),
        torch.bfloat16,
    )


def test_64k_of_qwen3_fits_beside_its_weights_on_a_32_gb_card():
    made = plan()
    # The geometry: 48 layers of 4 heads and 1,024 chunks, with a 256-byte summary per chunk and 34
    # bytes of codes and scale per token; 96 KiB of K/V per token in 48 layers.
    assert made.index == 48 * 4 * 1024 * (256 + 64 * 34)
    assert made.layer_pools == 2 * 65_536 * 96 * 1024 // 48
    assert made.window > 48 * 4 * 32 * 2048
    assert made.total <= 31 * GIB
    # The cache has room for all that a query may select: 16 strata of 1,024 / 16 pages, a chunk of
    # 16 and two more.
    assert made.cached_pages >= 16 * (64 + 16 + 2)
    assert made.page_cache == made.cached_pages * 48 * 4 * (2048 + 8)


def test_the_page_cache_takes_what_is_left():
    small, large = plan(31), plan(31.5)
    grown = large.page_cache - small.page_cache
    assert 0.5 * GIB - 48 * 4 * 2056 <= grown <= 0.5 * GIB + 48 * 4 * 2056
    assert plan(None).cached_pages == 65_536 // 4  # every group


def test_a_device_smaller_than_the_limit_counts():
    assert plan(60, total=31) == plan(31)


def test_a_session_that_cannot_fit_is_refused():
    with pytest.raises(GpuMemoryError) as error:
        plan(29.5)
    assert (error.value.limit, error.value.context) == (int(29.5 * GIB), 65_536)
    assert error.value.parts["weights"] == WEIGHTS
    assert error.value.needed > error.value.limit
    assert "weights 28.45 GiB" in str(error.value)
    assert "29.50 GiB may be used" in str(error.value)
    assert plan(29.9, context=2048).total <= 29.9 * GIB


def test_dense_attention_needs_no_index():
    assert plan(router="dense").index == 0
