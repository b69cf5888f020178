import pytest
import torch
from safetensors.torch import save_file

from hga_engine.errors import ModelFileError
from hga_engine.model.files import ModelFiles
from hga_engine.model.load import load_model

SHAPES = {
    "q_proj": (192, 96),
    "k_proj": (64, 96),
    "v_proj": (64, 96),
    "o_proj": (96, 192),
    "gate_proj": (160, 96),
    "up_proj": (160, 96),
    "down_proj": (96, 160),
}


def factors(layers, rank=4):
    generator = torch.Generator().manual_seed(layers[0])
    tensors = {}
    for layer in layers:
        for module, (rows, columns) in SHAPES.items():
            tensors[f"{layer}.{module}.a"] = torch.randn(rank, columns, generator=generator) / 10
            tensors[f"{layer}.{module}.b"] = torch.randn(rows, rank, generator=generator) / 10
    return {name: tensor.bfloat16() for name, tensor in tensors.items()}


@pytest.fixture
def base(reference_model, tmp_path):
    model = reference_model("llama")
    model.save_pretrained(tmp_path)
    return model


def load(directory, tensors, dtype=torch.float32):
    path = directory / "adapter.safetensors"
    save_file(tensors, path)
    return load_model(ModelFiles("test", directory, None, (path,)), dtype)


def test_merged_model_gives_the_logits_of_the_model_with_products_added(
    base, dense_logits, difference, tmp_path
):
    first, second = factors([0, 1]), factors([2])
    save_file(first, tmp_path / "first.safetensors")
    save_file(second, tmp_path / "second.safetensors")
    paths = (tmp_path / "first.safetensors", tmp_path / "second.safetensors")
    weights = load_model(ModelFiles("test", tmp_path, None, paths), torch.float32)
    token_ids = torch.arange(3, 36)
    with torch.no_grad():
        unadapted = base(token_ids[None]).logits[0]
        for layer in range(3):
            block = base.model.layers[layer]
            for module in SHAPES:
                a = (first | second)[f"{layer}.{module}.a"].double()
                b = (first | second)[f"{layer}.{module}.b"].double()
                part = block.self_attn if module[0] in "qkvo" else block.mlp
                part.get_submodule(module).weight.add_((b @ a).float())
        expected = base(token_ids[None]).logits[0]
    assert difference(dense_logits(weights, token_ids), expected) < 1e-4
    assert difference(unadapted, expected) > 1e-2


def test_merging_rounds_once(base, tmp_path):
    tensors = factors([1])
    weights = load(tmp_path, tensors, torch.bfloat16)
    stored = base.model.layers[1].mlp.down_proj.weight.detach()
    exact = stored.double() + tensors["1.down_proj.b"].double() @ tensors["1.down_proj.a"].double()
    error = (weights.layers[1].down.double() - exact).abs()
    assert (error <= exact.abs() * 2**-8 * 1.001).all()


def quantised(tensors):
    """The factors in int8, and the products that they then stand for."""
    stored, meant = {}, {}
    for stem in {name[:-2] for name in tensors}:
        a, b = tensors[f"{stem}.a"].double(), tensors[f"{stem}.b"].double()
        step_a, step_b = a.abs().amax(1) / 127, b.abs().amax(0) / 127
        stored[f"{stem}.a"] = (a / step_a[:, None]).round().to(torch.int8)
        stored[f"{stem}.b"] = (b / step_b).round().to(torch.int8)
        stored[f"{stem}.scale"] = (step_a * step_b).float()
        scaled = stored[f"{stem}.b"].double() * (step_a * step_b)
        meant[stem] = scaled @ stored[f"{stem}.a"].double()
    return stored, meant


def test_int8_factors_are_scaled_by_rank(base, tmp_path):
    tensors = factors([1])
    stored, meant = quantised(tensors)
    layer, block = load(tmp_path, stored).layers[1], base.model.layers[1]
    for module, merged, part in (
        ("down_proj", layer.down, block.mlp.down_proj),
        ("o_proj", layer.output, block.self_attn.o_proj),
    ):
        expected = part.weight.detach().double() + meant[f"1.{module}"]
        assert (merged.double() - expected).abs().max() < 1e-6
        exact = tensors[f"1.{module}.b"].double() @ tensors[f"1.{module}.a"].double()
        assert (meant[f"1.{module}"] - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"1.q_proj.scale": None}, r"1\.q_proj\.a has no matching 1\.q_proj\.scale"),
        ({"1.q_proj.a": None}, r"1\.q_proj\.(b|scale) has no matching 1\.q_proj\.a"),
        (
            {"1.q_proj.scale": torch.ones(5)},
            r"1\.q_proj\.scale does not have one value for each of 4",
        ),
        ({"2.q_proj.scale": torch.ones(4)}, r"2\.q_proj\.scale has no matching 2\.q_proj\.a"),
    ],
)
def test_int8_factors_that_do_not_fit_are_refused(base, changes, words, tmp_path):
    tensors = quantised(factors([1]))[0] | changes
    tensors = {name: part for name, part in tensors.items() if part is not None}
    with pytest.raises(ModelFileError, match=r"adapter\.safetensors: " + words):
        load(tmp_path, tensors)


def test_layers_without_factors_stay_as_they_are(base, tmp_path):
    weights = load(tmp_path, factors([1]))
    assert torch.equal(weights.layers[0].down, base.model.layers[0].mlp.down_proj.weight)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"1.q_proj.b": None}, r"1\.q_proj\.a has no matching 1\.q_proj\.b"),
        ({"3.q_proj.a": torch.ones(4, 96)}, r"3\.q_proj\.a is not part"),
        ({"lm_head.a": torch.ones(4, 96)}, r"lm_head\.a is not part"),
        ({"1.q_proj.a": torch.ones(4, 95)}, r"1\.q_proj does not fit .*\[192, 96\]"),
        ({"1.q_proj.b": torch.ones(192, 5)}, r"1\.q_proj does not fit"),
        ({"1.q_proj.b": torch.ones(192)}, r"1\.q_proj\.b is not a matrix"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(base, changes, words, tmp_path):
    tensors = {name: part for name, part in (factors([1]) | changes).items() if part is not None}
    with pytest.raises(ModelFileError, match=r"adapter\.safetensors: " + words):
        load(tmp_path, tensors)


def test_unknown_modules_are_refused(base, tmp_path):
    tensors = factors([1]) | {"1.x_proj.a": torch.ones(4, 96), "1.x_proj.b": torch.ones(9, 4)}
    with pytest.raises(ModelFileError, match=r"1\.x_proj\.a is not part"):
        load(tmp_path, tensors)


def test_missing_repeated_and_damaged_adapters_are_refused(base, tmp_path):
    path = tmp_path / "adapter.safetensors"
    files = ModelFiles("test", tmp_path, None, (path,))
    with pytest.raises(ModelFileError, match=r"adapter\.safetensors: the adapter is missing"):
        load_model(files, torch.float32)
    save_file(factors([1]), path)
    doubled = ModelFiles("test", tmp_path, None, (path, path))
    with pytest.raises(ModelFileError, match="is also in"):
        load_model(doubled, torch.float32)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"adapter\.safetensors: the adapter is damaged"):
        load_model(files, torch.float32)
