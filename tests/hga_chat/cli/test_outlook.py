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
