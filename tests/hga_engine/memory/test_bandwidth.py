"""Bytes of a decoded token, and what follows from them."""

import pytest
import torch

from hga_chat.models import geometry_of
from hga_engine.config import EngineConfig, RouterName, resolve
from hga_engine.memory import bandwidth


def read(name: str, weights: int, tokens: int = 1, router: RouterName = "hga") -> int:
    routing = resolve(EngineConfig(router), "cpu").routing
    return bandwidth.decode_bytes(geometry_of(name), weights, routing, tokens)


def test_a_token_reads_the_chosen_experts_alone():
    # Of 29.0 GiB in FP8 a token reads 3.37 GB.
    assert read("qwen3-30b-a3b", 31_174_545_408) == pytest.approx(3.37e9, rel=0.1)
    assert read("qwen3-30b-a3b-q4", 18_556_686_752) == pytest.approx(1.9e9, rel=0.05)


def test_the_embedding_is_read_if_it_is_the_head():
    # Weights of 2 bytes each: a token of the 4B reads all, one of the 1.5B not its embedding.
    tied, untied = 2 * 4_022_468_096, 2 * (1_543_714_304 + 151_936 * 1536)
    assert read("qwen3-4b", tied) == pytest.approx(tied, rel=0.01)
    assert read("qwen2.5-coder-1.5b", untied) == pytest.approx(
        untied - 2 * 151_936 * 1536, rel=0.01
    )


def test_selected_keys_and_values_and_the_index_are_read():
    # 28 layers, 2 KV heads, 128 dimensions, K and V of 2 bytes.
    token = 28 * 2 * 128 * 2 * 2
    assert read("qwen2.5-coder-1.5b", 0, 32_768, "dense") == 32_768 * token
    codes = 28 * 2 * (32_768 * (32 + 2) + 512 * 128 * 2)
    assert read("qwen2.5-coder-1.5b", 0, 32_768) == (128 + 4096 // 3) * token + codes


def test_the_rate_is_bandwidth_over_bytes(monkeypatch):
    monkeypatch.setattr(bandwidth, "memory_bandwidth", lambda device: 20e9)
    model = geometry_of("qwen2.5-coder-1.5b")
    for kind in ("cpu", "cuda"):
        fast, slow = (
            bandwidth.decode_rate(model, size, torch.device(kind)) for size in (10**9, 2 * 10**9)
        )
        assert 1 / slow - 1 / fast == pytest.approx(0.05)
        assert fast < 20


@pytest.mark.parametrize(
    ("name", "bytes_a_token", "kind", "found", "measured"),
    [  # two cores of an AMD EPYC, about 28 GB/s, at 4K; an H200, 4.2 TB/s
        ("smollm2-64k", 311e6, "cpu", 28e9, 70),
        ("qwen2.5-coder-1.5b", 1.017e9, "cpu", 28e9, 24.6),
        ("qwen3-30b-a3b", 3.37e9, "cuda", 4.2e12, 447.5),
    ],
)
def test_predicted_rates_are_those_that_were_measured(
    name, bytes_a_token, kind, found, measured, monkeypatch
):
    monkeypatch.setattr(bandwidth, "memory_bandwidth", lambda device: found)
    rate = bandwidth.decode_rate(geometry_of(name), int(bytes_a_token), torch.device(kind))
    assert rate == pytest.approx(measured, rel=0.2)


def test_the_bandwidth_is_that_of_a_machine():
    found = bandwidth.memory_bandwidth(torch.device("cpu"))
    assert 1e8 < found < 1e13
