"""Fetches from a local stand-in of the Hugging Face Hub: complete, interrupted, wrong, refused."""

import hashlib
import json
import os
import random
import re
import shutil
from collections import namedtuple
from dataclasses import replace

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
import torch

import hga_chat.models
from hga_chat.models import (
    FetchError,
    ModelMissingError,
    find_model,
    found_models,
    geometry_of,
    hub,
    list_models,
    pull_model,
    verify_model,
)
from hga_chat.models.catalogue import CATALOGUE, FACTS
from hga_chat.models.hub import HubModel
from hga_engine.errors import ModelFileError
from hga_engine.memory import ledger
from hga_engine.model.files import ModelFiles, fingerprint
from hga_engine.model.load import load_model
from tests.support.stand_in_hub import COMMIT, StandInHub
from tests.support.tiny_model import write_tiny_model

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
FILES = {
    "README.md": b"not fetched",
    ".gitattributes": b"not fetched",
    "original/model.safetensors": b"not fetched",
    "LICENSE": b"Apache",
    "config.json": b'{"model_type": "qwen3"}',
    "tokenizer.json": b"{}" * 3000,
    FIRST: random.Random(1).randbytes(20_000),
    SECOND: random.Random(2).randbytes(30_000),
}
LARGE = ("tokenizer.json", FIRST, SECOND)
WANTED = ["LICENSE", "config.json", FIRST, SECOND, "tokenizer.json"]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A small model in the catalogue."""
    model = HubModel("tiny", "someone/tiny", about_bytes=50_000, needs="a lot")
    monkeypatch.setattr(hga_chat.models, "CATALOGUE", {"tiny": model})
    monkeypatch.setenv("HGA_CHAT_MODELS_DIR", str(tmp_path / "models"))
    return model


@pytest.fixture
def connect(monkeypatch):
    """Return a function that makes a server the hub."""
    for name in [name for name in os.environ if name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    # The library waits between attempts.
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    huggingface_hub.close_session()  # its client remembers proxies
    yield lambda url: monkeypatch.setenv("HF_ENDPOINT", url)
    huggingface_hub.close_session()


@pytest.fixture
def server(connect):
    with StandInHub(dict(FILES), LARGE) as server:
        connect(server.url)
        yield server


def pull(notes=None, progress=lambda label, share: None):
    return pull_model("tiny", (notes if notes is not None else []).append, progress)


def left(model):
    return sorted(path.name for path in model.directory.iterdir() if path.name != ".lock")


def stopping_at(count):
    """Return a progress callback that interrupts after ``count`` fetched bytes."""

    def progress(label, share):
        if label.startswith("Fetching") and share * sum(map(len_of, WANTED)) >= count:
            raise KeyboardInterrupt

    return progress


def len_of(name):
    return len(FILES[name])


def people(error):
    text = str(error.value)
    assert text.count("\n") <= 1
    assert len(text) < 400
    return text


def test_pull_fetches_checks_and_stores(tiny, server):
    with pytest.raises(
        ModelMissingError, match="tiny is not downloaded; run 'hga-chat models pull"
    ):
        find_model("tiny")
    assert list_models()[0].directory is None
    assert list_models()[0].size_bytes == 50_000
    notes, shares = [], []
    files = pull(notes, lambda label, share: label.startswith("Fetching") and shares.append(share))
    assert left(tiny) == sorted([*WANTED, "fetched.record"])
    for name in WANTED:
        assert (tiny.directory / name).read_bytes() == FILES[name]
    assert files == find_model("tiny")
    assert (files.name, files.directory) == ("tiny", tiny.directory)
    assert len(notes) == 2
    assert f"{server.url}/someone/tiny" in notes[0]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) > 40
    listed = list_models()[0]
    assert listed.directory == tiny.directory
    assert listed.size_bytes == sum(map(len_of, WANTED))
    verified = {file.path.name: file.sha256 for file in verify_model("tiny")}
    assert verified == {name: hashlib.sha256(FILES[name]).hexdigest() for name in WANTED}


def test_every_file_is_from_the_listed_commit(tiny, server):
    pull()
    paths = [path for path, _ in server.requests]
    assert paths.pop(0) == "/api/models/someone/tiny/revision/main"
    assert all("/cdn/" in path or f"/resolve/{COMMIT}/" in path for path in paths)
    assert json.loads((tiny.directory / "fetched.record").read_text())["commit"] == COMMIT


def test_a_complete_model_is_not_requested_again(tiny, server):
    pull()
    server.requests.clear()
    notes = []
    pull(notes)
    assert server.requests == []
    assert "is complete" in notes[0]


def test_the_record_is_not_part_of_the_model(tiny, server):
    before = fingerprint(pull())
    (tiny.directory / "fetched.record").unlink()
    assert fingerprint(pull()) == before


@pytest.mark.parametrize("name", [SECOND, "config.json"])
@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[::-1]])
def test_a_damaged_file_is_detected_and_fetched_again(tiny, server, name, damage):
    pull()
    (tiny.directory / name).write_bytes(damage(FILES[name]))
    with pytest.raises(ModelFileError, match=f"{name}: is damaged .*pull"):
        verify_model("tiny")
    server.requests.clear()
    notes = []
    pull(notes)
    assert f"{name}: is damaged; fetching it again." in notes[0]
    assert server.fetched() == [(name, None)]
    assert verify_model("tiny")


def test_a_pull_resumes_after_an_interrupt(tiny, server):
    notes = []
    with pytest.raises(KeyboardInterrupt):
        pull(notes, stopping_at(sum(map(len_of, WANTED)) - 12_000))
    assert "is kept" in notes[-1]
    assert list_models()[0].directory is None
    with pytest.raises(ModelMissingError, match=r"is incomplete; .* to fetch the rest"):
        find_model("tiny")
    server.requests.clear()
    shares = []
    pull(notes, lambda label, share: label.startswith("Fetching") and shares.append(share))
    assert server.fetched() == [(SECOND, "bytes=18000-")]
    assert shares[0] == pytest.approx(1 - 11_000 / sum(map(len_of, WANTED)), abs=0.001)
    assert "11.7 KiB left to fetch" in notes[-2]
    assert left(tiny) == sorted([*WANTED, "fetched.record"])
    assert verify_model("tiny")


def test_a_broken_connection_is_resumed(tiny, server):
    """The library retries from the break until a retry brings nothing new."""
    server.cuts[SECOND] = 12_300
    with pytest.raises(FetchError, match=r"the connection to .* broke\. .* is kept; run") as caught:
        pull()
    people(caught)
    ranges = [ranges for name, ranges in server.fetched() if name == SECOND]
    assert ranges[0] is None
    assert set(ranges[1:]) == {"bytes=12000-"}
    server.cuts.clear()
    server.requests.clear()
    pull()
    assert server.fetched() == [(SECOND, "bytes=12000-")]
    assert verify_model("tiny")


def test_a_server_without_ranges_sends_the_whole_file(tiny, server):
    with pytest.raises(KeyboardInterrupt):
        pull(progress=stopping_at(sum(map(len_of, WANTED)) - 12_000))
    server.ignores_ranges = True
    pull()
    assert verify_model("tiny")


@pytest.mark.parametrize("name", [FIRST, "config.json"])
def test_a_file_with_a_wrong_checksum_is_removed(tiny, server, name):
    server.spoiled.add(name)
    with pytest.raises(ModelFileError, match=rf"{name}: .*checksum.*run the same") as caught:
        pull()
    people(caught)
    assert not [kept for kept in left(tiny) if kept.startswith(name)]
    assert list_models()[0].directory is None
    server.spoiled.clear()
    pull()
    assert verify_model("tiny")


def test_a_part_of_another_version_is_not_resumed(tiny, server):
    with pytest.raises(KeyboardInterrupt):
        pull(progress=stopping_at(sum(map(len_of, WANTED)) - 12_000))
    server.commit = "f" * 40
    server.files[SECOND] = random.Random(3).randbytes(30_000)
    pull()
    assert (tiny.directory / SECOND).read_bytes() == server.files[SECOND]
    assert left(tiny) == sorted([*WANTED, "fetched.record"])


def test_a_part_that_is_too_long_is_fetched_again(tiny, server):
    with pytest.raises(KeyboardInterrupt):
        pull(progress=stopping_at(sum(map(len_of, WANTED)) - 12_000))
    (part,) = tiny.directory.glob("*.part")
    part.write_bytes(b"x" * 40_000)
    pull()
    assert verify_model("tiny")


def test_a_lack_of_disk_space_is_reported_before_anything_is_fetched(tiny, server, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 50_000))
    with pytest.raises(FetchError, match=r"54\.7 KiB needed, 48\.8 KiB free") as caught:
        pull()
    assert "HGA_CHAT_MODELS_DIR" in people(caught)
    assert server.fetched() == []
    # Files that are complete need no more space.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 60_000))
    with pytest.raises(KeyboardInterrupt):
        pull(progress=stopping_at(30_000))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 27_000))
    pull()


def test_the_disk_fills_up_during_a_fetch(tiny, server):
    def full(label, share):
        if label.startswith("Fetching") and share > 0.5:
            raise OSError(28, "No space left on device")

    with pytest.raises(FetchError, match=r"disk is full.*kept; free some space and run") as caught:
        pull(progress=full)
    people(caught)
    pull()
    assert verify_model("tiny")


def test_a_folder_that_cannot_be_made(tiny, server, tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(FetchError, match="cannot be written") as caught:
        pull()
    people(caught)


def test_no_network(tiny, connect):
    """Nothing listens on port 9 of this machine."""
    connect("http://127.0.0.1:9")
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:9 cannot be reached") as caught:
        pull()
    assert "network" in people(caught)


def test_an_invalid_endpoint(tiny, connect):
    connect("nowhere")
    with pytest.raises(FetchError, match="nowhere cannot be reached") as caught:
        pull()
    people(caught)


def test_offline(tiny, server, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE is set") as caught:
        pull()
    people(caught)
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not exist, or is private or gated"),
        (403, "HF_TOKEN"),
        (404, "HF_ENDPOINT"),
        (500, "later"),
    ],
)
def test_a_hub_that_refuses(tiny, server, status, words):
    server.refuses = status
    with pytest.raises(FetchError, match=f"answered {status}") as caught:
        pull()
    assert words in people(caught)


def test_a_file_that_is_listed_but_missing(tiny, server, monkeypatch):
    info = server.info()
    del server.files[FIRST]
    monkeypatch.setattr(server, "info", lambda: info)
    with pytest.raises(FetchError, match=r"answered 404: .*or a file of it"):
        pull()


@pytest.mark.parametrize("missing", [["config.json"], ["tokenizer.json"], [FIRST, SECOND]])
def test_a_repository_without_a_model(tiny, server, missing):
    for name in missing:
        del server.files[name]
    words = "model: neither GGUF files nor safet" if len(missing) == 2 else missing[0]
    with pytest.raises(ModelFileError, match=f"someone/tiny at .* has no {words}"):
        pull()


def test_names_outside_the_folder_are_not_fetched(tiny, server):
    for name in ("../evil.json", "/etc/evil.json", ".hidden.json"):
        server.files[name] = b"{}"
    pull()
    assert left(tiny) == sorted([*WANTED, "fetched.record"])
    assert not [path for path, _ in server.requests if "evil" in path or "hidden" in path]


def test_one_process_at_a_time(tiny, server):
    tiny.directory.mkdir(parents=True)
    with (
        hub._locked(tiny.directory, "tiny"),
        pytest.raises(FetchError, match="tiny is being fetched by another process"),
    ):
        pull()
    pull()


def test_a_damaged_record(tiny, server):
    pull()
    (tiny.directory / "fetched.record").write_text("{")
    for use in (find_model, verify_model):
        with pytest.raises(ModelFileError, match=r"fetched\.record: is damaged.*pull tiny"):
            use("tiny")
    assert list_models()[0].size_bytes == 50_000
    server.requests.clear()
    pull()
    assert server.fetched() == []
    assert verify_model("tiny")


def test_a_fetched_model_loads(tiny, server, tmp_path):
    write_tiny_model(tmp_path / "checkpoint")
    server.files = {path.name: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}
    server.large = ("model.safetensors",)
    fetched = load_model(pull(), torch.float32)
    made = load_model(ModelFiles("tiny", tmp_path / "checkpoint", None), torch.float32)
    assert torch.equal(fetched.layers[1].gate_up, made.layers[1].gate_up)


GGUF_FILES = {
    "README.md": b"not fetched",
    "config.json": b"{}",
    "m-Q4_K_M.gguf": random.Random(3).randbytes(9_000),
    "m-Q8_0.gguf": random.Random(4).randbytes(7_000),
    "mmproj-F16.gguf": b"not fetched",
    "BF16/m-BF16-00001-of-00002.gguf": random.Random(5).randbytes(5_000),
    "BF16/m-BF16-00002-of-00002.gguf": random.Random(6).randbytes(4_000),
}


@pytest.fixture
def gguf_server(connect, tmp_path, monkeypatch):
    monkeypatch.setenv("HGA_CHAT_MODELS_DIR", str(tmp_path / "models"))
    large = tuple(name for name in GGUF_FILES if name.endswith(".gguf"))
    with StandInHub(dict(GGUF_FILES), large) as server:
        connect(server.url)
        yield server


def pull_named(name):
    return pull_model(name, [].append)


def test_a_quantisation_of_a_repository(gguf_server, tmp_path):
    files = pull_named("someone/tiny:q8_0")
    assert files.gguf == tmp_path / "models" / "someone" / "tiny" / "m-Q8_0.gguf"
    assert files.gguf.read_bytes() == GGUF_FILES["m-Q8_0.gguf"]
    assert gguf_server.fetched() == [("m-Q8_0.gguf", None)]
    assert find_model("someone/tiny:Q8_0") == replace(files, name="someone/tiny:Q8_0")
    assert verify_model("someone/tiny:Q8_0")[0].size_bytes == 7_000
    with pytest.raises(ModelMissingError, match="models pull someone/tiny:Q4_K_M"):
        find_model("someone/tiny:Q4_K_M")


def test_without_a_quantisation_it_is_q4_k_m(gguf_server):
    files = pull_named("someone/tiny")
    assert (files.name, files.path.name) == ("someone/tiny:Q4_K_M", "m-Q4_K_M.gguf")
    pull_named("someone/tiny:Q8_0")
    assert find_model("someone/tiny") == files
    assert [found.files.name for found in found_models()] == [
        "someone/tiny:Q4_K_M",
        "someone/tiny:Q8_0",
    ]


def test_the_parts_of_a_split_file_in_a_folder(gguf_server):
    files = pull_named("someone/tiny:BF16")
    assert files.path.name == "m-BF16-00001-of-00002.gguf"
    assert [len(path.read_bytes()) for path in sorted(files.path.parent.iterdir())] == [5000, 4000]
    assert find_model("someone/tiny:bf16").path == files.path
    files.path.with_name("m-BF16-00002-of-00002.gguf").unlink()
    with pytest.raises(ModelFileError, match=r"00002-of-00002\.gguf: cannot be read"):
        find_model("someone/tiny:BF16")


def test_what_a_repository_lacks_is_answered_with_what_it_has(gguf_server):
    with pytest.raises(ModelMissingError, match=r"has no Q5_0: BF16, Q4_K_M, Q8_0\."):
        pull_named("someone/tiny:Q5_0")
    del gguf_server.files["m-Q4_K_M.gguf"]
    with pytest.raises(ModelMissingError, match=r"several models; name one: BF16, Q8_0\."):
        pull_named("someone/tiny")
    del gguf_server.files["BF16/m-BF16-00001-of-00002.gguf"]
    with pytest.raises(ModelFileError, match=r"has 1 of the 2 parts of m-BF16"):
        pull_named("someone/tiny:BF16")


def test_a_repository_of_safetensors_has_no_quantisations(tiny, server):
    with pytest.raises(ModelMissingError, match=r"has no GGUF files; leave out :Q8_0"):
        pull_named("someone/tiny:Q8_0")
    assert pull_named("someone/tiny").directory == tiny.directory


def test_a_person_may_decline(gguf_server):
    asked = []
    with pytest.raises(ModelMissingError, match="someone/tiny:Q8_0 was not downloaded"):
        pull_model("someone/tiny:Q8_0", print, confirm=lambda fetch: bool(asked.append(fetch)))
    assert gguf_server.fetched() == []
    assert (asked[0].size_bytes, asked[0].left_bytes) == (7_000, 7_000)
    assert asked[0].where == f"{gguf_server.url}/someone/tiny"


def test_a_copy_in_the_hugging_face_cache_is_used_where_it_is(gguf_server, tmp_path):
    cached = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / COMMIT / "m-Q8_0.gguf"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(GGUF_FILES["m-Q8_0.gguf"])
    assert pull_named("someone/tiny:Q8_0").gguf == cached
    assert gguf_server.requests == []


def test_a_model_of_the_catalogue_in_the_hugging_face_cache(tiny, tmp_path):
    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / COMMIT
    write_tiny_model(snapshot)
    assert find_model("tiny") == ModelFiles("tiny", snapshot, None)
    assert list_models()[0].directory == snapshot
    assert found_models() == []


def test_a_repository_that_does_not_exist(connect):
    with StandInHub({}, ()) as server:
        connect(server.url)
        with pytest.raises(FetchError, match=r"404: no/such or a file of it does not") as caught:
            pull_named("no/such:Q8_0")
        people(caught)


@pytest.mark.parametrize("name", ["qwen3-30b-a3b", "qwen3-30b-a3b-q4", "qwen3-coder-30b-a3b"])
def test_geometry_and_size_of_the_large_models(name):
    model, config = CATALOGUE[name], geometry_of(name)
    # Published: 30.5e9 parameters, of which each token uses 3.3e9.
    dense = ledger.weights_bytes(config, torch.bfloat16) / 2
    used = replace(config, num_experts=config.experts_per_token)
    assert dense == pytest.approx(30.5e9, rel=0.005)
    assert ledger.weights_bytes(used, torch.bfloat16) / 2 == pytest.approx(3.3e9, rel=0.02)
    if name == "qwen3-30b-a3b":
        predicted = ledger.weights_bytes(config, torch.float8_e4m3fn)
        assert model.size_bytes == pytest.approx(predicted, rel=0.01)
    else:  # llama.cpp's README: Q4_K_M takes about 4.9 bits a weight
        assert 4.7 < model.size_bytes * 8 / dense < 5


@pytest.mark.parametrize(
    ("name", "parameters"),  # as published, the embedding counted once
    [("qwen2.5-coder-0.5b", 0.494e9), ("qwen2.5-coder-1.5b", 1.544e9), ("qwen3-4b", 4.02e9)],
)
def test_geometry_of_the_small_models(name, parameters):
    config = replace(geometry_of(name), tie_embeddings=True)
    assert ledger.weights_bytes(config, torch.bfloat16) / 2 == pytest.approx(parameters, rel=0.005)


def test_every_model_of_the_catalogue_is_described():
    assert list(FACTS) == list(CATALOGUE)
    for model in CATALOGUE.values():
        if isinstance(model, HubModel):
            assert re.fullmatch("[0-9a-f]{40}", model.revision)
            assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in model.files)


def test_an_unknown_geometry():
    with pytest.raises(ModelMissingError, match=r"'other' is not known\. .*qwen3-30b-a3b"):
        geometry_of("other")
