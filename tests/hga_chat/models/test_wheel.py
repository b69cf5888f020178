import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace

import pytest

import hga_chat.models
from hga_chat.models import (
    EMBEDDED_MODEL,
    FetchError,
    ModelMissingError,
    find_model,
    list_models,
    pull_model,
    verify_model,
    wheel,
)
from hga_chat.models.catalogue import CATALOGUE
from hga_chat.models.files import StoredFile
from hga_chat.paths import config_dir, kv_dir, models_dir, sessions_dir
from hga_chat.settings import Settings, load_settings
from hga_engine.errors import EngineError, ModelFileError
from tests.support.wheels import use_as_index, write_wheel

CONTENT = b"GGUF" + bytes(range(256)) * 40
MEMBER = "tiny_model/tiny.gguf"


def stored(name, content):
    return StoredFile(name, len(content), hashlib.sha256(content).hexdigest())


def write_tiny(folder, content=CONTENT, member=MEMBER):
    return write_wheel(folder, "tiny-model", member, content)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels instead of the package index."""
    folder = tmp_path / "index"
    use_as_index(folder, monkeypatch)
    return folder


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A small model with one adapter in the catalogue, in a folder of its own."""
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "adapter.safetensors").write_bytes(b"adapter")
    model = wheel.WheelModel(
        name="tiny",
        requirement="tiny-model==1.0",
        member=MEMBER,
        gguf=stored("tiny.gguf", CONTENT),
        adapters=(stored("adapter.safetensors", b"adapter"),),
        rope_base=1e6,
        max_positions=4096,
    )
    monkeypatch.setattr(hga_chat.models, "CATALOGUE", {"tiny": model})
    monkeypatch.setattr(wheel, "_assets_dir", lambda name: assets)
    monkeypatch.setenv("HGA_CHAT_MODELS_DIR", str(tmp_path / "models"))
    return model


def pull(notes=None):
    return pull_model("tiny", (notes if notes is not None else []).append)


def left(model):
    return sorted(path.name for path in model.directory.iterdir())


def test_pull_fetches_checks_and_stores(tiny, index):
    write_tiny(index)
    with pytest.raises(ModelMissingError, match="hga-chat models pull tiny"):
        find_model("tiny")
    assert list_models()[0].directory is None
    notes = []
    files = pull(notes)
    assert tiny.path.read_bytes() == CONTENT
    assert left(tiny) == ["tiny.gguf"]
    assert len(notes) == 2
    assert files == find_model("tiny")
    assert (files.name, files.gguf, files.directory) == ("tiny", tiny.path, None)
    assert (files.rope_base, files.max_positions) == (1e6, 4096)
    assert [path.read_bytes() for path in files.adapters] == [b"adapter"]
    listed = list_models()[0]
    assert (listed.directory, listed.size_bytes) == (tiny.directory, len(CONTENT) + 7)
    verified = verify_model("tiny")
    assert [file.sha256 for file in verified] == [tiny.gguf.sha256, tiny.adapters[0].sha256]


def test_a_complete_model_is_not_fetched_again(tiny, index):
    write_tiny(index)
    pull()
    before = tiny.path.stat()
    (index / "tiny_model-1.0-py3-none-any.whl").unlink()
    notes = []
    pull(notes)
    assert tiny.path.stat().st_mtime_ns == before.st_mtime_ns
    assert "is complete" in notes[0]


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT[:-1] + b"!"])
def test_a_damaged_model_is_detected_and_fetched_again(tiny, index, damage):
    write_tiny(index)
    pull()
    tiny.path.write_bytes(damage)
    with pytest.raises(ModelFileError, match=r"tiny\.gguf: is damaged .*pull"):
        verify_model("tiny")
    notes = []
    pull(notes)
    assert "damaged" in notes[0]
    assert tiny.path.read_bytes() == CONTENT


def test_find_detects_a_truncated_file(tiny, index):
    write_tiny(index)
    pull()
    tiny.path.write_bytes(CONTENT[:100])
    with pytest.raises(ModelFileError, match=r"damaged \(100 bytes instead of 10,244\)"):
        find_model("tiny")


def test_damaged_adapters(tiny, index, tmp_path):
    write_tiny(index)
    pull()
    (tmp_path / "assets" / "adapter.safetensors").write_bytes(b"adaptor")
    with pytest.raises(ModelFileError, match=r"adapter\.safetensors: is damaged"):
        verify_model("tiny")
    with pytest.raises(ModelFileError, match=r"adapter\.safetensors: is damaged"):
        pull()


