import pytest

from hga_chat.models.files import ModelMissingError
from hga_chat.models.gguf_names import choose, gguf_sets


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("Qwen3-4B-Instruct-2507-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("Meta-Llama-3.1-8B-Instruct.Q8_0.gguf", "Q8_0"),
        ("model-IQ4_XS.gguf", "IQ4_XS"),
        ("model-BF16.gguf", "BF16"),
        ("q5_0.GGUF", "Q5_0"),
        ("model.gguf", "model"),
    ],
)
def test_the_quantisation_is_the_end_of_the_name(name, quant):
    (found,) = gguf_sets([name])
    assert found.quant == quant
    assert found.is_complete


def test_parts_of_a_split_file_are_one_model_in_order():
    names = [f"Q6_K/big-Q6_K-0000{n}-of-00003.gguf" for n in (3, 1, 2)]
    (found,) = gguf_sets(names)
    assert found.names == tuple(sorted(names))
    assert (found.quant, found.stem, found.is_complete) == ("Q6_K", "big-Q6_K", True)
    (partial,) = gguf_sets(names[:2])
    assert not partial.is_complete


def test_files_that_are_no_models_are_left_out():
    names = ["mmproj-F16.gguf", "imatrix.gguf", "README.md", "gguf", "a-00002-of-00001.gguf"]
    assert gguf_sets(names) == []


def test_a_person_names_a_quantisation_in_any_case_or_a_file():
    sets = gguf_sets(["m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-UD-Q8_0.gguf"])
    for wanted in ("q8_0", "m-q8_0", "M-Q8_0.gguf"):
        assert choose(sets, wanted, "r").names == ("m-Q8_0.gguf",)
    assert choose(sets, None, "r").quant == "Q4_K_M"
    assert choose(sets[1:2], None, "r").quant == "Q8_0"


def test_absence_and_ambiguity_list_what_there_is():
    sets = gguf_sets(["a-Q8_0.gguf", "b-Q8_0.gguf", "a-Q5_K_M.gguf"])
    with pytest.raises(ModelMissingError, match=r"r has no q4_0: Q5_K_M, Q8_0, Q8_0\."):
        choose(sets, "q4_0", "r")
    with pytest.raises(ModelMissingError, match=r"more than one q8_0; .*: a-Q8_0\.gguf, b-Q8_0"):
        choose(sets, "q8_0", "r")
    with pytest.raises(ModelMissingError, match=r"r holds several models; name one: Q5_K_M"):
        choose(sets, None, "r")
