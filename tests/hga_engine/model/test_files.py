import dataclasses
import os

import pytest

from hga_engine.errors import ModelFileError
from hga_engine.model import files as model_files
from hga_engine.model.files import ModelFiles, fingerprint


@pytest.fixture
def directory(tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.json", "notes.txt"):
        (tmp_path / name).write_text(f"this is {name}")
    return tmp_path


def test_every_change_to_the_model_changes_the_fingerprint(directory, tmp_path_factory):
    adapter = tmp_path_factory.mktemp("adapter") / "a.safetensors"
    adapter.write_text("adapter")
    files = ModelFiles("test", directory, None, (adapter,), 1e6, 512)
    seen = {fingerprint(files)}
    for change in ({"adapters": ()}, {"rope_base": 1e5}, {"max_positions": 5}):
        seen.add(fingerprint(dataclasses.replace(files, **change)))
    for path in (directory / "model.safetensors", directory / "config.json", adapter):
        path.write_text(path.read_text()[:-1] + "!")
        seen.add(fingerprint(files))
    assert len(seen) == 7
    assert all(len(digest) == 64 for digest in seen)


def test_unchanged_files_are_hashed_once(directory, monkeypatch):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        os.utime(directory / name, (1e9, 1e9))
    files = ModelFiles("test", directory, None)
    before = fingerprint(files)
    with monkeypatch.context() as patch:
        patch.setattr(model_files, "_offsets", None)
        assert fingerprint(files) == before
    (directory / "config.json").write_text("THIS is config.json")
    assert fingerprint(files) != before


def test_other_files_leave_the_fingerprint(directory):
    before = fingerprint(ModelFiles("one", directory, None))
    (directory / "notes.txt").write_text("other notes")
    assert fingerprint(ModelFiles("two", directory, None)) == before


def test_large_files_are_sampled(directory, monkeypatch):
    monkeypatch.setattr(model_files, "_WHOLE_FILE_BYTES", 100)
    monkeypatch.setattr(model_files, "_BLOCK", 10)
    path = directory / "model.safetensors"
    files = ModelFiles("test", directory, None)
    data = bytearray(2000)
    path.write_bytes(data)
    seen = {fingerprint(files)}
    for changed in (0, 645, 1999):
        path.write_bytes(data[:changed] + b"x" + data[changed + 1 :])
        seen.add(fingerprint(files))
    path.write_bytes(data + b"x")
    seen.add(fingerprint(files))
    assert len(seen) == 5


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ModelFileError, match="does not hold a model"):
        fingerprint(ModelFiles("test", tmp_path, None))
    with pytest.raises(ModelFileError, match=r"gone\.gguf: cannot be read"):
        fingerprint(ModelFiles("test", None, tmp_path / "gone.gguf"))


def test_a_model_is_a_directory_or_a_gguf_file(tmp_path):
    with pytest.raises(ValueError, match="either"):
        ModelFiles("test", None, None)
    with pytest.raises(ValueError, match="either"):
        ModelFiles("test", tmp_path, tmp_path / "model.gguf")
