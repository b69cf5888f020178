"""RoPE scaling, held against transformers' own."""

import json
from dataclasses import replace

import gguf
import pytest
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from hga_engine.architectures import ARCHITECTURES
from hga_engine.config import RopeScaling
from hga_engine.errors import LongContextError
from hga_engine.model.config_json import read_config
from hga_engine.model.files import ModelFiles
from hga_engine.model.load import load_model, read_model_config
from hga_engine.model.rope import for_context, frequencies
from tests.support.gguf_model import write_gguf

ORIGINAL = 64
"""Positions of the first training; texts are longer."""
LINEAR = {"rope_type": "linear", "rope_theta": 50_000.0, "factor": 4.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 50_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": ORIGINAL,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 50_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": ORIGINAL,
}
SCALINGS = {"linear": LINEAR, "yarn": YARN, "llama3": LLAMA3}
CASES = [
    LINEAR,
    YARN,
    YARN | {"factor": 1.5, "rope_theta": 1e6, "original_max_position_embeddings": 32_768},
    YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "original_max_position_embeddings": 4096},
    YARN | {"attention_factor": 1.25},
    YARN | {"mscale": 0.707, "mscale_all_dim": 1.0},
    LLAMA3,
    LLAMA3 | {"rope_theta": 500_000.0, "original_max_position_embeddings": 8192},
    LLAMA3 | {"factor": 32.0, "low_freq_factor": 2.0, "high_freq_factor": 16.0},
]


def prompt(tokens):
    return torch.randint(0, 101, (tokens,), generator=torch.Generator().manual_seed(tokens))


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("parameters", CASES)
@pytest.mark.parametrize("spelling", ["rope_parameters", "rope_scaling"])
def test_frequencies_are_those_of_transformers(parameters, spelling, reference_model, tmp_path):
    config = reference_model("llama", rope_parameters=parameters, head_dim=64).config
    expected, attention_factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config)
    config.save_pretrained(tmp_path)
    if spelling == "rope_scaling":
        old = {name: value for name, value in parameters.items() if name != "rope_theta"}
        old["type"] = old.pop("rope_type")
        base = parameters["rope_theta"]
        path = tmp_path / "config.json"
        edit_json(path, rope_parameters=None, rope_scaling=old, rope_theta=base)
    model = read_config(tmp_path).model
    assert model.rope_scaling is not None
    found = frequencies(model)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, rtol=1e-5, atol=0)
    assert model.rope_scaling.attention_factor == pytest.approx(attention_factor)


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_beyond_the_original_positions_are_those_of_transformers(
    kind, architecture, reference_model, dense_logits, difference, tmp_path
):
    model = reference_model(
        architecture, rope_parameters=SCALINGS[kind], max_position_embeddings=512
    )
    model.save_pretrained(tmp_path)
    write_gguf(model, tmp_path / "model.gguf", **in_gguf(model, kind))
    with torch.no_grad():
        expected = model(prompt(4 * ORIGINAL)[None]).logits[0]
        model.model.rotary_emb.inv_freq = unscaled = 50_000.0 ** -(torch.arange(0, 32, 2) / 32)
        model.model.rotary_emb.attention_scaling = 1.0
        assert unscaled.shape == (16,)
        without = model(prompt(4 * ORIGINAL)[None]).logits[0]
    # The scaling shows in the logits, so that these tests can fail.
    assert difference(without, expected) > 0.02
    for files in (
        ModelFiles("test", tmp_path, None),
        ModelFiles("test", None, tmp_path / "model.gguf"),
    ):
        logits = dense_logits(load_model(files, torch.float32), prompt(4 * ORIGINAL))
        assert difference(logits, expected) < 2e-4


def in_gguf(model, kind):
    """Return what llama.cpp's converter writes about a model's RoPE scaling."""
    if kind == "llama3":
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](model.config)
        plain = 50_000.0 ** -(torch.arange(0, 32, 2) / 32)
        return {"tensors": [("rope_freqs.weight", (plain / scaled).numpy())]}
    metadata = [
        ("add_rope_scaling_type", gguf.RopeScalingType(kind)),
        ("add_rope_scaling_factor", 4.0),
    ]
    if kind == "yarn":
        metadata.append(("add_rope_scaling_orig_ctx_len", ORIGINAL))
    return {"metadata": metadata}


