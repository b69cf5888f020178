import random

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hga_engine.architectures import ARCHITECTURES
from hga_engine.errors import ModelFileError
from hga_engine.model.adapter import AdaptedSource
from hga_engine.model.files import ModelFiles
from hga_engine.model.gguf import GgufSource
from hga_engine.model.gguf_file import GgufFile
from hga_engine.model.load import load_model
from hga_engine.tokenizer.load import load_tokenizer
from tests.support.gguf_model import gguf_name, write_gguf


def load(path, dtype=torch.float32):
    return load_model(ModelFiles("test", None, path), dtype)


def prompt(tokens):
    return torch.randint(0, 101, (tokens,), generator=torch.Generator().manual_seed(tokens))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_1"])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "llama-tied"])
def test_logits_are_those_of_transformers(
    kind, architecture, reference_model, dense_logits, difference, tmp_path
):
    width = {"moe_intermediate_size": 64} if architecture == "qwen3_moe" else {}
    model = reference_model(architecture, **width)
    path = tmp_path / "model.gguf"
    held = write_gguf(model, path, gguf.GGMLQuantizationType[kind])
    model.load_state_dict(held, strict=not model.config.tie_word_embeddings)
    weights = load(path)
    assert weights.config.tie_embeddings is model.config.tie_word_embeddings
    with torch.no_grad():
        expected = model(prompt(33)[None]).logits[0]
    # C kernels multiply packed weights with inputs of 16 bits.
    limit = 1e-4 if kind in ("F32", "BF16") else 2e-3
    assert difference(dense_logits(weights, prompt(33)), expected) < limit


@pytest.mark.parametrize(
    ("metadata", "tensors", "words"),
    [
        (
            [("add_rope_scaling_type", gguf.RopeScalingType.LONGROPE)],
            [],
            "'longrope' .* linear and yarn",
        ),
        (
            [("add_rope_scaling_factor", 4.0)],
            [("rope_freqs.weight", np.ones(16, np.float32))],
            "beside linear",
        ),
        ([], [("rope_freqs.weight", np.zeros(16, np.float32))], "rope_freqs.weight is damaged"),
        ([("add_expert_count", 8)], [], "experts"),
        ([], [("blk.0.attn_q.bias", np.ones(192, np.float32))], r"blk\.0\.attn_q\.bias"),
        ([("add_value_length", 16)], [], "values of dimension 16"),
    ],
)
def test_unsupported_models_are_refused(metadata, tensors, words, reference_model, tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(reference_model("llama"), path, metadata=metadata, tensors=tensors)
    with pytest.raises(ModelFileError, match=words):
        load(path)


@pytest.mark.parametrize("name", ["gemma3", "phi3", "qwen2moe", "qwen35moe", "deepseek2", "mamba"])
def test_other_architectures_are_refused_by_name(name, tmp_path):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, name)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        ModelFileError, match=rf"model\.gguf: .*'{name}' .* llama, qwen2, qwen3, qwen3moe\."
    ):
        load(path)


def test_missing_tensors_and_files_are_named(reference_model, tmp_path):
    path = tmp_path / "model.gguf"
    model = reference_model("llama")
    model.config.num_hidden_layers = 4
    write_gguf(model, path)
    with pytest.raises(ModelFileError, match=r"model\.gguf: tensor blk\.3\.\S+ is missing"):
        load(path)
    with pytest.raises(ModelFileError, match=r"nowhere\.gguf: cannot be read"):
        load(tmp_path / "nowhere.gguf")


def test_a_file_truncated_anywhere_is_refused(reference_model, tmp_path):
    whole = tmp_path / "whole.gguf"
    write_gguf(reference_model("llama"), whole)
    data = whole.read_bytes()
    chance = random.Random(3)
    lengths = [0, 3, 4, 20, 24, len(data) - 1, *(chance.randrange(len(data)) for _ in range(60))]
    for number, length in enumerate(lengths):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match=rf"{number}\.gguf: "):
            load(path)


ARRAYS = {
    "strings": ["", "a", "\u0120the", "e\u0301", "x" * 300],
    "numbers": [1, 2, -3],
    "fractions": [0.5, -1.25],
    "flags": [True, False],
    "lists": [[1, 2], [3, 4]],
    "one": ["only"],
}


def write_arrays(path):
    writer = gguf.GGUFWriter(path, "llama")
    for key, values in ARRAYS.items():
        writer.add_array(key, values)
    writer.add_string("last", "end")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_arrays_equal_those_of_the_library(tmp_path):
    write_arrays(tmp_path / "a.gguf")
    file = GgufFile(tmp_path / "a.gguf")
    library = gguf.GGUFReader(tmp_path / "a.gguf")
    for key in (*ARRAYS, "last"):
        if key != "lists":  # the library joins them
            assert file._contents(key) == library.fields[key].contents()
    assert file._contents("lists") == ARRAYS["lists"]
    assert file.values("strings", str) == ARRAYS["strings"]
    assert file.value("last", str) == "end"


