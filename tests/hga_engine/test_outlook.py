"""Predictions of models before they are fetched, against those from their files."""

from dataclasses import replace

import pytest
import torch

from hga_engine.config import CacheConfig, EngineConfig
from hga_engine.errors import HostMemoryError
from hga_engine.memory import probes
from hga_engine.model.files import ModelFiles
from hga_engine.model.load import load_model, read_model_config
from hga_engine.outlook import outlook, outlook_ahead
from tests.support.tiny_model import write_tiny_model

CONFIG = EngineConfig(cache=CacheConfig(context=4096))


@pytest.fixture
def files(tmp_path):
    return ModelFiles("tiny", write_tiny_model(tmp_path / "model"), None)


def test_a_model_is_predicted_as_well_without_its_files(files):
    geometry = read_model_config(files)
    found = outlook(files, CONFIG, "cpu")
    ahead = outlook_ahead(geometry, 0, CONFIG, "cpu", is_packed=False)
    assert ahead.memory.device_type == found.memory.device_type == "cpu"
    assert ahead.memory.host_bytes == pytest.approx(found.memory.host_bytes, rel=0.001)
    loaded = load_model(files, torch.bfloat16).host_bytes()
    assert ahead.memory.weights_bytes == pytest.approx(loaded, rel=0.01)
    assert found.memory.weights_bytes == pytest.approx(loaded, rel=0.01)  # aligned
    assert found.tokens_per_s > 0


def test_packed_weights_take_what_their_file_takes(files):
    geometry = read_model_config(files)
    small, large = (outlook_ahead(geometry, size, CONFIG, "cpu") for size in (10**6, 2 * 10**6))
    assert small.memory.weights_bytes == 10**6
    assert large.memory.host_bytes - small.memory.host_bytes == 10**6
    assert large.tokens_per_s < small.tokens_per_s


def test_what_cannot_fit_is_refused(files, monkeypatch):
    geometry = read_model_config(files)
    monkeypatch.setattr(probes, "available_memory_bytes", lambda: 10**9)
    with pytest.raises(HostMemoryError) as caught:
        outlook_ahead(geometry, 2 * 10**9, CONFIG, "cpu")
    assert caught.value.ledger.weights == 2 * 10**9
    long = replace(CONFIG, cache=CacheConfig(context=1 << 26))
    with pytest.raises(HostMemoryError):
        outlook(files, long, "cpu")
