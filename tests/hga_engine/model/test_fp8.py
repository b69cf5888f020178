"""Checkpoints laid out as Qwen3-30B-A3B-Instruct-2507-FP8: e4m3 with a scale a 128x128 block."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from hga_engine.errors import ModelFileError
from hga_engine.model import load_model
from hga_engine.model.files import ModelFiles
from hga_engine.model.loader import DirectorySource

BLOCK = 128
LARGEST = 448.0  # of e4m3


def quantize(weight):
    """e4m3 values and one scale a block, so that each block's largest value is 448."""
    rows, columns = weight.shape
    scales = torch.empty(-(-rows // BLOCK), -(-columns // BLOCK))
    stored = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    for row in range(scales.shape[0]):
        for column in range(scales.shape[1]):
            part = (
                slice(row * BLOCK, (row + 1) * BLOCK),
                slice(column * BLOCK, (column + 1) * BLOCK),
            )
            scales[row, column] = (weight[part].abs().max() / LARGEST).bfloat16()
            stored[part] = (weight[part] / scales[row, column]).to(torch.float8_e4m3fn)
    return stored, scales


def dequantize(stored, scales):
    weight = stored.float()
    for row in range(weight.shape[0]):
        for block in range(scales.shape[1]):
            weight[row, block * BLOCK : (block + 1) * BLOCK] *= scales[row // BLOCK, block]
    return weight


def is_quantized(name):
    return "_proj.weight" in name


def write_fp8(model, directory, scale_dtype=torch.bfloat16):
    """The checkpoint, and the model itself changed to what the checkpoint says."""
    model.save_pretrained(directory)
    path = directory / "model.safetensors"
    tensors, changed = {}, {}
    for name, tensor in load_file(path).items():
        if is_quantized(name):
            stored, scales = quantize(tensor)
            tensors[name] = stored
            tensors[name + "_scale_inv"] = scales.to(scale_dtype)
            changed[name] = dequantize(stored, scales)
        else:
            tensors[name] = tensor.bfloat16()
            changed[name] = tensor.bfloat16().float()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2]}
    shards["model-00002-of-00002.safetensors"] = names[1::2]
    path.unlink()
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, directory / shard, {"format": "pt"})
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    config = json.loads((directory / "config.json").read_text())
    config["num_experts"] = config.pop("num_local_experts")
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config |= {"torch_dtype": "bfloat16", "rope_scaling": None}
    config["quantization_config"] = {
        "activation_scheme": "dynamic",
        "modules_to_not_convert": ["lm_head"]
        + [f"model.layers.{layer}.mlp.gate" for layer in range(config["num_hidden_layers"])],
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [BLOCK, BLOCK],
    }
    (directory / "config.json").write_text(json.dumps(config))
    plain = directory / "dequantized"
    plain.mkdir()
    save_file(changed, plain / "model.safetensors", {"format": "pt"})
    model.config.save_pretrained(plain)
    return transformers.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32).eval()


@pytest.fixture
def load():
    return lambda directory, dtype=torch.float32: load_model(
        ModelFiles("fp8", directory, None), dtype
    )


def prompt(tokens):
    return torch.randint(0, 101, (tokens,), generator=torch.Generator().manual_seed(tokens))


@pytest.mark.parametrize("scale_dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("hidden", "width"), [(256, 128), (160, 48), (288, 200)], ids=["whole", "small", "edges"]
)
def test_logits_are_those_of_the_dequantized_model(
    hidden, width, scale_dtype, reference_model, load, dense_logits, difference, tmp_path
):
    model = reference_model(
        "qwen3_moe", hidden_size=hidden, moe_intermediate_size=width, num_experts=4
    )
    dequantized = write_fp8(model, tmp_path, scale_dtype)
    weights = load(tmp_path)
    for tokens in (1, 33):
        with torch.no_grad():
            expected = dequantized(prompt(tokens)[None]).logits[0]
            unquantized = model(prompt(tokens)[None]).logits[0]
        assert difference(dense_logits(weights, prompt(tokens)), expected) < 1e-4
        assert difference(expected, unquantized) > 1e-3


def test_weights_are_those_of_transformers_own_dequantization(reference_model, tmp_path):
    """Called by itself: ``from_pretrained`` would want the package accelerate for it."""
    # Whole blocks everywhere: it takes the block size from the number of scales.
    whole = {"hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 4}
    model = reference_model("qwen3_moe", **whole, moe_intermediate_size=128)
    write_fp8(model, tmp_path, torch.float32)
    dequantization = Fp8Dequantize(None)
    tensors = {}
    for shard in tmp_path.glob("*.safetensors"):
        tensors |= load_file(shard)
    source = DirectorySource(tmp_path)
    names = [name for name in tensors if is_quantized(name) and not name.endswith("_inv")]
    assert len(names) == 3 * (4 + 8 * 3)
    for name in names:
        pair = {name: [tensors[name]], name + "_scale_inv": [tensors[name + "_scale_inv"]]}
        [expected] = dequantization.convert(pair)[name]
        torch.testing.assert_close(source.read(name, tuple(expected.shape)), expected)


def test_missing_and_misshapen_scales(reference_model, load, tmp_path):
    write_fp8(reference_model("qwen3_moe"), tmp_path)
    name = "model.layers.1.mlp.experts.2.up_proj.weight_scale_inv"
    weight_map = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    shard = tmp_path / weight_map[name]
    tensors = load_file(shard)
    save_file(tensors | {name: torch.ones(7, 1)}, shard)
    with pytest.raises(ModelFileError, match=rf"{name} has shape \[7, 1\], not \[1, 1\]"):
        load(tmp_path)
    del tensors[name]
    save_file(tensors, shard)
    with pytest.raises(ModelFileError, match=f"{shard.name}: tensor {name} is missing"):
        load(tmp_path)
