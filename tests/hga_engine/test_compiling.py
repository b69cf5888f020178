"""Compiling kernels beforehand: a session that needs them all, once for each kind of session."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hga_engine import compiling
from hga_engine.config import CacheConfig, EngineConfig, SamplingParams, SessionConfig
from hga_engine.errors import OutOfMemoryError
from hga_engine.opening import LoadedModel
from tests.support.tiny_engine import LLAMA, FakeTokenizer, random_weights

if torch.cuda.is_available():
    pytest.skip("kernels are compiled here", allow_module_level=True)
knobs = pytest.importorskip("triton.knobs")

CONFIG = EngineConfig(cache=CacheConfig(1024))
WEIGHTS = random_weights(replace(LLAMA, num_layers=5), 0, torch.bfloat16)
TOKENIZER: Any = FakeTokenizer()
MODEL = LoadedModel(WEIGHTS, TOKENIZER, "tiny", "0" * 64)


class Rehearsed:
    """In place of the engine: what was done with it, where a read compiles three kernels."""

    made: list["Rehearsed"]

    def __init__(self, weights: Any, tokenizer: Any, config: SessionConfig, *_: Any) -> None:
        self.model_config = weights.config
        self.layers = len(weights.layers)
        self.config = config
        self.read_tokens = self.num_tokens = 0
        self.asked: list[int] = []
        self.is_closed = False
        self.made.append(self)

    def prefill(self, token_ids: list[int]) -> Iterator[None]:
        self.read_tokens = self.num_tokens = len(token_ids)
        for is_kept in (False, True, False, False):
            assert knobs.compilation.listener is not None
            knobs.compilation.listener(
                src=None, metadata={}, metadata_group={}, times=None, cache_hit=is_kept
            )
        yield None

    def answer(self, prompt_ids: list[int], sampling: SamplingParams) -> Iterator[None]:
        self.asked.append(len(prompt_ids))
        self.num_tokens += len(prompt_ids) + sampling.max_new_tokens
        assert self.num_tokens <= self.config.cache.context
        yield None

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Rehearsed]:
    """The rehearsals on a GPU whose cache of kernels is empty."""
    monkeypatch.setattr(Rehearsed, "made", [], raising=False)
    monkeypatch.setattr(compiling, "Engine", Rehearsed)
    monkeypatch.setattr(compiling, "is_gpu", lambda device: True)
    monkeypatch.setattr(compiling, "plan_session", lambda *_: None)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    return Rehearsed.made


def told() -> tuple[list[tuple[str, float]], Callable[[str, float], None]]:
    reports: list[tuple[str, float]] = []
    return reports, lambda what, fraction: reports.append((what, fraction))


def test_kernels_are_compiled_once_and_told_of(made: list[Rehearsed]) -> None:
    reports, tell = told()
    compiling.compile_kernels(MODEL, CONFIG, tell)
    assert [what for what, _ in reports] == ["Compiling kernels for this GPU, once"] * 3
    assert 0 < reports[0][1] < reports[2][1] < 1
    [rehearsed] = made
    assert rehearsed.layers == rehearsed.model_config.num_layers == 3
    assert rehearsed.read_tokens == 960
    assert rehearsed.asked[:2] == [2, 5]
    assert rehearsed.is_closed
    assert knobs.compilation.listener is None
    compiling.compile_kernels(MODEL, CONFIG, tell)
    assert len(made) == 1


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, cache=CacheConfig(2048)),
        replace(CONFIG, router="paper"),
    ],
)
def test_another_kind_of_session_takes_others(made: list[Rehearsed], config: EngineConfig) -> None:
    compiling.compile_kernels(MODEL, CONFIG)
    compiling.compile_kernels(MODEL, config)
    assert len(made) == 2


def test_the_saved_session_is_left_alone(made: list[Rehearsed], tmp_path: Path) -> None:
    compiling.compile_kernels(MODEL, replace(CONFIG, cache=CacheConfig(1024, saved_dir=tmp_path)))
    assert made[0].config.cache.saved_dir is None


def test_what_is_stopped_is_gone_on_with(made: list[Rehearsed]) -> None:
    def stop(what: str, fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compiling.compile_kernels(MODEL, CONFIG, stop)
    assert made[0].is_closed
    assert knobs.compilation.listener is None
    compiling.compile_kernels(MODEL, CONFIG)
    assert len(made) == 2


def test_what_does_not_fit_is_not_compiled_for(
    made: list[Rehearsed], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OutOfMemoryError("too little")

    monkeypatch.setattr(compiling, "plan_session", refuse)
    with pytest.raises(OutOfMemoryError):
        compiling.compile_kernels(MODEL, CONFIG)
    assert made == []


def test_a_cpu_has_nothing_to_compile(made: list[Rehearsed], monkeypatch: Any) -> None:
    monkeypatch.undo()
    compiling.compile_kernels(MODEL, CONFIG)
    assert made == []


def test_the_status_says_whether_any_are_compiled(made: list[Rehearsed]) -> None:
    from hga_kernels.gpu.compiling import status

    assert "once" in status()
    compiling.compile_kernels(MODEL, CONFIG)
    assert status() == "compiled"
