"""``models`` and ``doctor``."""

import json
from pathlib import Path

import pytest

import hga_chat.models
from hga_chat.models.catalogue import CATALOGUE


@pytest.fixture
def no_models(monkeypatch, tmp_path):
    monkeypatch.setenv("HGA_CHAT_MODELS_DIR", str(tmp_path / "models"))


def test_list_names_models_that_are_missing(cli, no_models, monkeypatch, tmp_path):
    ran = cli("models", "list")
    assert ran.code == 0
    lines = [line.split("  ") for line in ran.out.splitlines()[1:]]
    embedded, large = lines[0], lines[-1]
    assert (embedded[0], embedded[-1].strip()) == ("smollm2-64k", "not here")
    assert large[0] == "qwen3-30b-a3b"
    assert "29.0 GiB" in large[-2]
    assert large[-1].strip() == "not here; needs an NVIDIA GPU with 32 GB"


def test_list_as_json(cli, monkeypatch, tmp_path):
    model = hga_chat.models.ListedModel("tiny", Path("/models/tiny"), 1234)
    monkeypatch.setattr(hga_chat.models, "list_models", lambda: [model])
    assert json.loads(cli("models", "list", "--json").out) == [
        {"name": "tiny", "directory": "/models/tiny", "size_bytes": 1234, "needs": None}
    ]


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
    assert ran.err == "tiny is complete and undamaged.\n"
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
    assert "models pull qwen3-30b-a3b' downloads it (29.0 GiB)" in large
    assert "needs an NVIDIA GPU with 32 GB" in large


def test_doctor_as_json(cli, no_models):
    report = json.loads(cli("doctor", "--json").out)
    assert 0 < report["memory_available_bytes"] <= report["memory_bytes"]
    assert report["cores"] >= 1
    assert [model["name"] for model in report["models"]] == list(CATALOGUE)
    for model in report["models"]:
        assert model["needed_bytes"] is None
        assert "models pull" in model["problem"]
