"""Copies of the beginning of a saved session."""

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from hga_engine.errors import KVStoreError, SavedStateError
from hga_engine.saved_state import fork, read_info
from tests.support.saved_sessions import answers, grow, saved
from tests.support.tiny_engine import LLAMA, make_engine


@pytest.mark.parametrize(
    ("tokens", "in_kernel"),
    [(0, True), (3, True), (40, False), (86, True), (88, False), (89, True), (90, True)],
)
def test_a_copy_goes_on_like_the_session_cut_there(
    folder: Path, tmp_path: Path, tokens: int, in_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    saved(folder)
    if not in_kernel:
        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    fork(folder, tmp_path / "copy", tokens)
    copy = make_engine(saved_dir=tmp_path / "copy")
    cut = grow(make_engine())
    cut.truncate(tokens)
    assert copy.token_ids == cut.token_ids
    assert answers(copy) == answers(cut)
    # Both can be saved again, each for itself.
    copy.save()
    assert make_engine(saved_dir=tmp_path / "copy").token_ids == cut.token_ids
    whole = make_engine(saved_dir=folder)
    whole.check()
    assert whole.num_tokens == 90


@pytest.mark.parametrize("context", [90, 256, 300, 1000])
@pytest.mark.parametrize("tokens", [50, 90])
def test_a_copy_with_another_context_goes_on_like_a_session_of_it(
    folder: Path, tmp_path: Path, context: int, tokens: int
) -> None:
    model = replace(LLAMA, max_positions=1000)
    original = grow(make_engine(model, saved_dir=folder))
    original.save()
    original.close()
    fork(folder, tmp_path / "copy", tokens, context)
    copy = make_engine(model, saved_dir=tmp_path / "copy", context=context)
    cut = grow(make_engine(model, context=max(context, 200)))
    cut.truncate(tokens)
    assert copy.token_ids == cut.token_ids
    if context > 200:
        assert answers(copy) == answers(cut)
        copy.save()
        copy.close()
        again = make_engine(model, saved_dir=tmp_path / "copy", context=context)
        again.check()
        assert again.token_ids == cut.token_ids


def test_a_copy_is_not_opened_with_another_scaling_of_rope(folder: Path, tmp_path: Path) -> None:
    saved(folder)
    fork(folder, tmp_path / "copy", 90, 512)
    with pytest.raises(SavedStateError, match="rope unscaled, not YaRN x2"):
        make_engine(saved_dir=tmp_path / "copy", context=512)
    with pytest.raises(ValueError, match="a context of 80 tokens does not hold 90"):
        fork(folder, tmp_path / "other", 90, 80)


def test_a_copy_belongs_to_its_owner_alone(folder: Path, tmp_path: Path) -> None:
    saved(folder)
    fork(folder, tmp_path / "copy", 50)
    copy = tmp_path / "copy"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in copy.iterdir()} == {0o600}
    info, original = read_info(copy), read_info(folder)
    assert info is not None
    assert original is not None
    assert info.tokens == 50
    assert (info.fingerprint, info.routing) == (original.fingerprint, original.routing)


def test_what_cannot_be_copied_is_reported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SavedStateError, match="there is no saved state"):
        fork(folder, tmp_path / "copy", 0)
    saved(folder)
    with pytest.raises(ValueError, match="holds 90 tokens, not 91"):
        fork(folder, tmp_path / "copy", 91)
    with pytest.raises(SavedStateError, match="holds a saved state already"):
        fork(folder, folder, 10)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("kind", ["tokens", "pages", "index"])
def test_a_copy_of_a_damaged_session_is_refused(folder: Path, tmp_path: Path, kind: str) -> None:
    saved(folder)
    path = next(folder.glob(f"{kind}.*"))
    data = bytearray(path.read_bytes())
    # The page of group 12, which is open in the copy.
    data[12 * 1024 if kind == "pages" else -1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SavedStateError, match=rf"{path.name}: is damaged"):
        fork(folder, tmp_path / "copy", 50)
    assert list((tmp_path / "copy").glob("*")) == []


@pytest.mark.parametrize("call", ["copy_file_range", "fsync", "replace", "write", "ftruncate"])
def test_a_copy_that_cannot_be_written_leaves_nothing(
    folder: Path, tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    saved(folder)
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(KVStoreError, match=r"The session cannot be copied in .*copy:"):
        fork(folder, tmp_path / "copy", 50)
    assert list((tmp_path / "copy").iterdir()) == []
