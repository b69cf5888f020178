"""Which model is suggested for a machine, by what is predicted of each."""

import pytest

from hga_chat.cli import outlook
from hga_chat.models import ListedModel, list_models
from hga_chat.settings import Settings
from hga_engine.errors import WeightMemoryError
from hga_engine.opening import Estimate
from hga_engine.outlook import Outlook


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that sets a machine's memory, speed and kind, with no model on it."""
    monkeypatch.setenv("HGA_CHAT_MODELS_DIR", str(tmp_path))

    def use(memory, bandwidth, device="cpu"):
        def predict(model, weights, config, wanted, *, is_packed):
            if weights > memory:
                raise WeightMemoryError(weights, memory, device)
            experts = model.experts_per_token / model.num_experts if model.num_experts else 1
            return Outlook(Estimate(device, weights, 0, weights), bandwidth / weights / experts)

        monkeypatch.setattr("hga_engine.outlook.outlook_ahead", predict)

    return use


@pytest.mark.parametrize(
    ("memory", "bandwidth", "device", "expected"),
    [
        (1 << 30, 20e9, "cpu", "qwen2.5-coder-0.5b"),
        (8 << 30, 20e9, "cpu", "qwen2.5-coder-1.5b"),  # the 4B would answer 8 tokens a second
        (8 << 30, 60e9, "cpu", "qwen3-4b"),
        (24 << 30, 60e9, "cpu", "qwen3-30b-a3b-q4"),
        (64 << 30, 60e9, "cpu", "qwen3-30b-a3b-q4"),  # FP8 takes a GPU
        (22 << 30, 900e9, "cuda", "qwen3-30b-a3b-q4"),
        (31 << 30, 1800e9, "cuda", "qwen3-30b-a3b"),
        (8 << 30, 1e9, "cpu", "qwen2.5-coder-1.5b"),  # however slow
    ],
)
def test_the_best_that_fits_and_is_fast_enough(machine, memory, bandwidth, device, expected):
    machine(memory, bandwidth, device)
    found = outlook.recommend(Settings())
    assert found is not None
    model, fit = found
    assert model.name == expected
    assert fit.outlook.memory.device_type == device
    assert expected in outlook.recommendation(Settings())


def test_nothing_is_suggested_where_nothing_fits(machine):
    machine(10**6, 20e9)
    assert outlook.recommend(Settings()) is None
    assert outlook.recommendation(Settings()) is None


def test_why_a_model_does_not_run_is_said_in_a_few_words(machine):
    machine(1 << 30, 20e9)
    (large,) = [model for model in list_models() if model.name == "qwen3-4b"]
    fit = outlook.fit_of_listed(large, Settings())
    assert fit.as_text() == "does not run: takes 2.3 GiB of memory, 1.0 GiB free"
    assert "Use a smaller model" in fit.problem
    unknown = outlook.fit_of_listed(ListedModel("other", None, 1), Settings())
    assert unknown.as_text() == "does not run: its geometry is not known"


CODER_05B, CODER_15B = 630_000_000, 1_780_000_000


def test_what_a_model_is_good_for_and_a_better_one_in_a_line(machine):
    machine(8 << 30, 60e9)  # 24 times the 2,497,281,120 bytes of the larger one
    assert outlook.about_model("qwen2.5-coder-1.5b", CODER_15B, Settings()) == (
        "qwen2.5-coder-1.5b: questions about documents and code. Better here: --model qwen3-4b "
        "(documents and code, better reasoning; about 24 tokens/s)."
    )


def test_the_best_model_is_not_told_of_others(machine):
    machine(8 << 30, 20e9)
    best = outlook.about_model("qwen2.5-coder-1.5b", CODER_15B, Settings())
    assert best == "qwen2.5-coder-1.5b: questions about documents and code."
    machine(10**6, 20e9)
    alone = outlook.about_model("qwen2.5-coder-0.5b", CODER_05B, Settings())
    assert alone == "qwen2.5-coder-0.5b: questions about prose, little memory."


@pytest.mark.parametrize(
    ("parameters", "purpose"),
    [
        (135_000_000, "finds and copies facts"),
        (600_000_000, "questions about prose"),
        (1_700_000_000, "questions about documents and code"),
        (8_000_000_000, "documents and code, better reasoning"),
        (32_000_000_000, "the best answers"),
    ],
)
def test_a_model_of_other_makers_is_judged_by_its_size(machine, tmp_path, parameters, purpose):
    machine(10**6, 20e9)
    name = str(tmp_path / "mine-Q4_K_M.gguf")
    assert outlook.about_model(name, parameters, Settings()) == f"mine-Q4_K_M.gguf: {purpose}."
    assert outlook.about_model(name, None, Settings()) is None


def test_a_toy_is_called_one(machine):
    machine(8 << 30, 20e9)
    about = outlook.about_model("smollm2-64k", 135_000_000, Settings())
    assert about.startswith("smollm2-64k is a toy for tests")
    assert "Better here: --model qwen2.5-coder-1.5b" in about


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("hga_engine.opening.usable_gpu", lambda: None)


@pytest.mark.parametrize("memory", [8 << 30, 128 << 30])
def test_a_model_for_a_gpu_says_so_where_there_is_none(machine, no_gpu, memory):
    machine(memory, 60e9)
    need = outlook.unmet_need("qwen3-30b-a3b", Settings())
    assert need.startswith(
        "qwen3-30b-a3b needs an NVIDIA GPU with 32 GB; no usable GPU was found here."
    )
    assert "This machine can run qwen3-" in need


def test_memory_that_a_model_needs_is_named(machine, no_gpu):
    machine(8 << 30, 60e9)
    need = outlook.unmet_need("qwen3-30b-a3b-q4", Settings())
    assert "needs a 24 GB GPU or 32 GB of RAM; here it takes 17.3 GiB of memory, 8.0" in need
    machine(32 << 30, 60e9)
    assert outlook.unmet_need("qwen3-30b-a3b-q4", Settings()) is None


def test_a_gpu_that_is_here_and_other_names_need_nothing(machine):
    machine(40 << 30, 1800e9, "cuda")
    assert outlook.unmet_need("qwen3-30b-a3b", Settings()) is None
    machine(1, 1)
    assert outlook.unmet_need("qwen3-4b", Settings()) is None
    assert outlook.unmet_need("owner/repo", Settings()) is None
