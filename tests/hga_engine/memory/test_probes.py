"""Probes of memory and disk against the system, and against a fake one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hga_engine.memory import probes

GIB = 2**30


def test_resident_memory_follows_an_allocation() -> None:
    # In a separate process, where nothing else allocates.
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
    """A fake /proc and /sys/fs/cgroup: 3 GiB available, and a group inside one with a limit."""
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
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2**20, "SC_PAGE_SIZE": 2**13}.get)
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


def test_memory_is_measured_without_proc(system: Path) -> None:
    for path in ("proc/self/cgroup", "proc/meminfo"):
        (system / path).unlink()
    assert probes.available_memory_bytes() == probes.total_memory_bytes() == 8 * GIB
    assert probes.resident_bytes() == probes.peak_resident_bytes() > 0


def test_free_space_is_measured_for_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert probes.free_disk_bytes(tmp_path / "a" / "b") > 0
    assert probes.free_disk_bytes(None) > 0


def test_no_device_memory_is_in_use_without_a_gpu() -> None:
    assert probes.device_memory(torch.device("cpu")).used_bytes == 0
