"""Compiling the kernels: when it happens, where the library is cached, how failures are handled."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hga_kernels
from hga_kernels import reference
from hga_kernels.cpu import build, library


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kernels"
    monkeypatch.setenv("HGA_KERNELS_CACHE", str(folder))
    return folder


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record the compiler's command lines; each run writes an empty library."""
    seen: list[list[str]] = []

    def run(command: list[str], **kwargs: Any) -> "subprocess.CompletedProcess[str]":
        seen.append(command)
        Path(command[command.index("-o") + 1]).touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return seen


@pytest.fixture
def unloaded() -> Iterator[None]:
    """Forget the loaded library, before and after the test."""
    library._load.cache_clear()
    yield
    library._load.cache_clear()


def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "ziglang" else find(name, *rest),
    )


def test_the_cached_library_is_used_again(cache: Path, commands: list[list[str]]) -> None:
    first = build.library_path()
    assert first.parent == cache
    assert build.library_path() == first
    assert len(commands) == 1
    assert list(cache.iterdir()) == [first]


def test_each_cpu_has_its_own_library(cache: Path, commands: list[list[str]]) -> None:
    assert build.library_path() != build.library_path("x86_64_v3")
    assert ["-mcpu=native" in commands[0], "-mcpu=x86_64_v3" in commands[1]] == [True, True]


def test_changed_sources_are_compiled_again(
    cache: Path, commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "one.c").write_text("int one(void) { return 1; }")
    (sources / "one.h").write_text("#define ONE 1")
    monkeypatch.setattr(build, "_SOURCES", sources)
    paths = [build.library_path()]
    (sources / "one.c").write_text("int one(void) { return 2; }")
    paths.append(build.library_path())
    (sources / "one.h").write_text("#define ONE 2")
    paths.append(build.library_path())
    assert len(set(paths)) == len(commands) == 3


@pytest.mark.usefixtures("cache")
def test_the_error_quotes_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong.c").write_text("int wrong(void) { return undeclared; }")
    monkeypatch.setattr(build, "_SOURCES", tmp_path)
    with pytest.raises(build.BuildError, match=r"wrong\.c.*undeclared"):
        build.library_path()
    assert list((tmp_path / "kernels").iterdir()) == []


@pytest.mark.usefixtures("cache")
def test_a_hanging_compiler_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **kwargs: Any) -> None:
        raise subprocess.TimeoutExpired(command, kwargs["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(build.BuildError, match="timed out"):
        build.library_path()


def computes_in_torch() -> bool:
    """Return whether there is no library and all kernels give exactly the reference's results."""
    inputs = torch.randn(3, 32).bfloat16()
    weight = torch.randn(8, 32).bfloat16()
    keys, centres = torch.randn(1, 64, 32).bfloat16(), torch.randn(1, 1, 32).bfloat16()
    pages = torch.zeros(1, 1, 1, dtype=torch.int32)
    query, pool = torch.randn(1, 1, 1, 32).bfloat16(), torch.randn(1, 2, 4, 32).bfloat16()
    position = torch.tensor([[3]])
    codes, scales = hga_kernels.encode_tokens(keys, centres)
    expected_codes, expected_scales = reference.encode_tokens(keys, centres)
    out, _ = hga_kernels.attend_pages(query, position, pages, pages, pool, 1.0)
    pairs = [
        (hga_kernels.linear(inputs, weight), reference.linear(inputs, weight)),
        (codes, expected_codes),
        (scales, expected_scales),
        (out, reference.attend_pages(query, position, pages, pages, pool, 1.0)[0]),
    ]
    return not library.available() and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.usefixtures("cache", "unloaded")
def test_without_a_compiler_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    no_compiler(monkeypatch)
    assert computes_in_torch()
    status = hga_kernels.status()["cpu"]
    assert status == "plain torch (the ziglang package is not installed)"


@pytest.mark.usefixtures("unloaded")
def test_without_a_cache_torch_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file where a folder should be, because root may write into any folder.
    (tmp_path / "file").touch()
    monkeypatch.setenv("HGA_KERNELS_CACHE", str(tmp_path / "file" / "kernels"))
    assert computes_in_torch()
    status = hga_kernels.status()["cpu"]
    assert status.startswith("plain torch (")
    assert str(tmp_path / "file") in status


@pytest.mark.usefixtures("unloaded")
def test_a_damaged_library_is_not_loaded(cache: Path) -> None:
    cache.mkdir()
    path = cache / "library"
    path.write_bytes(b"not a library")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "library_path", lambda: path)
        assert computes_in_torch()
        assert "library" in hga_kernels.status()["cpu"]


def test_importing_compiles_nothing(cache: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import hga_kernels"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert not cache.exists()


@pytest.mark.usefixtures("unloaded")
def test_status_says_that_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HGA_KERNELS_CACHE", raising=False)
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("needs the ziglang package")
    assert hga_kernels.status() == {"cpu": "compiled"}
    assert library.available()


@pytest.mark.usefixtures("cache", "unloaded")
def test_compiling_is_announced_before_it_happens_and_only_then(commands: list[list[str]]) -> None:
    announced: list[int] = []
    for _ in range(2):
        hga_kernels.compile_for_cpu(lambda: announced.append(len(commands)))
        library._load.cache_clear()
    assert announced == [0]
    assert len(commands) == 1


@pytest.mark.usefixtures("cache", "unloaded")
def test_without_a_compiler_none_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    no_compiler(monkeypatch)
    announced: list[int] = []
    hga_kernels.compile_for_cpu(lambda: announced.append(1))
    assert announced == []
