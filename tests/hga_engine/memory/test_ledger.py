"""The ledger against figures worked out by hand, and memory helpers against the system."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hga_chat.models.catalogue import QWEN3_30B_A3B
from hga_engine.config import CacheConfig, EngineConfig, ModelConfig, RouterConfig
from hga_engine.errors import OutOfMemoryError
from hga_engine.memory import ledger, probes

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


def test_weights_of_the_published_geometries() -> None:
    # 134,515,008 is the parameter count of SmolLM2-135M on its model card.
    assert ledger.weights_bytes(SMOLLM2, torch.bfloat16) == 2 * 134_515_008
    # Qwen3-30B-A3B: 30,532,122,624 parameters, as Hugging Face counts the bf16 checkpoint.
    assert ledger.weights_bytes(QWEN3_30B_A3B, torch.bfloat16) == 2 * 30_532_122_624
    fp8 = ledger.weights_bytes(QWEN3_30B_A3B, torch.float8_e4m3fn)
    assert fp8 / GIB == pytest.approx(29.0, abs=0.05)


def test_kv_and_index_of_qwen3_at_64k() -> None:
    found = ledger.predict(QWEN3_30B_A3B, 29 * GIB, EngineConfig(), torch.bfloat16)
    assert found.kv_host == 65_536 * 96 * 1024 == 6 * GIB
    assert found.kv_disk == 0
    # 48 layers x 4 heads x (65,536 x (32 + 2) + 1,024 x 256) bytes.
    assert found.index == 192 * (65_536 * 34 + 1024 * 256) == 478_150_656
    assert found.index / GIB == pytest.approx(0.5, abs=0.06)
    assert found.total_host == 29 * GIB + 6 * GIB + found.index + found.workspace
    # The hidden states of 64K tokens are 256 MiB; nothing in the workspace is K/V sized.
    assert GIB / 4 < found.workspace < GIB


def test_the_index_of_each_router() -> None:
    def index(router: RouterConfig) -> int:
        config = EngineConfig(router=router, cache=CacheConfig(context=6400))
        return ledger.predict(SMOLLM2, 0, config, torch.bfloat16).index

    # 30 layers x 3 heads x 100 chunks of (1 or 5 summaries of 128 bytes, 64 tokens of 18 bytes).
    assert index(RouterConfig(kind="dense")) == 0
    assert index(RouterConfig(kind="paper")) == 9000 * 5 * 128
    assert index(RouterConfig(kind="hga")) == 9000 * (128 + 64 * 18)


def test_a_host_budget_moves_kv_to_disk_and_keeps_a_layer_as_workspace() -> None:
    def predict(budget: int | None) -> ledger.Ledger:
        cache = CacheConfig(host_budget_bytes=budget)
        return ledger.predict(QWEN3_30B_A3B, 0, EngineConfig(cache=cache), torch.bfloat16)

    half = predict(3 * GIB)
    assert (half.kv_host, half.kv_disk) == (3 * GIB, 6 * GIB)
    assert half.workspace - predict(None).workspace == (128 + 16) * 2**20
    assert predict(6 * GIB) == predict(None)
    # One page of 2 x 2 x 128 x 2 bytes for each layer and head is the least.
    assert predict(0).kv_host == 192 * 1024


def test_a_context_that_is_no_multiple_of_a_group_takes_whole_pages() -> None:
    config = EngineConfig(cache=CacheConfig(context=17))
    assert ledger.predict(SMOLLM2, 0, config, torch.float32).kv_host == 18 * 30 * 3 * 64 * 2 * 4


LEDGER = ledger.Ledger(
    weights=4 * GIB, index=GIB, kv_host=6 * GIB, kv_disk=0, workspace=GIB, context=65_536
)


def test_what_fits_passes() -> None:
    ledger.check(LEDGER, 12 * GIB, 0)
    ledger.check(replace(LEDGER, kv_disk=GIB), 12 * GIB, GIB)


@pytest.mark.parametrize(
    ("changes", "available", "told"),
    [
        ({}, 12 * GIB - 1, ["12.00 GiB needed", "K/V 6.00 GiB", "--context (now 65,536)"]),
        # 2 GiB are left for K/V; half of it is the advice.
        ({}, 8 * GIB, ["8.00 GiB available", "--host-budget 1024M"]),
        ({"kv_disk": 9 * GIB}, 8 * GIB, ["smaller --host-budget", "--context"]),
        ({}, 4 * GIB, ["weights alone do not fit", "smaller model"]),
    ],
)
def test_memory_that_is_short_is_told(
    changes: dict[str, int], available: int, told: list[str]
) -> None:
    with pytest.raises(OutOfMemoryError) as error:
        ledger.check(replace(LEDGER, **changes), available, 99 * GIB)
    assert str(error.value).count("\n") == 1
    for words in told:
        assert words in str(error.value)


def test_a_disk_that_is_short_is_told() -> None:
    with pytest.raises(OutOfMemoryError, match=r"9\.00 GiB needed, 2\.00 GiB free"):
        ledger.check(replace(LEDGER, kv_disk=9 * GIB), 99 * GIB, 2 * GIB)


def test_the_memory_advice_fits_when_it_is_followed() -> None:
    config = EngineConfig()
    plain = ledger.predict(QWEN3_30B_A3B, 29 * GIB, config, torch.bfloat16)
    available = plain.total_host - 2 * GIB
    with pytest.raises(OutOfMemoryError) as error:
        ledger.check(plain, available, 99 * GIB)
    budget = int(str(error.value).rsplit(maxsplit=1)[1].rstrip("M.")) * 2**20
    advised = EngineConfig(cache=CacheConfig(host_budget_bytes=budget))
    ledger.check(
        ledger.predict(QWEN3_30B_A3B, 29 * GIB, advised, torch.bfloat16), available, 99 * GIB
    )


def test_resident_memory_follows_an_allocation() -> None:
    # In a process of its own, where nothing else comes and goes.
    script = """
