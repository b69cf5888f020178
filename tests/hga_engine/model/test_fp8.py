"""Checkpoints like Qwen3-30B-A3B-Instruct-2507-FP8: e4m3 with one scale per 128x128 block."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from hga_engine.errors import ModelFileError
from hga_engine.model.directory import DirectorySource
from hga_engine.model.files import ModelFiles
from hga_engine.model.load import load_model
from tests.support.fp8_checkpoint import is_quantized, write_fp8


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
    """It is called directly, because ``from_pretrained`` would need the package accelerate."""
    # Whole blocks only: it infers the block size from the number of scales.
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


def test_missing_and_misshapen_scales_are_refused(reference_model, load, tmp_path):
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
