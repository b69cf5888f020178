"""Streamed weights hold the same numbers as those read one tensor at a time."""

import json
import os
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from hga_engine.errors import ModelFileError
from hga_engine.model import stream
from hga_engine.model.directory import DirectorySource
from hga_engine.model.files import ModelFiles
from hga_engine.model.layout import model_layout
from hga_engine.model.load import load_model
from hga_engine.model.source import assemble
from hga_kernels.weights import BlockScaled
from tests.support.fp8_checkpoint import is_quantized, write_fp8

WHOLE = {"hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 4}
EXPERTS = {"num_experts": 4, "moe_intermediate_size": 128}


def load(directory, dtype=torch.float32, progress=None, keep_fp8=True):
    files = ModelFiles("fp8", directory, None)
    return load_model(files, dtype, progress, torch.device("cpu"), keep_fp8)


def read(directory, dtype=torch.float32):
    """The weights, read and converted one tensor at a time."""
    return assemble(DirectorySource(directory), dtype)


@pytest.fixture
def through_buffers(monkeypatch):
    """Read as for a GPU."""
    device = torch.device("cpu")
    monkeypatch.setattr(
        stream,
        "_read_in_place",
        lambda moves, report: stream._read_through_buffers(moves, device, report),
    )


@pytest.fixture(params=["in place", "through buffers"])
def way(request):
    """Both ways to read."""
    if request.param == "through buffers":
        request.getfixturevalue("through_buffers")


def same(found, expected):
    """Whether every weight dequantises to exactly the same numbers."""

    def plain(weight):
        return weight.dequantize(torch.float32) if isinstance(weight, BlockScaled) else weight

    assert torch.equal(found.embedding, expected.embedding)
    assert torch.equal(found.lm_head, expected.lm_head)
    assert torch.equal(found.final_norm, expected.final_norm)
    for layer, other in zip(found.layers, expected.layers, strict=True):
        for name, weight in vars(layer).items():
            if weight is None:
                assert vars(other)[name] is None
            else:
                torch.testing.assert_close(plain(weight), plain(vars(other)[name]), rtol=0, atol=0)
    return found.config == expected.config


@pytest.fixture
def checkpoint(reference_model, tmp_path):
    """A tiny qwen3_moe checkpoint of whole blocks."""
    write_fp8(reference_model("qwen3_moe", **WHOLE, **EXPERTS), tmp_path)
    return tmp_path


def test_whole_blocks_stay_fp8(checkpoint):
    weights = load(checkpoint, torch.bfloat16)
    for layer in weights.layers:
        for weight in (layer.qkv, layer.output, layer.gate_up, layer.down):
            assert isinstance(weight, BlockScaled)
            assert (weight.values.dtype, weight.scales.dtype) == (
                torch.float8_e4m3fn,
                torch.float32,
            )
        assert (layer.qkv.shape, layer.qkv.scales.shape) == ((512, 256), (4, 2))
        assert (layer.gate_up.shape, layer.gate_up.scales.shape) == ((4, 256, 256), (4, 2, 2))
        assert (layer.down.shape, layer.down.scales.shape) == ((4, 256, 128), (4, 2, 1))
        assert layer.attention_norm.dtype == layer.expert_gate.dtype == torch.bfloat16
    assert weights.lm_head.dtype == weights.embedding.dtype == torch.bfloat16


def test_weights_are_those_of_transformers_own_dequantization(reference_model, tmp_path):
    # Its result has the dtype of the scales.
    write_fp8(reference_model("qwen3_moe", **WHOLE, **EXPERTS), tmp_path, torch.float32)
    tensors = {}
    for shard in tmp_path.glob("*.safetensors"):
        tensors |= load_file(shard)
    dequantization = Fp8Dequantize(None)

    def expected(*names):
        parts = []
        for name in names:
            pair = {name: [tensors[name]], name + "_scale_inv": [tensors[name + "_scale_inv"]]}
            parts += dequantization.convert(pair)[name]
        return torch.cat(parts)

    for number, layer in enumerate(load(tmp_path).layers):
        prefix = f"model.layers.{number}."
        attention, experts = prefix + "self_attn.", prefix + "mlp.experts."
        found = layer.qkv.dequantize(torch.float32)
        names = [f"{attention}{part}_proj.weight" for part in "qkv"]
        torch.testing.assert_close(found, expected(*names))
        found = layer.output.dequantize(torch.float32)
        torch.testing.assert_close(found, expected(attention + "o_proj.weight"))
        gate_up, down = (w.dequantize(torch.float32) for w in (layer.gate_up, layer.down))
        for expert in range(4):
            names = [f"{experts}{expert}.{part}_proj.weight" for part in ("gate", "up", "down")]
            torch.testing.assert_close(gate_up[expert], expected(*names[:2]))
            torch.testing.assert_close(down[expert], expected(names[2]))


@pytest.mark.parametrize(
    ("hidden", "heads", "width", "scale_dtype", "fp8"),
    [
        (256, 8, 128, torch.bfloat16, {"qkv", "output", "gate_up", "down"}),
        (256, 8, 128, torch.float32, {"qkv", "output", "gate_up", "down"}),
        (160, 6, 48, torch.float32, {"output", "down"}),
        (288, 8, 200, torch.bfloat16, {"qkv", "output", "down"}),
    ],
    ids=["whole", "whole-float32", "small", "edges"],
)
def test_parts_that_share_a_block_are_dequantised(
    hidden, heads, width, scale_dtype, fp8, reference_model, tmp_path, way
):
    changes = {"hidden_size": hidden, "num_attention_heads": heads, "num_experts": 2}
    changes |= {"num_key_value_heads": heads // 2, "moe_intermediate_size": width}
    changes |= {"num_hidden_layers": 2, "num_experts_per_tok": 2}
    write_fp8(reference_model("qwen3_moe", **changes), tmp_path, scale_dtype)
    weights = load(tmp_path)
    for layer in weights.layers:
        scaled = {name for name, weight in vars(layer).items() if isinstance(weight, BlockScaled)}
        assert scaled == fp8
    assert same(weights, read(tmp_path))
    assert same(load(tmp_path, keep_fp8=False), read(tmp_path))


def test_one_part_in_bf16_makes_the_joined_weight_bf16(checkpoint):
    """Some checkpoints leave single modules unquantised."""
    name = "model.layers.1.self_attn.k_proj.weight"
    listed = json.loads((checkpoint / "model.safetensors.index.json").read_text())["weight_map"]
    tensors = load_file(checkpoint / listed[name])
    tensors[name] = tensors[name].bfloat16()
    save_file(tensors, checkpoint / listed[name])
    weights = load(checkpoint)
    kinds = [isinstance(layer.qkv, BlockScaled) for layer in weights.layers]
    assert kinds == [True, False, True]
    assert same(weights, read(checkpoint))


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "qwen3_moe-mixed"])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
def test_checkpoints_without_fp8(kind, stored, reference_model, tmp_path, way):
    reference_model(kind).to(stored).save_pretrained(tmp_path, max_shard_size="100KB")
    for dtype in (torch.bfloat16, torch.float32):
        weights = load(tmp_path, dtype)
        assert same(weights, read(tmp_path, dtype))
        assert (weights.lm_head is weights.embedding) == (kind == "llama-tied")
        assert weights.device_bytes() == 0
        assert weights.host_bytes() == weights.bytes()


