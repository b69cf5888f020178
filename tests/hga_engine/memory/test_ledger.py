"""The ledger against figures worked out by hand."""

from dataclasses import replace

import pytest
import torch

from hga_chat.models.catalogue import QWEN3_30B_A3B
from hga_engine.config import CacheConfig, ModelConfig, Routing, SessionConfig
from hga_engine.errors import DiskSpaceError, HostMemoryError
from hga_engine.memory import ledger
from hga_engine.prediction import Ledger

GIB = 2**30
SMOLLM2 = ModelConfig(
    architecture="llama",
    num_layers=30,
    hidden_size=576,
    num_query_heads=9,
    num_kv_heads=3,
    head_dim=64,
    intermediate_size=1536,
    vocab_size=49_152,
    max_positions=65_536,
    rope_base=1.75e6,
    rms_norm_eps=1e-5,
    tie_embeddings=True,
)


def test_weights_of_published_geometries() -> None:
    # 134,515,008 is the parameter count of SmolLM2-135M on its model card.
    assert ledger.weights_bytes(SMOLLM2, torch.bfloat16) == 2 * 134_515_008
    # Qwen3-30B-A3B: 30,532,122,624 parameters, as Hugging Face counts the bf16 checkpoint.
    assert ledger.weights_bytes(QWEN3_30B_A3B, torch.bfloat16) == 2 * 30_532_122_624
    fp8 = ledger.weights_bytes(QWEN3_30B_A3B, torch.float8_e4m3fn)
    assert fp8 / GIB == pytest.approx(29.0, abs=0.05)


def test_kv_and_index_of_qwen3_at_64k() -> None:
    found = ledger.predict(QWEN3_30B_A3B, 29 * GIB, SessionConfig(), torch.bfloat16)
    assert found.kv_host == 65_536 * 96 * 1024 == 6 * GIB
    assert found.kv_disk == 0
    # 48 layers x 4 heads x (65,536 x (32 + 2) + 1,024 x 256) bytes.
    assert found.index == 192 * (65_536 * 34 + 1024 * 256) == 478_150_656
    assert found.index / GIB == pytest.approx(0.5, abs=0.06)
    assert found.total_host == 29 * GIB + 6 * GIB + found.index + found.workspace
    # The hidden states of 64K tokens are 256 MiB; nothing in the workspace is K/V sized.
    assert GIB / 4 < found.workspace < GIB


def test_the_index_of_each_router() -> None:
    def index(router: Routing) -> int:
        config = SessionConfig(routing=router, cache=CacheConfig(context=6400))
        return ledger.predict(SMOLLM2, 0, config, torch.bfloat16).index

    # 30 layers x 3 heads x 100 chunks of (1 or 5 summaries of 128 bytes, 64 tokens of 18 bytes).
    assert index(Routing(kind="dense")) == 0
    assert index(Routing(kind="paper")) == 9000 * 5 * 128
    assert index(Routing(kind="hga")) == 9000 * (128 + 64 * 18)


def test_a_host_budget_moves_kv_to_disk_and_adds_a_layer_to_the_workspace() -> None:
    def predict(budget: int | None) -> Ledger:
        cache = CacheConfig(host_budget_bytes=budget)
        return ledger.predict(QWEN3_30B_A3B, 0, SessionConfig(cache=cache), torch.bfloat16)

    half = predict(3 * GIB)
    assert (half.kv_host, half.kv_disk) == (3 * GIB, 6 * GIB)
    assert half.workspace - predict(None).workspace == (128 + 16) * 2**20
    assert predict(6 * GIB) == predict(None)
    # The minimum is one page of 2 x 2 x 128 x 2 bytes for each layer and head.
    assert predict(0).kv_host == 192 * 1024


def test_a_context_that_ends_within_a_group_takes_whole_pages() -> None:
    config = SessionConfig(cache=CacheConfig(context=17))
    assert ledger.predict(SMOLLM2, 0, config, torch.float32).kv_host == 18 * 30 * 3 * 64 * 2 * 4


LEDGER = Ledger(
    weights=4 * GIB, index=GIB, kv_host=6 * GIB, kv_disk=0, workspace=GIB, context=65_536
)


def test_a_session_that_fits_passes() -> None:
    ledger.check(LEDGER, 12 * GIB, 0)
    ledger.check(replace(LEDGER, kv_disk=GIB), 12 * GIB, GIB)


def test_host_memory_that_is_short_is_reported_by_purpose() -> None:
    with pytest.raises(HostMemoryError) as error:
        ledger.check(LEDGER, 12 * GIB - 1, 99 * GIB)
    assert (error.value.ledger, error.value.available) == (LEDGER, 12 * GIB - 1)
    assert str(error.value) == (
        "Not enough memory: 12.00 GiB needed (weights 4.00 GiB, K/V 6.00 GiB, index 1.00 GiB, "
        "workspace 1.00 GiB), 12.00 GiB available."
    )


def test_disk_space_that_is_short_is_reported() -> None:
    spilling = replace(LEDGER, kv_disk=9 * GIB)
    with pytest.raises(DiskSpaceError, match=r"9\.00 GiB needed, 2\.00 GiB free") as error:
        ledger.check(spilling, 99 * GIB, 2 * GIB)
    assert (error.value.ledger, error.value.free) == (spilling, 2 * GIB)
