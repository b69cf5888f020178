"""Packed weights in bf16 against their definition."""

import pytest
import torch

from hga_kernels import FORMATS
from tests.support.linear_cases import BF16_ERROR, error, moved, weights, wide

pytestmark = pytest.mark.usefixtures("poisoned")

KINDS = [name for name in FORMATS if name != "F16"]


@pytest.mark.parametrize("kind", [*KINDS, "Q4_K+Q6_K"])
@pytest.mark.parametrize("shape", [(7, 512), (3, 20, 256)])
def test_unpack(kind: str, shape: tuple[int, ...], device: torch.device) -> None:
    from hga_kernels.gpu.linear.unpack import unpack

    weight = weights(kind, *shape)
    out = unpack(moved(weight, device))
    assert out.dtype == torch.bfloat16
    assert error(out, wide(weight)) < BF16_ERROR