def test_damaged_arrays_are_refused(tmp_path):
    write_arrays(tmp_path / "a.gguf")
    data = (tmp_path / "a.gguf").read_bytes()
    place = data.index(b"strings") + len("strings") + 4
    count, first_length = place + 4, place + 12
    for offset in (count, count + 7, first_length, first_length + 7):
        damaged = bytearray(data)
        damaged[offset] = 255
        (tmp_path / "b.gguf").write_bytes(damaged)
        with pytest.raises(ModelFileError, match=r"b\.gguf: is (truncated or )?damaged"):
            GgufFile(tmp_path / "b.gguf")


def test_damage_in_the_header_is_an_error_or_harmless(reference_model, tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(reference_model("llama"), path)
    data = path.read_bytes()
    header = data.index(b"blk.2.ffn_down.weight")
    chance = random.Random(4)
    refused = 0
    for number in range(150):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 1, 8])):
            damaged[chance.randrange(header)] ^= chance.randrange(1, 256)
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(damaged)
        try:
            load(path)
        except ModelFileError:
            refused += 1
        path.unlink()
    assert refused > 50


@pytest.fixture(scope="module")
def embedded_reference(embedded_model):
    """The embedded model in transformers, from the file through ``gguf`` alone."""

    def make(adapted):
        reader = gguf.GGUFReader(embedded_model.gguf)
        tensors = {
            tensor.name: torch.from_numpy(
                np.array(gguf.dequantize(tensor.data, tensor.tensor_type))
            )
            for tensor in reader.tensors
        }
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=49_152,
                hidden_size=576,
                intermediate_size=1536,
                num_hidden_layers=30,
                num_attention_heads=9,
                num_key_value_heads=3,
                max_position_embeddings=65_536 if adapted else 8192,
                rms_norm_eps=1e-5,
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": 100_000 * 16 ** (64 / 62) if adapted else 100_000.0,
                },
                tie_word_embeddings=True,
            )
        ).eval()
        factors = {}
        for path in embedded_model.adapters if adapted else ():
            factors |= load_file(path)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                weight = tensors[gguf_name(name)]
                if name.endswith(("q_proj.weight", "k_proj.weight")):
                    halves = [row for first in (0, 1) for row in range(first, 64, 2)]
                    weight = weight.unflatten(0, (-1, 64))[:, halves].flatten(0, 1)
                place = ".".join(name.split(".")[2:5:2])
                if f"{place}.a" in factors:
                    second, first = factors[f"{place}.b"].double(), factors[f"{place}.a"].double()
                    steps = factors[f"{place}.scale"].double()
                    weight = (weight.double() + second @ steps.diag() @ first).float()
                parameter.copy_(weight)
        return model

    return make


@pytest.mark.weights
@pytest.mark.parametrize("adapted", [False, True], ids=["base", "adapted"])
def test_embedded_model_gives_the_logits_of_transformers(
    adapted, embedded_model, embedded_reference, dense_logits, difference
):
    files = embedded_model if adapted else ModelFiles("base", None, embedded_model.gguf)
    weights = load_model(files, torch.float32)
    model = embedded_reference(adapted)
    tokenizer = load_tokenizer(embedded_model)
    chat = [
        *tokenizer.opening(None),
        *tokenizer.encode("What is the capital of France?"),
        *tokenizer.to_answer(),
        *tokenizer.encode("The capital of France is"),
    ]
    noise = torch.randint(0, 49_152, (129,), generator=torch.Generator().manual_seed(1))
    for token_ids in (noise, torch.tensor(chat)):
        with torch.no_grad():
            expected = model(token_ids[None]).logits[0]
        logits = dense_logits(weights, token_ids)
        # C kernels multiply packed weights, which the base has, with inputs of 16 bits.
        assert difference(logits, expected) < (1e-4 if adapted else 5e-3)
    assert tokenizer.decode([int(logits[-1].argmax())]) == " Paris"


def test_adapters_are_merged_into_gguf_weights(reference_model, tmp_path):
    path = tmp_path / "model.gguf"
    model = reference_model("llama")
    write_gguf(model, path)
    first, second = torch.randn(4, 96), torch.randn(64, 4)
    save_file({"1.k_proj.a": first, "1.k_proj.b": second}, tmp_path / "adapter.safetensors")
    source = AdaptedSource(GgufSource(GgufFile(path)), [tmp_path / "adapter.safetensors"])
    name = "model.layers.1.self_attn.k_proj.weight"
    expected = model.get_parameter(name).detach() + second @ first
    torch.testing.assert_close(source.read(name, (64, 96)), expected)
