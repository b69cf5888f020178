"""What is kept of a model's files: the same as is made of them, or not used."""

import errno
import tempfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from hga_engine.model import load_model, weight_cache
from hga_engine.model.files import ModelFiles
from hga_engine.model.placement import side_by_side
from hga_engine.tokenizer.load import load_tokenizer


@pytest.fixture(params=["llama", "llama-tied", "qwen3_moe-mixed"])
def files(request, reference_model, tmp_path):
    """A model with an adapter, and a folder for what is made of it."""
    reference_model(request.param).save_pretrained(tmp_path / "model")
    pair = {"0.k_proj.a": torch.randn(4, 96), "0.k_proj.b": torch.randn(64, 4)}
    save_file(pair, tmp_path / "adapter.safetensors")
    adapters = (tmp_path / "adapter.safetensors",)
    folder = tmp_path / "prepared"
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
def test_kept_weights_are_those_made_of_the_files(files, dtype, monkeypatch):
    made = load_model(replace(files, cache_dir=None), dtype)
    assert not files.cache_dir.exists()
    assert same(load_model(files, dtype), made)
    monkeypatch.setattr("hga_engine.model._open", None)
    kept = load_model(files, dtype)
    assert same(kept, made)
    assert all(t is None or t.data_ptr() % 64 == 0 for t in tensors(kept).values())


def test_kept_weights_are_read_side_by_side(files):
    load_model(files, torch.float32)
    kept = weight_cache.load_weights(files, torch.float32)
    runs = {t.untyped_storage().data_ptr() for t in tensors(kept).values() if t is not None}
    assert len(runs) == 1
    aligned = side_by_side(kept)
    assert same(aligned, kept)
    assert side_by_side(aligned) is aligned


def test_weights_that_are_read_ahead_are_the_same(files, monkeypatch):
    weight_cache.read_ahead(files)
    made = load_model(files, torch.float32)
    weight_cache.read_ahead(files)
    with monkeypatch.context() as patch:
        patch.setattr(weight_cache, "_read", None)
        assert same(weight_cache.load_weights(files, torch.float32), made)
    assert weight_cache.load_weights(files, torch.bfloat16) is None


def test_what_was_kept_of_other_files_or_in_another_type_is_not_used(files):
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


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_a_file_that_was_cut_short_is_made_again(files, kept):
    made = load_model(files, torch.float32)
    path = files.cache_dir / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    assert same(load_model(files, torch.float32), made)
    assert len(path.read_bytes()) == len(whole)


def test_a_folder_that_cannot_be_written_is_left_alone(files, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", refuse)
        load_model(files, torch.float32)
    assert list(files.cache_dir.iterdir()) == []


@pytest.mark.weights
def test_a_kept_vocabulary_makes_the_same_tokenizer(embedded_model, tmp_path, monkeypatch):
    files = replace(embedded_model, cache_dir=tmp_path / "prepared")
    load_tokenizer.cache_clear()
    made = load_tokenizer(files)
    load_tokenizer.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr("hga_engine.tokenizer.load.open_gguf", None)
        kept = load_tokenizer(files)
    text = "def f(x):\n    return x ** 2  # naïve 12345 <|im_end|> \N{SNOWMAN}"
    assert kept.encode_with_offsets(text) == made.encode_with_offsets(text)
    assert kept.end_tokens == made.end_tokens
    for system in (None, "Be brief."):
        assert kept.opening(system) == made.opening(system)
    assert kept.to_next_question() == made.to_next_question()
    every = range(made.vocab_size)
    assert [kept.token_bytes(n) for n in every] == [made.token_bytes(n) for n in every]
    (files.cache_dir / "vocabulary.json").write_text("{}")
    load_tokenizer.cache_clear()
    assert load_tokenizer(files).end_tokens == made.end_tokens
    load_tokenizer.cache_clear()
