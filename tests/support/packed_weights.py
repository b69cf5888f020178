"""Random packed weights."""

import math

import numpy as np
import torch

from hga_kernels.gguf_blocks import FORMATS
from hga_kernels.weights import Packed

_HALVES = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
}
"""Where blocks have float16 numbers."""


def random_rows(name: str, rows: int, blocks: int, seed: int = 0) -> torch.Tensor:
    """Return rows of a format [rows, bytes]: random bytes, but finite float16 scales."""
    block = FORMATS[name]
    rng = np.random.default_rng(seed)
    if name == "F16":
        return torch.from_numpy(rng.normal(0, 1, (rows, blocks)).astype(np.float16).view(np.uint8))
    data = rng.integers(0, 256, (rows, blocks, block.bytes), dtype=np.uint8)
    for at in _HALVES[name]:
        scales = rng.normal(0, 0.1, (rows, blocks, 1)).astype(np.float16)
        data[..., at : at + 2] = scales.view(np.uint8)
    return torch.from_numpy(data.reshape(rows, -1))


def random_packed(name: str, *shape: int, seed: int = 0) -> Packed:
    """Return a packed weight [..., rows, columns]."""
    *stacked, columns = shape
    data = random_rows(name, math.prod(stacked), columns // FORMATS[name].size, seed)
    return Packed(data.view(*stacked, -1), name)
