"""Sessions that are saved and resumed, against the same sessions that never were."""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hga_engine import saved_state
from hga_engine.attention import index as index_module
from hga_engine.attention.index import RoutingIndex
from hga_engine.config import CacheConfig, EngineConfig, SessionConfig
from hga_engine.engine import Engine
from hga_engine.errors import KVStoreError, SavedStateError
from hga_engine.opening import LoadedModel, open_engine
from tests.support.saved_sessions import BUDGETS, answers, grow, saved
from tests.support.tiny_engine import (
    LLAMA,
    MOE,
    PARTIAL,
    FakeTokenizer,
    make_engine,
    random_tokens,
    random_weights,
    read,
)

ROUTERS = ["hga", "paper", "dense"]


# Going on


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("tokens", [1, 16, 43, 90])
def test_a_resumed_session_goes_on_like_one_never_saved(
    folder: Path, router: str, budget: int | None, tokens: int
) -> None:
    """By the prefill rule, with a last group that is full or not, whose block is cut anywhere."""
    sessions = []
    for saved_dir in (folder, None):
        engine = make_engine(
            router=replace(PARTIAL, kind=router), host_budget_bytes=budget, saved_dir=saved_dir
        )
        read(engine, random_tokens(tokens))
        engine.save()
        sessions.append(engine)
    sessions[0].close()
    resumed = make_engine(
        router=replace(PARTIAL, kind=router), host_budget_bytes=budget, saved_dir=folder
    )
    assert resumed.num_tokens == tokens
    assert resumed.token_ids == random_tokens(tokens)
    assert answers(resumed) == answers(sessions[1])


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_session_saved_after_every_step_is_the_same(folder: Path, budget: int | None) -> None:
    """With an answer whose last token has no K/V yet, cut and read on, resumed each time."""
    never = make_engine()
    steps: list[Callable[[Engine], object]] = [
        grow,
        answers,
        lambda engine: engine.truncate(60),
        lambda engine: read(engine, random_tokens(33, seed=5)),
        lambda engine: (engine.truncate(27), read(engine, random_tokens(3, seed=6))),
        answers,
    ]
    for step in steps:
        engine = make_engine(saved_dir=folder, host_budget_bytes=budget)
        step(never)
        step(engine)
        engine.save()
        assert engine.token_ids == never.token_ids
        engine.close()
    resumed = make_engine(saved_dir=folder, host_budget_bytes=budget)
    assert resumed.token_ids == never.token_ids
    assert answers(resumed) == answers(never)


def test_a_session_can_be_resumed_with_another_host_budget_and_routing(folder: Path) -> None:
    saved(folder)
    wide = replace(PARTIAL, decode_budget=5)
    for router in (wide, replace(PARTIAL, kind="paper")):
        resumed = make_engine(router=router, saved_dir=folder, host_budget_bytes=3 * 10 * 1024)
        never = grow(make_engine())
        other = make_engine(router=router)
        tiers = replace(never._tiers, index=other._index)
        other._store, other._tiers, other._layers._tiers = tiers.store, tiers, tiers
        other._stored_ids, other._pending = never._stored_ids, never._pending
        other._attention._store = never._store
        for layer in range(LLAMA.num_layers):
            other._index.extend(layer, never._store)
        assert answers(resumed) == answers(other)


def test_an_index_packed_for_another_device_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    plain_load = RoutingIndex.load

    def load(index: RoutingIndex, path: Path, chunks: int) -> None:
        loaded.append(chunks)
        plain_load(index, path, chunks)

    monkeypatch.setattr(RoutingIndex, "load", load)
    saved(folder)
    never = grow(make_engine())
    with monkeypatch.context() as patch:
        patch.setattr(index_module, "packing_for", lambda device: "tokens")
        resumed = make_engine(saved_dir=folder)
        assert answers(resumed) == answers(never)
        resumed.save()
        resumed.close()
        assert loaded == []
        again = make_engine(saved_dir=folder)
        assert again.token_ids == never.token_ids
        again.save()
        assert len(loaded) == 1
        again.close()
    back = make_engine(saved_dir=folder)
    assert answers(back) == answers(never)
    assert len(loaded) == 1


def test_what_was_not_saved_is_not_there(folder: Path) -> None:
    tokens = saved(folder)
    engine = make_engine(saved_dir=folder)
    engine.truncate(20)
    read(engine, random_tokens(50, seed=8))
    engine.close()
    resumed = make_engine(saved_dir=folder)
    assert resumed.token_ids == tokens
    assert answers(resumed) == answers(grow(make_engine()))


