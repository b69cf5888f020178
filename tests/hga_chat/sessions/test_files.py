import json
import os
import stat

import pytest

from hga_chat.sessions.files import disk_bytes, read_sealed, write_sealed
from hga_chat.sessions.types import SessionError

CONTENT = {"text": "naïve\r\n\x1b[0m \u2028 \udcff", "numbers": [1, 0.1, None, True], "none": {}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "turns.json"


def test_content_is_loaded_unchanged(path):
    write_sealed(path, CONTENT)
    assert read_sealed(path) == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["turns.json"]


def test_any_changed_byte_is_detected_or_harmless(path):
    content = {"question": "Où?", "tokens": [17, 4]}
    write_sealed(path, content)
    whole = path.read_bytes()
    found = []
    for place in range(len(whole)):
        for flip in (0x01, 0x20):
            changed = bytes([whole[place] ^ flip])
            path.write_bytes(whole[:place] + changed + whole[place + 1 :])
            try:
                found.append(read_sealed(path))
            except SessionError:
                found.append(None)
    assert [value for value in found if value not in (None, content)] == []
    assert found.count(None) > len(whole)


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
def test_a_truncated_file_is_damaged(path, keep):
    write_sealed(path, CONTENT)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SessionError, match=r"turns\.json: is damaged"):
        read_sealed(path)


def test_a_file_of_a_later_version_says_so(path):
    write_sealed(path, CONTENT)
    sealed = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    path.write_text(json.dumps({**sealed, "version": 2}))
    with pytest.raises(SessionError, match="has format 2"):
        read_sealed(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(SessionError, match=r"turns\.json: cannot be read"):
        read_sealed(path)


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    write_sealed(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/turns\.json'"):
        write_sealed(path, "new")
    monkeypatch.undo()
    assert [file.name for file in path.parent.iterdir()] == ["turns.json"]
    assert read_sealed(path) == "old"
    write_sealed(path, "newer")
    assert read_sealed(path) == "newer"


def test_disk_bytes_do_not_count_holes(tmp_path):
    (tmp_path / "inner").mkdir()
    with (tmp_path / "inner" / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "full").write_bytes(os.urandom(100_000))
    assert 100_000 <= disk_bytes(tmp_path) < 1 << 20
    assert disk_bytes(tmp_path / "none") == 0