from hga_engine.memory import probes
before = probes.resident_bytes()
held = bytearray(b"x") * 64 * 2**20
print(probes.resident_bytes() - before, probes.peak_resident_bytes() - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    grown, peak = map(int, run.stdout.split())
    assert 60 * 2**20 < grown < 100 * 2**20
    assert peak >= 60 * 2**20


def test_available_memory_is_part_of_the_total() -> None:
    assert 0 < probes.available_memory_bytes() <= probes.total_memory_bytes()


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up /proc and /sys/fs/cgroup: 3 GiB available, a group below one with a limit."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("5:memory:/old\n0::/outer/inner\n")
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {3 * 2**20} kB\n")
    groups = tmp_path / "cgroup"
    for name, limit, used, cached in (
        ("outer", str(2 * GIB), GIB, GIB // 4),
        ("outer/inner", "max", 5, 0),
    ):
        (groups / name).mkdir(parents=True)
        (groups / name / "memory.max").write_text(limit + "\n")
        (groups / name / "memory.current").write_text(f"{used}\n")
        (groups / name / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\n")
    monkeypatch.setattr(probes, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(probes, "_CGROUPS", groups)
    monkeypatch.setattr(probes.os, "sysconf", {"SC_PHYS_PAGES": 2**20, "SC_PAGE_SIZE": 2**13}.get)
    return tmp_path


def test_a_control_group_limits_memory(system: Path) -> None:
    assert probes.total_memory_bytes() == 2 * GIB
    assert probes.available_memory_bytes() == 2 * GIB - GIB + GIB // 4
    (system / "cgroup/outer/memory.max").write_text("max\n")
    assert probes.total_memory_bytes() == 8 * GIB
    assert probes.available_memory_bytes() == 3 * GIB
    (system / "cgroup/outer/inner/memory.max").write_text("1000\n")
    assert probes.total_memory_bytes() == 1000
    assert probes.available_memory_bytes() == 995


def test_without_proc_there_is_still_an_answer(system: Path) -> None:
    for path in ("proc/self/cgroup", "proc/meminfo"):
        (system / path).unlink()
    assert probes.available_memory_bytes() == probes.total_memory_bytes() == 8 * GIB
    assert probes.resident_bytes() == probes.peak_resident_bytes() > 0


def test_free_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert probes.free_disk_bytes(tmp_path / "a" / "b") > 0
    assert probes.free_disk_bytes(None) > 0
