"""Rows of tables, plain and packed, against their definition."""

import pytest
import torch

from hga_kernels import FORMATS, Packed, reference
from tests.support.linear_cases import BF16_ERROR, error, moved, random, weights, wide

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.parametrize("size", [48, 576, 2049])
def test_gather_rows(device: torch.device, size: int) -> None:
    from hga_kernels.gpu.linear.rows import gather_rows

    table = random(37, size, seed=size)
    if device.type == "cuda":
        table = table.pin_memory()
    ids = torch.tensor([0, 36, 5, 5, -1, 37, 2**40, 1], device=device)
    found = gather_rows(ids, table)
    assert found is not None
    rows = found.cpu()
    assert torch.equal(rows[[0, 1, 2, 3, 7]], table[[0, 36, 5, 5, 1]])
    assert bool(rows[4:7].isnan().all())
    assert torch.equal(rows.nan_to_num(), reference.gather_rows(ids, table).cpu().nan_to_num())
    none = gather_rows(ids[:0], table)
    assert none is not None
    assert none.shape == (0, size)


@pytest.mark.parametrize("is_planar", [False, True])
@pytest.mark.parametrize("kind", [name for name in FORMATS if name != "F16"])
def test_rows_of_an_embedding(kind: str, is_planar: bool, device: torch.device) -> None:
    from hga_kernels.gpu.linear.rows import gather_rows

    weight = weights(kind, 13, 768, seed=1)
    # Planes are for weights on the GPU; blocks in a row may be in pinned host memory.
    table = moved(weight, device) if is_planar else weight
    if device.type == "cuda" and not is_planar:
        table = Packed(weight.data.pin_memory(), kind)
    ids = torch.tensor([0, 12, 5, 5, -1, 13, 2**40, 1], device=device)
    rows = gather_rows(ids, table, None, torch.float32)
    assert rows is not None
    inside = [0, 1, 2, 3, 7]
    expected = wide(weight)[ids[inside].cpu()]
    torch.testing.assert_close(rows[inside].cpu().double(), expected, rtol=1e-5, atol=1e-4)
    assert bool(rows[4:7].isnan().all())
    plain = reference.gather_rows(ids.cpu(), moved(table, torch.device("cpu")), None, torch.float32)
    torch.testing.assert_close(rows.cpu(), plain, rtol=1e-5, atol=1e-4, equal_nan=True)
    out = torch.empty(8, 768, dtype=torch.bfloat16, device=device)
    assert gather_rows(ids, table, out, torch.bfloat16) is out
    assert error(out[inside], expected) < BF16_ERROR
