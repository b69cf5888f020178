"""Packed weights stand for nearly the values that were packed."""

import gguf
import pytest
import torch

from hga_engine.model.packing import pack


@pytest.mark.parametrize(("name", "error"), [("Q4_K", 0.085), ("Q6_K", 0.02)])
def test_the_gguf_library_unpacks_what_is_near(name, error):
    values = torch.randn(3, 5, 1024, generator=torch.Generator().manual_seed(0))
    values[0, 0, :300] = 0
    kind = gguf.GGMLQuantizationType[name]
    found = gguf.dequantize(pack(values, name).flatten(0, 1).numpy(), kind)
    difference = torch.from_numpy(found).view_as(values) - values
    assert float(difference.square().mean().sqrt()) < error
    assert not found[0, :256].any()
