"""``models`` and ``doctor``."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import hga_chat.models
from hga_chat.models.catalogue import CATALOGUE
from tests.support.tiny_model import write_tiny_model


@pytest.fixture
def no_models(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("HGA_CHAT_MODELS_DIR", str(tmp_path / "models"))


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("a few words\n")
    return path


def test_list_names_models_that_are_missing(cli, no_models, monkeypatch, tmp_path):
    ran = cli("models", "list")
    assert ran.code == 0
    lines = [re.split(" {2,}", line) for line in ran.out.splitlines()[1:]]
    embedded, large = lines[0], lines[-1]
    assert (embedded[0], embedded[-1].strip()) == ("smollm2-64k", "not downloaded")
    assert large[0] == "qwen3-30b-a3b"
    assert "29.0 GiB" in large
    assert "262,144" in large
    assert large[-1].strip() == "not downloaded"


def test_list_as_json(cli, no_models):
    listed = json.loads(cli("models", "list", "--json").out)
    assert [model["name"] for model in listed] == list(CATALOGUE)
    default = listed[2]
    assert default["directory"] is None
    assert default["size_bytes"] == 1_117_320_768
    assert (default["native_context"], default["context"]) == (32_768, 32_768)
    assert (default["licence"], default["source"]) == ("Apache-2.0", "catalogue")
    if default["runs"]:
        # K/V of 32K tokens alone takes 28 layers * 2 heads * 128 * 2 * 2 bytes a token.
        assert default["needed_bytes"] > default["size_bytes"] + 32_768 * 28_672
        assert default["tokens_per_s"] > 0


def test_list_shows_what_other_programs_have(cli, no_models, tmp_path):
    checkpoint = tmp_path / "lm-studio" / "someone" / "tiny"
    checkpoint.mkdir(parents=True)
    write_tiny_model(checkpoint)
    broken = tmp_path / "lm-studio" / "someone" / "broken" / "b-Q8_0.gguf"
    broken.parent.mkdir()
    broken.write_bytes(b"no GGUF")
    listed = json.loads(cli("models", "list", "--json").out)
    damaged, tiny = listed[len(CATALOGUE) :]
    assert (damaged["name"], damaged["runs"]) == ("someone/broken:Q8_0", False)
    assert "GGUF" in damaged["problem"]
    assert (tiny["name"], tiny["runs"], tiny["source"]) == ("someone/tiny", True, "LM Studio")
    assert tiny["needed_bytes"] > 0
    lines = cli("models", "list").out.splitlines()
    assert "does not run: " in lines[-2]
    assert lines[-1].startswith("someone/tiny ")
    assert "runs, about " in lines[-1]


def test_pull_of_an_unknown_model_names_the_known_ones(cli):
    ran = cli("models", "pull", "tiny")
    assert (ran.code, ran.out) == (1, "")
    assert "'tiny'" in ran.err
    assert "smollm2-64k" in ran.err


def test_verify_lists_files_with_their_sums(cli, monkeypatch):
    file = hga_chat.models.VerifiedFile(Path("/models/tiny.gguf"), 12, "ab" * 32)
    monkeypatch.setattr(hga_chat.models, "verify_model", lambda name, progress: (file,))
    ran = cli("models", "verify", "tiny")
    assert ran.out == f"{'ab' * 32}  /models/tiny.gguf\n"
    assert ran.err == "tiny is complete; all checksums match.\n"
    assert json.loads(cli("models", "verify", "tiny", "--json").out) == [
        {"path": "/models/tiny.gguf", "size_bytes": 12, "sha256": "ab" * 32}
    ]


def test_verify_of_a_missing_model_says_how_to_download_it(cli, no_models):
    ran = cli("models", "verify", "smollm2-64k")
    assert ran.code == 1
    assert "hga-chat models pull smollm2-64k" in ran.err


def test_doctor_names_what_is_installed_and_what_is_missing(cli, no_models):
    ran = cli("doctor")
    assert ran.code == 0
    for part in ("memory", "kernels   cpu: ", "torch 2.", "models pull smollm2-64k"):
        assert part in ran.out
    (large,) = [line for line in ran.out.splitlines() if "qwen3-30b-a3b: " in line]
    assert "models pull qwen3-30b-a3b' gets it (29.0 GiB)" in large
    assert "needs an NVIDIA GPU with 32 GB" in large


def test_doctor_as_json(cli, no_models):
    report = json.loads(cli("doctor", "--json").out)
    assert 0 < report["memory_available_bytes"] <= report["memory_bytes"]
    assert report["cores"] >= 1
    assert [model["name"] for model in report["models"]] == list(CATALOGUE)
    for model in report["models"]:
        assert "models pull" in model["problem"]
        assert model["runs"] == (model["needed_bytes"] is not None)
    assert "questions about" in report["in_use"]
    assert report["recommended"] is None or report["recommended"].startswith("qwen")


def test_doctor_says_what_the_model_in_use_is_good_for(cli, no_models):
    (line,) = [x for x in cli("doctor").out.splitlines() if x.startswith("in use ")]
    assert "qwen2.5-coder-" in line
    assert ": questions about " in line
    wrong = cli("doctor", "--model", "nix")
    assert wrong.code == 0
    assert "in use    There is no model 'nix'." in wrong.out


def test_a_model_for_a_gpu_says_that_first_where_there_is_none(cli, no_models, monkeypatch, notes):
    monkeypatch.setattr("hga_engine.opening.usable_gpu", lambda: None)
    needs = "qwen3-30b-a3b needs an NVIDIA GPU with 32 GB; no usable GPU was found here."
    asked = cli("ask", notes, "Why?", "--model", "qwen3-30b-a3b")
    assert (asked.code, asked.out) == (1, "")
    assert asked.err.startswith(f"hga-chat: {needs}")
    assert "pull" not in asked.err
    there = SimpleNamespace(name="qwen3-30b-a3b", path=notes)
    monkeypatch.setattr(hga_chat.models, "pull_model", lambda *_: there)
    pulled = cli("models", "pull", "qwen3-30b-a3b", "--yes")
    assert (pulled.code, pulled.err.startswith(needs)) == (0, True)
    doctor = cli("doctor", "--model", "qwen3-30b-a3b")
    assert f"in use    {needs}" in doctor.out
