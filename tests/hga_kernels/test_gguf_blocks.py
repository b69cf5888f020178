"""Every block format against the ``gguf`` library's own dequantisation."""

import gguf
import pytest
import torch

from hga_kernels.gguf_blocks import FORMATS, from_planes, to_planes, unpack
from hga_kernels.weights import Packed, RowParts
from tests.support.packed_weights import random_rows


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_are_unpacked_as_by_the_gguf_library(name):
    data = random_rows(name, 3, 5)
    expected = gguf.dequantize(data.numpy(), gguf.GGMLQuantizationType[name])
    torch.testing.assert_close(unpack(data, name), torch.from_numpy(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", FORMATS)
def test_formats_have_the_sizes_of_ggml(name):
    kind = gguf.GGMLQuantizationType[name]
    assert gguf.GGML_QUANT_SIZES[kind] == (FORMATS[name].size, FORMATS[name].bytes)


def test_stacked_experts_are_unpacked_one_by_one():
    data = random_rows("Q4_K", 6, 2).view(2, 3, -1)
    weight = Packed(data, "Q4_K")
    assert weight.shape == (2, 3, 512)
    torch.testing.assert_close(weight[1].dequantize(torch.float32), unpack(data, "Q4_K")[1])


def test_row_parts_are_one_below_the_other():
    q, v = Packed(random_rows("Q4_K", 4, 1), "Q4_K"), Packed(random_rows("Q6_K", 2, 1), "Q6_K")
    weight = RowParts((q, v, torch.ones(1, 256)))
    assert weight.shape == (7, 256)
    rows = weight.dequantize(torch.float32)
    torch.testing.assert_close(rows[4:6], v.dequantize(torch.float32))
    assert (rows[6] == 1).all()


@pytest.mark.parametrize("name", FORMATS)
def test_planes_hold_the_fields_of_all_blocks_of_a_matrix(name):
    data = random_rows(name, 6, 2).view(2, 3, -1)
    planes = to_planes(data, name)
    assert planes.shape == data.shape
    block, first = FORMATS[name], 0
    assert sum(block.fields) == block.bytes
    assert [size for _, size in block.planes] == sorted(block.fields, reverse=True)
    for start, size in block.planes:
        for matrix, own in zip(data.view(2, -1), planes.view(2, -1), strict=True):
            blocks = range(start, len(matrix), block.bytes)
            whole = torch.cat([matrix[at : at + size] for at in blocks])
            assert torch.equal(own[first : first + len(whole)], whole)
        first += len(whole)
    assert torch.equal(from_planes(planes, name), data)
    weight = Packed(data.clone(), name)
    planar = weight.planar()
    assert planar.data.data_ptr() == weight.data.data_ptr()
    assert planar.shape == weight.shape
    torch.testing.assert_close(planar[1].dequantize(torch.float32), unpack(data, name)[1])
