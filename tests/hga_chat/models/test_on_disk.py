"""Models in the folders of Hugging Face, LM Studio and Ollama, and at paths."""

import json
import os

import pytest

from hga_chat.models import ModelMissingError, find_model, found_models, on_disk, verify_model
from hga_engine.errors import ModelFileError

SUM = "ab" * 32


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HGA_CHAT_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path


def write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def snapshot(folders, names, repository="someone/Tiny-GGUF", commit="c" * 40):
    """Write a repository as the Hugging Face cache keeps it: links to blobs."""
    folder = folders / "hub" / f"models--{repository.replace('/', '--')}"
    for number, name in enumerate(names):
        blob = write(folder / "blobs" / f"{number:064x}", name.encode())
        link = folder / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    write(folder / "refs" / "main", commit.encode())
    return folder / "snapshots" / commit


def ollama(folders, places, digest=f"sha256:{SUM}"):
    layers = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:00"},
        {"mediaType": "application/vnd.ollama.image.model", "digest": digest},
    ]
    manifest = folders.joinpath("ollama", "manifests", *places)
    return write(manifest, json.dumps({"layers": layers}).encode())


def names():
    return [found.files.name for found in found_models()]


def test_the_hugging_face_cache(folders):
    folder = snapshot(folders, ["Tiny-Q4_K_M.gguf", "Tiny-Q8_0.gguf"])
    assert names() == ["someone/Tiny-GGUF:Q4_K_M", "someone/Tiny-GGUF:Q8_0"]
    files = find_model("someone/Tiny-GGUF:q8_0")
    assert files.gguf == folder / "Tiny-Q8_0.gguf"
    assert find_model("someone/Tiny-GGUF").gguf == folder / "Tiny-Q4_K_M.gguf"
    assert find_model("someone/Tiny-GGUF:tiny-q8_0.gguf").gguf == folder / "Tiny-Q8_0.gguf"
    with pytest.raises(ModelMissingError, match="hga-chat models pull someone/Tiny-GGUF:Q6_K"):
        find_model("someone/Tiny-GGUF:Q6_K")


def test_a_model_in_the_cache_is_held_against_the_names_of_its_blobs(folders):
    snapshot(folders, ["Tiny-Q8_0.gguf"])
    with pytest.raises(ModelFileError, match="damaged"):
        verify_model("someone/Tiny-GGUF:Q8_0")


def test_safetensors_count_once_all_shards_are_there(folders):
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})
    parts = ["config.json", "tokenizer.json", "one.safetensors", "model.safetensors.index.json"]
    folder = snapshot(folders, parts, "someone/whole")
    (folder / "model.safetensors.index.json").resolve().write_text(index)
    assert names() == []
    write(folder / "two.safetensors")
    assert names() == ["someone/whole"]
    assert find_model("someone/whole").directory == folder


def test_the_current_snapshot_comes_first(folders):
    old = snapshot(folders, ["Tiny-Q8_0.gguf"], commit="a" * 40)
    new = snapshot(folders, ["Tiny-Q6_K.gguf"], commit="b" * 40)
    assert find_model("someone/Tiny-GGUF:Q6_K").path.parent == new
    assert find_model("someone/Tiny-GGUF:Q8_0").path.parent == old


def test_lm_studio(folders):
    path = write(folders / "lm-studio" / "someone" / "Tiny-GGUF" / "Tiny-Q4_K_M.gguf")
    write(folders / "lm-studio" / "someone" / "Tiny-GGUF" / "mmproj-Tiny-F16.gguf")
    assert names() == ["someone/Tiny-GGUF:Q4_K_M"]
    assert find_model("someone/Tiny-GGUF:Q4_K_M").gguf == path
    with pytest.raises(ModelFileError, match="no checksum"):
        verify_model("someone/Tiny-GGUF:Q4_K_M")


