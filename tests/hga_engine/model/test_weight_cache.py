"""Cached weights and vocabularies equal those of the model's files, or are not used."""

import errno
import tempfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from hga_engine.model import weight_cache
from hga_engine.model.files import ModelFiles
from hga_engine.model.load import load_model
from hga_engine.model.placement import side_by_side
from hga_engine.tokenizer.load import load_tokenizer


@pytest.fixture(params=["llama", "llama-tied", "qwen3_moe-mixed"])
def files(request, reference_model, tmp_path):
    """A model with an adapter and a cache folder."""
    reference_model(request.param).save_pretrained(tmp_path / "model")
    pair = {"0.k_proj.a": torch.randn(4, 96), "0.k_proj.b": torch.randn(64, 4)}
    save_file(pair, tmp_path / "adapter.safetensors")
    adapters = (tmp_path / "adapter.safetensors",)
    folder = tmp_path / "cache"
    return ModelFiles("test", tmp_path / "model", None, adapters, 70_000.0, 400, folder)


def tensors(weights):
    named = {"embedding": weights.embedding, "norm": weights.final_norm, "head": weights.lm_head}
    for number, layer in enumerate(weights.layers):
        named |= {f"{number}.{name}": tensor for name, tensor in vars(layer).items()}
    return named


def same(weights, others):
    left, right = tensors(weights), tensors(others)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        if tensor is None:
            assert right[name] is None
        else:
            assert tensor.dtype == right[name].dtype
            assert torch.equal(tensor, right[name])
    return weights.config == others.config and weights.bytes() == others.bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cached_weights_equal_those_of_the_files(files, dtype, monkeypatch):
    made = load_model(replace(files, cache_dir=None), dtype)
    assert not files.cache_dir.exists()
    assert same(load_model(files, dtype), made)
    monkeypatch.setattr("hga_engine.model.load._open", None)
    cached = load_model(files, dtype)
    assert same(cached, made)
    assert all(t is None or t.data_ptr() % 64 == 0 for t in tensors(cached).values())


def test_cached_weights_are_contiguous_in_memory(files):
    load_model(files, torch.float32)
    cached = weight_cache.load_weights(files, torch.float32)
    runs = {t.untyped_storage().data_ptr() for t in tensors(cached).values() if t is not None}
    assert len(runs) == 1
    aligned = side_by_side(cached)
    assert same(aligned, cached)
    assert side_by_side(aligned) is aligned


def test_weights_read_ahead_are_the_same(files, monkeypatch):
    weight_cache.read_ahead(files)
    made = load_model(files, torch.float32)
    weight_cache.read_ahead(files)
    with monkeypatch.context() as patch:
        patch.setattr(weight_cache, "_read", None)
        assert same(weight_cache.load_weights(files, torch.float32), made)
    assert weight_cache.load_weights(files, torch.bfloat16) is None


def test_weights_cached_for_other_files_or_another_dtype_are_not_used(files):
    load_model(files, torch.float32)
    assert weight_cache.load_weights(files, torch.float32) is not None
    assert weight_cache.load_weights(files, torch.bfloat16) is None
    assert weight_cache.load_weights(replace(files, rope_base=1.0), torch.float32) is None
    changed = {"0.k_proj.a": torch.zeros(4, 96), "0.k_proj.b": torch.randn(64, 4)}
    save_file(changed, files.adapters[0])
    assert weight_cache.load_weights(files, torch.float32) is None
    assert same(
        load_model(files, torch.float32), load_model(replace(files, cache_dir=None), torch.float32)
    )
    assert [path.name for path in files.cache_dir.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_a_truncated_cache_is_replaced(files, size):
    made = load_model(files, torch.float32)
    path = files.cache_dir / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    assert same(load_model(files, torch.float32), made)
    assert len(path.read_bytes()) == len(whole)


def test_a_read_only_cache_folder_is_ignored(files, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", refuse)
        load_model(files, torch.float32)
    assert list(files.cache_dir.iterdir()) == []


@pytest.mark.weights
def test_a_cached_vocabulary_makes_the_same_tokenizer(embedded_model, tmp_path, monkeypatch):
    files = replace(embedded_model, cache_dir=tmp_path / "cache")
    load_tokenizer.cache_clear()
    made = load_tokenizer(files)
    load_tokenizer.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr("hga_engine.tokenizer.load.open_gguf", None)
        cached = load_tokenizer(files)
    text = "def f(x):\n    return x ** 2  # naïve 12345 <|im_end|> \N{SNOWMAN}"
    assert cached.encode_with_offsets(text) == made.encode_with_offsets(text)
    assert cached.end_tokens == made.end_tokens
    for system in (None, "Be brief."):
        assert cached.opening(system) == made.opening(system)
    assert cached.to_next_question() == made.to_next_question()
    every = range(made.vocab_size)
    assert [cached.token_bytes(n) for n in every] == [made.token_bytes(n) for n in every]
    (files.cache_dir / "vocabulary.json").write_text("{}")
    load_tokenizer.cache_clear()
    assert load_tokenizer(files).end_tokens == made.end_tokens
    load_tokenizer.cache_clear()