def test_yarn_of_a_gguf_file_takes_its_own_numbers(reference_model, tmp_path):
    path = tmp_path / "model.gguf"
    metadata = [
        ("add_rope_scaling_type", gguf.RopeScalingType.YARN),
        ("add_rope_scaling_factor", 4.0),
        ("add_rope_scaling_orig_ctx_len", 256),
        ("add_rope_scaling_attn_factors", 0.5),
        ("add_rope_scaling_yarn_attn_factor", 1.5),
        ("add_rope_scaling_yarn_beta_fast", 24.0),
        ("add_rope_scaling_yarn_beta_slow", 2.0),
    ]
    write_gguf(reference_model("qwen2"), path, metadata=metadata)
    config = read_model_config(ModelFiles("test", None, path))
    assert config.max_positions == 1024
    assert config.rope_scaling == RopeScaling("yarn", 4.0, 256, 0.75, 24.0, 2.0)


@pytest.mark.parametrize(
    ("parameters", "stated", "native"),
    [
        ({"rope_type": "default", "rope_theta": 1e6}, 512, 512),
        (LINEAR, 512, 2048),
        (YARN, ORIGINAL, 4 * ORIGINAL),
        (YARN, 4 * ORIGINAL, 4 * ORIGINAL),
        (LLAMA3, 512, 512),
    ],
)
def test_the_native_context_is_that_after_scaling(
    parameters, stated, native, reference_model, tmp_path
):
    model = reference_model("llama", rope_parameters=parameters, max_position_embeddings=stated)
    model.config.save_pretrained(tmp_path)
    assert read_config(tmp_path).model.max_positions == native


@pytest.fixture
def plain(reference_model, tmp_path):
    """A model without scaling, of 512 positions."""
    reference_model("qwen2").config.save_pretrained(tmp_path)
    return read_config(tmp_path).model


def test_a_context_within_the_native_one_changes_nothing(plain):
    assert for_context(plain, 512) is plain


def test_a_longer_context_takes_yarn_as_transformers_computes_it(plain, reference_model):
    stretched = for_context(plain, 2048)
    parameters = YARN | {"original_max_position_embeddings": 512}
    config = reference_model("qwen2", rope_parameters=parameters).config
    expected, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](config)
    torch.testing.assert_close(frequencies(stretched).float(), expected, rtol=1e-5, atol=0)
    assert stretched.rope_scaling is not None
    assert stretched.rope_scaling.attention_factor == pytest.approx(attention_factor)
    assert str(stretched.rope_scaling) == "YaRN x4"
    assert for_context(stretched, 2048) == stretched


def test_a_longer_context_stretches_the_yarn_of_the_files(plain):
    own = RopeScaling("yarn", 4.0, 128, 0.5 * (1 + 0.1 * 1.3862943611198906))
    stretched = for_context(replace(plain, rope_scaling=own), 1024)
    assert stretched.rope_scaling is not None
    assert stretched.rope_scaling.factor == 8
    assert stretched.rope_scaling.original_positions == 128
    # ln 8 is 2.0794.
    assert stretched.rope_scaling.attention_factor == pytest.approx(0.5 * 1.2079441541679836)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope_scaling": RopeScaling("linear", 4.0, 128)}, "linear x4"),
        ({"rope_scaling": RopeScaling("llama3", 8.0, 64)}, "Llama 3's x8"),
        ({"sliding_window": 512}, "slides over a window"),
    ],
)
def test_other_models_end_at_their_native_context(plain, changes, words):
    limited = replace(plain, **changes)
    assert for_context(limited, 512) == limited
    with pytest.raises(LongContextError, match=rf"513 tokens is beyond the 512 .*{words}"):
        for_context(limited, 513)


@pytest.mark.parametrize(
    ("architecture", "changes", "window"),
    [
        ("mistral", {"sliding_window": 96}, 96),
        ("mistral", {"sliding_window": None}, None),
        ("qwen2", {"sliding_window": 96, "use_sliding_window": False}, None),
    ],
)
def test_a_sliding_window_ends_the_context(
    architecture, changes, window, reference_model, tmp_path
):
    reference_model(architecture, **changes).config.save_pretrained(tmp_path)
    model = read_config(tmp_path).model
    assert (model.sliding_window, model.max_positions) == (window, window or 512)


def test_mistral_slides_over_4096_tokens_if_its_file_does_not_say(reference_model, tmp_path):
    config = reference_model("mistral", max_position_embeddings=32_768).config
    config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    entries = json.loads(path.read_text())
    del entries["sliding_window"]
    path.write_text(json.dumps(entries))
    assert read_config(tmp_path).model.max_positions == type(config)().sliding_window == 4096