def test_ollama(folders):
    blob = write(folders / "ollama" / "blobs" / f"sha256-{SUM}", b"GGUF")
    ollama(folders, ["registry.ollama.ai", "library", "tiny", "latest"])
    ollama(folders, ["registry.ollama.ai", "someone", "other", "8b"])
    ollama(folders, ["hf.co", "someone", "third", "Q4_K_M"])
    expected = {
        "ollama:tiny:latest",
        "ollama:someone/other:8b",
        "ollama:hf.co/someone/third:Q4_K_M",
    }
    (first,) = found_models()  # all three are the same file
    assert first.files.name in expected
    for name in (*expected, "ollama:tiny"):
        files = find_model(name)
        assert (files.name, files.gguf) == (name, blob)
    with pytest.raises(ModelFileError, match="SHA-256"):
        verify_model("ollama:tiny")
    with pytest.raises(ModelMissingError, match=r"Ollama has no none:1b .*ollama:tiny:latest"):
        find_model("ollama:none:1b")
    for name in ("ollama:", "ollama:../../etc:passwd"):
        with pytest.raises(ModelMissingError, match="not a name of Ollama"):
            find_model(name)


def test_what_is_damaged_foreign_or_unreadable_is_passed_over(folders):
    (folders / "hub" / "models--a--b" / "snapshots").mkdir(parents=True)
    write(folders / "hub" / "models--broken")
    snapshot(folders, ["Tiny-Q8_0.gguf"])
    for blob in (folders / "hub").rglob("blobs/*"):
        blob.unlink()  # broken links
    write(folders / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "x" / "1", b"{")
    ollama(folders, ["registry.ollama.ai", "library", "y", "1"], digest="sha256:../../passwd")
    ollama(folders, ["registry.ollama.ai", "library", "z", "1"])  # no blob
    write(folders / "lm-studio" / "README.md")
    write(folders / "lm-studio" / "someone" / "split" / "m-Q8_0-00001-of-00002.gguf")
    os.symlink("loop", folders / "lm-studio" / "loop")
    assert names() == []
    with pytest.raises(ModelFileError, match="its model file is missing"):
        find_model("ollama:z:1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_without_permission_are_passed_over(folders):
    closed = folders / "lm-studio" / "someone"
    closed.mkdir(parents=True)
    closed.chmod(0)
    assert names() == []
    closed.chmod(0o700)


def test_a_file_is_listed_once(folders):
    path = write(folders / "lm-studio" / "someone" / "Tiny-GGUF" / "Tiny-Q4_K_M.gguf")
    link = folders / "lm-studio" / "other" / "Tiny-GGUF" / "Tiny-Q4_K_M.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(path)
    assert len(found_models()) == 1


def test_the_folder_of_the_cache_is_found_as_hugging_face_does(monkeypatch, tmp_path):
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert on_disk.hub_cache() == tmp_path / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert on_disk.hub_cache() == tmp_path / "xdg" / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", "~/hf")
    assert on_disk.hub_cache() == tmp_path / "hf" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", "~/cache")
    assert on_disk.hub_cache() == tmp_path / "cache"


def test_a_gguf_file(folders):
    path = write(folders / "my-Q8_0.gguf")
    files = find_model(str(path))
    assert (files.name, files.gguf, files.directory) == ("my-Q8_0", path, None)


def test_any_part_of_a_split_file_means_the_first(folders):
    parts = [write(folders / f"big-Q8_0-0000{n}-of-00002.gguf") for n in (1, 2)]
    for part in parts:
        files = find_model(str(part))
        assert (files.name, files.gguf) == ("big-Q8_0", parts[0])
    parts[0].unlink()
    with pytest.raises(ModelFileError, match=r"00002-of-00002\.gguf: 1 of 2 parts are there"):
        find_model(str(parts[1]))


def test_a_folder_of_gguf_files(folders):
    folder = folders / "mine"
    path = write(folder / "m-Q8_0.gguf")
    assert find_model(str(folder)).gguf == path
    write(folder / "m-Q4_K_M.gguf")
    with pytest.raises(ModelMissingError, match=r"several models; name one: m-Q4_K_M\.gguf, m-Q8"):
        find_model(str(folder))


def test_a_name_that_is_nothing_lists_what_can_be_named():
    for name in ("other", "a/b/c", "someone/x:"):
        with pytest.raises(ModelMissingError, match=r"no model .*owner/repo:QUANT"):
            find_model(name)
    for name in ("missing.gguf", "a/b.gguf", "./x", "~/no/such"):
        with pytest.raises(ModelMissingError, match="there is no such file or folder"):
            find_model(name)


def test_the_checksum_of_a_file_of_ones_own_is_not_known(folders):
    with pytest.raises(ModelFileError, match="no checksum of it is known"):
        verify_model(str(write(folders / "my-Q8_0.gguf")))