def test_files_are_read_front_to_back_in_pieces(
    reference_model, tmp_path, monkeypatch, through_buffers
):
    """Also a tensor that is larger than a buffer and not aligned with it."""
    # On a CPU, scales in bf16 would be converted apart from the rest.
    checkpoint = tmp_path
    write_fp8(reference_model("qwen3_moe", **WHOLE, **EXPERTS), checkpoint, torch.float32)
    expected = load(checkpoint, torch.bfloat16)
    monkeypatch.setattr(stream, "_BUFFER_BYTES", 40_008)
    monkeypatch.setattr(stream, "_READ_BYTES", 1 << 20)
    reads = []

    def preadv(file, views, offset):
        reads.append((os.readlink(f"/proc/self/fd/{file}"), offset, sum(map(len, views))))
        return original(file, views, offset)

    original = os.preadv
    monkeypatch.setattr(os, "preadv", preadv)
    assert same(load(checkpoint, torch.bfloat16), expected)
    assert reads == sorted(reads)
    for (path, offset, size), (following, start, _) in pairwise(reads):
        assert path != following or start == offset + size
    sizes = {str(path): path.stat().st_size for path in checkpoint.glob("*.safetensors")}
    assert {path for path, _, _ in reads} == sizes.keys()
    assert 0 < sum(sizes.values()) - sum(size for *_, size in reads) < 100_000  # the headers


def test_short_reads_are_continued(checkpoint, monkeypatch, way):
    original = os.preadv
    monkeypatch.setattr(os, "preadv", lambda f, views, at: original(f, [views[0][:9999]], at))
    assert same(load(checkpoint), read(checkpoint))


def test_tensors_unknown_to_the_model_are_ignored(checkpoint):
    path = checkpoint / "model-00001-of-00002.safetensors"
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)}
    save_file(load_file(path) | more, path)
    assert same(load(checkpoint), read(checkpoint))


def test_progress_counts_bytes(checkpoint, monkeypatch, way):
    monkeypatch.setattr(stream, "_BUFFER_BYTES", 40_000)
    monkeypatch.setattr(stream, "_READ_BYTES", 40_000)
    seen = []
    load(checkpoint, torch.bfloat16, lambda text, share: seen.append(share))
    assert seen == sorted(seen)
    assert seen[-1] == 1
    total = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    steps = [after - before for before, after in zip([0, *seen], seen, strict=False)]
    assert max(steps) < 40_000 / total * 1.1


