"""Checkpoints like Qwen3-30B-A3B-Instruct-2507-FP8: e4m3 with one scale per 128x128 block."""

import json

import torch
import transformers
from safetensors.torch import load_file, save_file

BLOCK = 128
LARGEST = 448.0  # largest e4m3 value


def quantize(weight):
    """Return e4m3 values and one scale per block, so that each block's largest value is 448."""
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
    """Write the checkpoint; return the model with the weights as the checkpoint rounds them."""
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
