import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from hga_engine.errors import ModelFileError
from hga_engine.model.files import ModelFiles
from hga_engine.model.load import load_model

INDEX = "model.safetensors.index.json"


def load(directory, dtype=torch.float32, progress=None):
    return load_model(ModelFiles("test", directory, None), dtype, progress)


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def checkpoint(reference_model, tmp_path):
    """A tiny llama checkpoint in one file."""
    reference_model("llama").save_pretrained(tmp_path)
    return tmp_path


def equal(first, second):
    layers = zip(first.layers, second.layers, strict=True)
    pairs = [(first.embedding, second.embedding), (first.lm_head, second.lm_head)]
    pairs += [(vars(a)[name], vars(b)[name]) for a, b in layers for name in vars(a)]
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_shards_hold_the_same_model(kind, reference_model, tmp_path):
    model = reference_model(kind)
    model.save_pretrained(tmp_path / "single")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    assert (tmp_path / "sharded" / INDEX).exists()
    assert equal(load(tmp_path / "single"), load(tmp_path / "sharded"))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("wanted", [torch.bfloat16, torch.float32])
def test_every_stored_dtype_is_converted(stored, wanted, reference_model, tmp_path):
    model = reference_model("qwen3").to(stored)
    model.save_pretrained(tmp_path)
    weights = load(tmp_path, wanted)
    assert weights.embedding.dtype == wanted
    expected = model.model.layers[2].mlp.down_proj.weight.detach().to(wanted)
    assert torch.equal(weights.layers[2].down, expected)


def test_tied_heads_are_one_tensor(reference_model, tmp_path):
    reference_model("llama-tied").save_pretrained(tmp_path)
    weights = load(tmp_path)
    assert weights.lm_head is weights.embedding
    assert weights.bytes() == sum(
        tensor.numel() * 4 for tensor in load_file(tmp_path / "model.safetensors").values()
    )


def test_progress_ends_at_one(checkpoint):
    seen = []
    load(checkpoint, progress=lambda text, share: seen.append(share))
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_the_rope_base_of_older_files_is_found(checkpoint):
    path = checkpoint / "config.json"
    edit_json(path, rope_theta=1e7, rope_scaling=None, rope_parameters=None)
    assert load(checkpoint).config.rope_base == 1e7


def test_files_override_rope_base_and_positions(checkpoint):
    files = ModelFiles("test", checkpoint, None, rope_base=123.0, max_positions=9)
    config = load_model(files, torch.float32).config
    assert (config.rope_base, config.max_positions) == (123.0, 9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mamba"}, ["'mamba'", "llama, mistral, qwen2, qwen3, qwen3_moe."]),
        ({"attention_bias": True}, ["attention_bias"]),
        ({"mlp_bias": True}, ["mlp_bias"]),
        ({"use_sliding_window": True}, ["use_sliding_window"]),
        ({"hidden_act": "gelu"}, ["gelu"]),
        ({"layer_types": ["full_attention", "sliding_attention"]}, ["sliding_attention"]),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, ["'dynamic'", "yarn"]),
        ({"rope_parameters": {"rope_type": "longrope"}}, ["'longrope'", "linear"]),
        ({"rope_parameters": {"rope_type": "linear"}}, ["factor is missing"]),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, ["low_freq_factor"]),
        ({"rope_parameters": {"type": "yarn", "factor": 2.0, "truncate": False}}, ["truncate"]),
        ({"partial_rotary_factor": 0.5}, ["RoPE"]),
        ({"quantization_config": {"quant_method": "gptq"}}, ["gptq"]),
        ({"quantization_config": {"quant_method": "fp8"}}, ["weight_block_size"]),
        ({"hidden_size": "many"}, ["hidden_size", "many"]),
        ({"num_hidden_layers": None}, ["num_hidden_layers", "missing"]),
        ({"num_attention_heads": 5}, ["5 query heads"]),
        ({"num_hidden_layers": 4}, ["tensor model.layers.3.", "missing"]),
        ({"intermediate_size": 161}, ["gate_proj", "[160, 96]", "[161, 96]"]),
    ],
)
def test_unsupported_models_are_refused_by_name(checkpoint, changes, words):
    edit_json(checkpoint / "config.json", **changes)
    with pytest.raises(ModelFileError) as caught:
        load(checkpoint)
    for word in [str(checkpoint), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_damaged_config_is_refused(checkpoint, text):
    (checkpoint / "config.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ModelFileError, match=r"config\.json: is damaged"):
        load(checkpoint)


def test_missing_files_are_named(checkpoint, tmp_path_factory):
    with pytest.raises(ModelFileError, match="does not exist"):
        load(checkpoint / "nowhere")
    with pytest.raises(ModelFileError, match=r"config\.json: cannot be read"):
        load(tmp_path_factory.mktemp("empty"))
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"model\.safetensors: the file is missing"):
        load(checkpoint)


@pytest.mark.parametrize("size", [0, 7, 100, 5000, -1])
def test_truncated_weights_are_refused(checkpoint, size):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelFileError, match=r"model\.safetensors: is truncated or damaged"):
        load(checkpoint)


def test_unusable_tensors_are_named(checkpoint):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    bias = "model.layers.0.self_attn.q_proj.bias"
    save_file(tensors | {bias: torch.zeros(192)}, path)
    with pytest.raises(ModelFileError, match=r"q_proj\.bias"):
        load(checkpoint)
    save_file(tensors | {"lm_head.weight": torch.zeros(101, 96, dtype=torch.int8)}, path)
    with pytest.raises(ModelFileError, match=r"lm_head\.weight is I8"):
        load(checkpoint)
    fp8 = torch.zeros(101, 96).to(torch.float8_e4m3fn)
    save_file(tensors | {"lm_head.weight": fp8}, path)
    with pytest.raises(ModelFileError, match=r"no quantization_config, but tensor lm_head\.weight"):
        load(checkpoint)


@pytest.fixture
def sharded(reference_model, tmp_path):
    reference_model("llama").save_pretrained(tmp_path, max_shard_size="100KB")
    return tmp_path


def test_damaged_shards_are_named(sharded, tmp_path_factory):
    listed = json.loads((sharded / INDEX).read_text())["weight_map"]
    shard = listed["model.norm.weight"]
    copy = tmp_path_factory.mktemp("copy")

    shutil.copytree(sharded, copy / "missing")
    (copy / "missing" / shard).unlink()
    with pytest.raises(ModelFileError, match=f"{shard}: the file is missing"):
        load(copy / "missing")

    shutil.copytree(sharded, copy / "cut")
    (copy / "cut" / shard).write_bytes((sharded / shard).read_bytes()[:-5])
    with pytest.raises(ModelFileError, match=f"{shard}: is truncated or damaged"):
        load(copy / "cut")

    shutil.copytree(sharded, copy / "other")
    edit_json(copy / "other" / INDEX, weight_map=listed | {"more.weight": shard})
    with pytest.raises(ModelFileError, match=rf"{shard}: tensor more\.weight is missing"):
        load(copy / "other")


@pytest.mark.parametrize("weight_map", [None, [], {"a": 1}, {"a": "../model.safetensors"}])
def test_a_damaged_index_is_refused(sharded, weight_map):
    edit_json(sharded / INDEX, weight_map=weight_map)
    with pytest.raises(ModelFileError, match=r"index\.json: is damaged"):
        load(sharded)