@pytest.mark.parametrize(
    ("content", "member", "words"),
    [
        (CONTENT[::-1], MEMBER, r"tiny\.gguf: is damaged \(its SHA-256"),
        (CONTENT * 2, MEMBER, "not the expected file"),
        (CONTENT, "elsewhere.gguf", "the download is damaged"),
    ],
)
def test_another_file_in_the_wheel_is_refused(tiny, index, content, member, words):
    write_tiny(index, content, member)
    with pytest.raises(ModelFileError, match=words):
        pull()
    assert left(tiny) == []


def test_a_failed_fetch_keeps_the_old_files(tiny, index):
    tiny.directory.mkdir(parents=True)
    tiny.path.write_bytes(b"damaged")
    with pytest.raises(FetchError):
        pull()
    assert left(tiny) == ["tiny.gguf"]
    assert tiny.path.read_bytes() == b"damaged"


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 250
    return text


def test_not_in_the_index(tiny, index):
    with pytest.raises(FetchError, match="No matching distribution") as caught:
        pull()
    one_line(caught)


def test_no_network(tiny, monkeypatch):
    """Nothing listens on port 9 of this machine."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(FetchError, match="network") as caught:
        pull()
    one_line(caught)


def test_no_pip(tiny, tmp_path, monkeypatch):
    command = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")]
    subprocess.run(command, check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(FetchError, match=r"bare/bin/python -m ensurepip") as caught:
        pull()
    one_line(caught)


def test_no_room_on_the_disk(tiny, index, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 5000))
    with pytest.raises(FetchError, match="There is no room for tiny in") as caught:
        pull()
    one_line(caught)


def test_the_disk_fills_up_during_a_fetch(tiny, index, monkeypatch):
    write_tiny(index)

    def full(source, target, length):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(FetchError, match="There is no room for tiny in"):
        pull()
    assert left(tiny) == []


def test_a_folder_that_cannot_be_made(tiny, tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(FetchError, match="cannot be written") as caught:
        pull()
    one_line(caught)


def test_names_and_directories(tiny, tmp_path, monkeypatch):
    for use in (find_model, verify_model, lambda name: pull_model(name, print)):
        with pytest.raises(ModelMissingError, match=r"'other'.*tiny"):
            use("other")
    directory = tmp_path / "my-model"
    directory.mkdir()
    with pytest.raises(ModelFileError, match=r"my-model: is not a model directory"):
        find_model(str(directory))
    (directory / "config.json").write_text("{}")
    monkeypatch.chdir(directory)
    for name in (str(directory), "."):
        files = find_model(name)
        assert (files.name, files.directory.resolve()) == ("my-model", directory)
        assert (files.gguf, files.adapters, files.rope_base) == (None, (), None)


def test_errors_are_readable():
    assert issubclass(FetchError, EngineError)
    assert issubclass(ModelMissingError, EngineError)


def test_shipped_adapters_are_those_of_the_catalogue():
    model = CATALOGUE[EMBEDDED_MODEL]
    assert isinstance(model, wheel.WheelModel)
    for path, adapter in zip(model.files().adapters, model.adapters, strict=True):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == adapter.sha256
        assert path.stat().st_size == adapter.size_bytes


def test_missing_adapters_are_named(monkeypatch):
    model = CATALOGUE[EMBEDDED_MODEL]
    assert isinstance(model, wheel.WheelModel)
    unknown = dataclasses.replace(model, name="unknown")
    with pytest.raises(ModelFileError, match="adapters of unknown are missing"):
        unknown.files()


def test_directories_follow_the_environment(tmp_path, monkeypatch):
    if sys.platform != "linux":
        pytest.skip("XDG variables count on Linux")
    for name in [name for name in os.environ if name.startswith("HGA_CHAT_")]:
        monkeypatch.delenv(name)
    for kind in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    assert config_dir() == tmp_path / "CONFIG" / "hga-chat"
    assert sessions_dir() == tmp_path / "DATA" / "hga-chat" / "sessions"
    assert models_dir() == tmp_path / "CACHE" / "hga-chat" / "models"
    assert kv_dir() == tmp_path / "CACHE" / "hga-chat" / "kv"
    monkeypatch.setenv("HGA_CHAT_MODELS_DIR", "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models_dir() == tmp_path / "elsewhere"
    # The variable is not a setting, and does not count as an unknown one.
    assert load_settings({}, os.environ, tmp_path / "none.toml") == Settings()


def test_neither_torch_nor_numpy_is_imported():
    code = "import sys, hga_chat.models; sys.exit(bool({'torch', 'numpy'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.weights
def test_the_embedded_model_is_complete(embedded_model):
    verified = verify_model(EMBEDDED_MODEL)
    sizes = {model.name: model.size_bytes for model in list_models()}
    total = 98_362_432 + 10_172_640
    assert sum(file.size_bytes for file in verified) == sizes[EMBEDDED_MODEL] == total
    assert replace(find_model(EMBEDDED_MODEL), cache_dir=None) == embedded_model