def test_rope_base_and_positions_are_overridden(checkpoint):
    files = ModelFiles("test", checkpoint, None, rope_base=123.0, max_positions=9)
    config = load_model(files, torch.bfloat16, keep_fp8=True).config
    assert (config.rope_base, config.max_positions) == (123.0, 9)


def test_adapters_are_merged_into_dequantised_weights(checkpoint, tmp_path):
    adapter = tmp_path / "adapter.safetensors"
    save_file({"0.k_proj.a": torch.randn(4, 256), "0.k_proj.b": torch.randn(128, 4)}, adapter)
    files = ModelFiles("fp8", checkpoint, None, (adapter,))
    weights = load_model(files, torch.float32, keep_fp8=True)
    plain = read(checkpoint)
    assert not torch.equal(weights.layers[0].qkv, plain.layers[0].qkv)
    assert same(
        replace(weights, layers=weights.layers[1:]), replace(plain, layers=plain.layers[1:])
    )


def test_missing_misshapen_and_unsupported_tensors_are_named(checkpoint):
    listed = json.loads((checkpoint / "model.safetensors.index.json").read_text())["weight_map"]
    name = "model.layers.1.mlp.experts.2.up_proj.weight_scale_inv"
    shard = checkpoint / listed[name]
    tensors = load_file(shard)
    save_file(tensors | {name: torch.ones(7, 1)}, shard)
    with pytest.raises(ModelFileError, match=rf"{name} has shape \[7, 1\], not \[1, 2\]"):
        load(checkpoint)
    save_file(tensors | {name: torch.ones(1, 2, dtype=torch.int32)}, shard)
    with pytest.raises(ModelFileError, match=rf"{shard.name}: tensor {name} is I32"):
        load(checkpoint)
    del tensors[name]
    save_file(tensors, shard)
    with pytest.raises(ModelFileError, match=f"{shard.name}: tensor {name} is missing"):
        load(checkpoint)


def test_fp8_without_its_configuration_is_refused(checkpoint):
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    del config["quantization_config"]
    path.write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="no quantization_config"):
        load(checkpoint)


def test_a_file_that_is_truncated_while_it_is_read_is_named(checkpoint, monkeypatch, way):
    original = os.preadv
    monkeypatch.setattr(stream, "_BUFFER_BYTES", 40_000)
    monkeypatch.setattr(os, "preadv", lambda f, v, at: original(f, v, at) if at < 99_999 else 0)
    with pytest.raises(ModelFileError, match=r"model-0000.*safetensors: is truncated"):
        load(checkpoint)


def test_a_disk_error_is_reported(checkpoint, monkeypatch, way):
    def preadv(file, views, offset):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(ModelFileError, match=r"cannot be read \(Input/output error\)"):
        load(checkpoint)


def test_layout_names_every_tensor_of_a_checkpoint_once(checkpoint):
    listed = json.loads((checkpoint / "model.safetensors.index.json").read_text())["weight_map"]
    names = [
        part.name
        for joined in model_layout(load(checkpoint).config).all()
        for parts in joined.stacks
        for part in parts
    ]
    scales = [name + "_scale_inv" for name in names if is_quantized(name)]
    assert sorted(names + scales) == sorted(listed)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu(checkpoint, monkeypatch):
    monkeypatch.setattr(stream, "_BUFFER_BYTES", 40_008)
    files = ModelFiles("fp8", checkpoint, None)
    weights = load_model(files, torch.bfloat16, None, torch.device("cuda"))
    assert weights.embedding.is_pinned()
    assert weights.device_bytes() + weights.embedding.nbytes == weights.bytes()
    for layer in weights.layers:
        for weight in vars(layer).values():
            held = weight.values if isinstance(weight, BlockScaled) else weight
            assert held.is_cuda
    expected = load(checkpoint, torch.bfloat16)
    for layer, other in zip(weights.layers, expected.layers, strict=True):
        for name, weight in vars(layer).items():
            if isinstance(weight, BlockScaled):
                assert torch.equal(weight.scales.cpu(), vars(other)[name].scales)
                weight, other_values = weight.values.view(torch.uint8), vars(other)[name].values
                assert torch.equal(weight.cpu(), other_values.view(torch.uint8))
            else:
                assert torch.equal(weight.cpu(), vars(other)[name])


@pytest.mark.parametrize(("hidden", "heads", "width"), [(256, 8, 128), (160, 6, 48)])
def test_logits_are_those_of_the_dequantised_model(
    hidden, heads, width, reference_model, dense_logits, difference, tmp_path
):
    changes = {"hidden_size": hidden, "num_attention_heads": heads, "num_experts": 4}
    changes |= {"num_key_value_heads": heads // 2, "moe_intermediate_size": width}
    dequantized = write_fp8(reference_model("qwen3_moe", **changes), tmp_path)
    tokens = torch.arange(20) * 5 % 101
    with torch.no_grad():
        expected = dequantized(tokens[None]).logits[0]
    assert difference(dense_logits(load(tmp_path), tokens), expected) < 1e-4