def test_an_empty_session_can_be_saved(folder: Path) -> None:
    make_engine(saved_dir=folder).save()
    assert make_engine(saved_dir=folder).token_ids == []
    saved(folder)
    engine = make_engine(saved_dir=folder)
    engine.truncate(0)
    engine.save()
    assert answers(make_engine(saved_dir=folder)) == answers(make_engine())


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = grow(make_engine())
    engine.save()
    engine.check()
    assert list(tmp_path.iterdir()) == []
    assert engine.memory().kv_disk_bytes == 0


# What is on disk


def test_a_turn_writes_only_its_own_pages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[int, int]] = []
    pwrite = os.pwrite

    def record(file: int, data: memoryview, offset: int) -> int:
        written.append((offset // 1024, len(data)))
        return pwrite(file, data, offset)

    engine = make_engine(saved_dir=folder)
    read(engine, random_tokens(75))
    monkeypatch.setattr(os, "pwrite", record)
    engine.save()
    # 18 full groups of 3 layers and 2 heads, each in a page of 2 x 4 x 16 x 8 bytes.
    assert sum(size for _, size in written) == 18 * 3 * 2 * 1024
    assert engine.memory().kv_disk_bytes == 18 * 3 * 2 * 1024
    written.clear()
    read(engine, random_tokens(7))
    engine.save()
    places = sorted(
        page % 64 for page, size in written for page in range(page, page + size // 1024)
    )
    assert places == [18] * 6 + [19] * 6


def test_only_the_owner_can_read_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    fsync = os.fsync

    def look(file: int) -> None:
        modes.extend(stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir())
        fsync(file)

    monkeypatch.setattr(os, "fsync", look)
    old = os.umask(0)
    try:
        saved(folder)
    finally:
        os.umask(old)
    assert set(modes) == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_of_earlier_saves_is_left(folder: Path) -> None:
    saved(folder)
    (folder / "tokens.99.safetensors").write_bytes(b"from a killed process")
    (folder / "state.json.new").write_bytes(b"from a killed process")
    engine = make_engine(saved_dir=folder)
    for _ in range(3):
        read(engine, random_tokens(30))
        engine.save()
    kinds = sorted(path.name.partition(".")[0] for path in folder.iterdir())
    assert kinds == ["index", "pages", "state", "tokens"]


def test_memory_tells_what_is_in_host_memory_and_on_disk(folder: Path) -> None:
    saved(folder)
    pages = 3 * 2 * 1024
    engine = make_engine(saved_dir=folder)
    assert engine.memory().kv_host_bytes == 23 * pages
    assert engine.memory().kv_disk_bytes == 22 * pages
    assert engine.memory().kv_disk_capacity_bytes == 64 * pages
    assert engine.memory().index_bytes == grow(make_engine()).memory().index_bytes
    spilling = make_engine(saved_dir=folder, host_budget_bytes=3 * 10 * 1024)
    assert spilling.memory().kv_host_bytes == pages
    assert spilling.memory().kv_disk_bytes == 22 * pages


# What cannot be resumed


def test_a_state_of_another_model_is_refused(folder: Path) -> None:
    saved(folder)
    engine = make_engine()
    with pytest.raises(SavedStateError, match=r"another model, tiny \(000000000000\)"):
        Engine(
            random_weights(LLAMA),
            engine.tokenizer,
            SessionConfig(PARTIAL, CacheConfig(256, saved_dir=folder)),
            "other",
            "1" * 64,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 512}, "context 256, not 512"),
        ({"router": replace(PARTIAL, group_size=8, trace_bin_tokens=8)}, "group_size 4, not 8"),
        ({"model": replace(LLAMA, num_kv_heads=3)}, "kv_heads 2, not 3"),
        ({"model": replace(MOE, num_layers=2)}, "layers 3, not 2"),
        ({"model": replace(LLAMA, max_positions=64)}, r"rope unscaled, not YaRN x4 \(1\.13863\)"),
    ],
)
def test_a_state_of_another_geometry_is_refused(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    saved(folder)
    with pytest.raises(SavedStateError, match=message):
        make_engine(saved_dir=folder, **changes)


def test_a_state_of_another_type_is_refused(folder: Path) -> None:
    saved(folder)
    tokenizer: object = FakeTokenizer()
    config = SessionConfig(PARTIAL, CacheConfig(256, saved_dir=folder))
    with pytest.raises(SavedStateError, match="dtype float64, not bfloat16"):
        Engine(random_weights(LLAMA), tokenizer, config, "tiny", "0" * 64, torch.bfloat16)


def test_open_engine_resumes(folder: Path) -> None:
    tokenizer: object = FakeTokenizer()
    weights = random_weights(LLAMA, dtype=torch.bfloat16)
    model = LoadedModel(weights, tokenizer, "tiny", "0" * 64)
    config = EngineConfig(cache=CacheConfig(256, saved_dir=folder))
    engine = grow(open_engine(model, config))
    engine.save()
    engine.close()
    never = grow(open_engine(model, replace(config, cache=CacheConfig(256))))
    assert answers(open_engine(model, config)) == answers(never)


# Trouble with the disk


class Fault:
    """Makes the n-th of the calls that change files fail, or counts them."""

    CALLS = ("pwrite", "write", "fsync", "replace", "ftruncate")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done = 0
        self.at: int | None = None
        self.error = errno.ENOSPC
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._faulty(getattr(os, name)))

    def _faulty(self, call: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **options: object) -> object:
            self.done += 1
            if self.done == self.at:
                raise OSError(self.error, os.strerror(self.error))
            return call(*args, **options)

        return run


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_failed_save_keeps_what_was_saved_and_the_session(
    folder: Path, budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call that changes a file fails once; then the session is saved after all."""
    before = saved(folder / "before", budget)
    fault = Fault(monkeypatch)

    def changed(name: str) -> Engine:
        shutil.copytree(folder / "before", folder / name)
        engine = make_engine(saved_dir=folder / name, host_budget_bytes=budget)
        engine.truncate(60)
        read(engine, random_tokens(14, seed=5))
        fault.done = 0
        return engine

    changed("counted").save()
    calls = fault.done
    assert calls > 12
    for point in range(1, calls + 1):
        engine = changed(str(point))
        fault.at, fault.error = point, errno.EROFS if point % 2 else errno.ENOSPC
        with pytest.raises(KVStoreError, match=f"{folder / str(point)}[^\\n]*$"):
            engine.save()
        fault.at = None
        resumed = make_engine(saved_dir=folder / str(point), host_budget_bytes=budget)
        # All of it, or what is left of it once its end is given up, or already the new one.
        assert resumed.token_ids in (before, before[:60], engine.token_ids)
        resumed.check()
        resumed.close()
        engine.save()
        resumed = make_engine(saved_dir=folder / str(point), host_budget_bytes=budget)
        resumed.check()
        assert resumed.token_ids == engine.token_ids
        resumed.close()
        engine.close()
    unsaved = changed("unsaved")
    assert answers(make_engine(saved_dir=folder / "1")) == answers(unsaved)


def test_what_a_failed_flush_may_have_lost_is_written_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    written: list[int] = []
    pwrite = os.pwrite
    pages = 22 * 3 * 2 * 1024
    monkeypatch.setattr(os, "pwrite", lambda *a: written.append(pwrite(*a)) or written[-1])
    engine = grow(make_engine(saved_dir=folder))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        for _ in range(2):
            with pytest.raises(KVStoreError, match="Input/output error"):
                engine.save()
            assert sum(written) == pages
            written.clear()
    engine.save()
    assert sum(written) == pages
    written.clear()
    engine.save()
    assert written == []


def test_a_read_only_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    engine = grow(make_engine(saved_dir=tmp_path / "new"))
    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(KVStoreError, match=r"session cannot be saved in .*new: Permission denied"):
        engine.save()
    monkeypatch.undo()
    assert answers(engine) == answers(grow(make_engine()))


def test_saving_after_an_answer_was_cancelled(folder: Path) -> None:
    """The session is cut where the cancelled prompt began, and is saved as that."""
    import threading

    from hga_engine.config import SamplingParams

    tokens = saved(folder)
    engine = make_engine(saved_dir=folder)
    cancel = threading.Event()
    for event in engine.answer(random_tokens(50, seed=9), SamplingParams(), cancel):
        cancel.set()
        assert event is not None
    assert engine.token_ids == tokens
    engine.save()
    assert answers(make_engine(saved_dir=folder)) == answers(grow(make_engine()))
    assert saved_state.read_info(folder) is not None
