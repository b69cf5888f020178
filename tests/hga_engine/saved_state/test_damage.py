"""Damaged, cut and missing files: noticed and named, or without effect."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hga_engine.engine import Engine
from hga_engine.errors import SavedStateError
from hga_engine.saved_state import state
from tests.support.saved_sessions import BUDGETS, grow, saved
from tests.support.tiny_engine import ask, make_engine, random_tokens

KINDS = ["state", "pages", "tokens", "index"]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "session"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "_INDEX_GROWTH", 2)
        saved(folder)
    return folder


def file_of(folder: Path, kind: str) -> Path:
    return next(folder.glob(f"{kind}.*"))


def says(engine: Engine) -> list[int]:
    return ask(engine, random_tokens(5, seed=2), 2).tokens + engine.token_ids


SAID = says(grow(make_engine()))


def is_noticed_or_harmless(folder: Path, budget: int | None) -> bool:
    """Opens the session and asks; whether damage was noticed. Any other end is an error."""
    message = None
    try:
        engine = make_engine(saved_dir=folder, host_budget_bytes=budget)
        try:
            assert says(engine) == SAID
        finally:
            engine.close()
    except SavedStateError as error:
        message = str(error)
    assert message is None or (str(folder) in message and "\n" not in message)
    return message is not None


def with_file_changed(
    path: Path, change: Callable[[bytes], bytes], use: Callable[[], bool]
) -> bool:
    """Run ``use`` while a file holds something else."""
    before = path.read_bytes()
    try:
        path.write_bytes(change(before))
        return use()
    finally:
        path.write_bytes(before)


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    place=st.floats(0, 1, exclude_max=True),
    flip=st.integers(1, 255),
    budget=st.sampled_from([None, 3 * 10 * 1024]),
)
@example(kind="pages", place=0.0, flip=1, budget=None)
@example(kind="pages", place=0.0, flip=1, budget=3 * 10 * 1024)
def test_a_changed_byte_is_noticed_or_has_no_effect(
    session: Path, kind: str, place: float, flip: int, budget: int | None
) -> None:
    path = file_of(session, kind)
    offset = int(place * path.stat().st_size)

    def change(data: bytes) -> bytes:
        return data[:offset] + bytes([data[offset] ^ flip]) + data[offset + 1 :]

    noticed = with_file_changed(path, change, lambda: is_noticed_or_harmless(session, budget))
    if kind == "pages":
        # 22 of 64 groups are full.
        assert noticed == (offset // 1024 % 64 < 22)
    elif kind != "state":
        assert noticed


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_file_that_was_cut_short_is_named(
    session: Path, kind: str, kept: int, budget: int | None
) -> None:
    path = file_of(session, kind)
    assert with_file_changed(
        path, lambda data: data[:kept], lambda: is_noticed_or_harmless(session, budget)
    )


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_missing_file_is_named(session: Path, kind: str) -> None:
    path = file_of(session, kind)
    away = path.rename(path.with_name("away"))
    try:
        with pytest.raises(SavedStateError, match=rf"{re.escape(str(path))}: cannot be read"):
            make_engine(saved_dir=session).check()
    finally:
        away.rename(path)


def test_the_damaged_page_is_named_and_nothing_is_answered_from_it(session: Path) -> None:
    path = file_of(session, "pages")
    # Layer 1, head 1, group 20 in pages of 1024 bytes, 64 groups a head and 2 heads a layer.
    offset = ((1 * 2 + 1) * 64 + 20) * 1024 + 5

    def change(data: bytes) -> bytes:
        return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]

    def use() -> bool:
        engine = make_engine(saved_dir=session)
        for action in (engine.check, engine.save, lambda: says(engine)):
            with pytest.raises(SavedStateError, match="layer 1, KV head 1, group 20 is damaged"):
                action()
        return True

    before = [(each, each.stat().st_mtime_ns) for each in session.iterdir() if each != path]
    assert with_file_changed(path, change, use)
    assert before == [(each, each.stat().st_mtime_ns) for each in session.iterdir() if each != path]
