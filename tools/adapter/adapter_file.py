"""The adapter file that is shipped: int8 factors with one scale per rank."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tools.adapter.model import Tensors


def quantise(factors: Tensors) -> dict[str, torch.Tensor]:
    """Quantize factors to int8: each row of ``a`` and column of ``b`` by its largest value.

    ``b @ a`` is then ``(b * scale) @ a``, where ``{layer}.{module}.scale`` [rank] holds the
    products of both steps.
    """
    stored = {}
    for name in {name.rpartition(".")[0] for name in factors}:
        a, b = (factors[f"{name}.{part}"].detach().float().cpu() for part in "ab")
        # A rank that is not used has b = 0, whatever its step.
        step_a = a.abs().amax(1).clamp_min(1e-12) / 127
        step_b = b.abs().amax(0).clamp_min(1e-12) / 127
        stored[f"{name}.a"] = (a / step_a[:, None]).round().to(torch.int8)
        stored[f"{name}.b"] = (b / step_b).round().to(torch.int8)
        stored[f"{name}.scale"] = step_a * step_b
    return stored


def write_adapter(path: Path, factors: Tensors) -> None:
    """Write the file that the product merges."""
    save_file(quantise(factors), path)


def read_adapter(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """Return the float32 factors of a file, with or without scales."""
    stored = load_file(path)
    factors = {
        name: part.float().to(device) for name, part in stored.items() if not name.endswith("scale")
    }
    for name, part in stored.items():
        if name.endswith("scale"):
            factors[f"{name[:-5]}b"] *= part.to(device)
    return factors


def to_go_on(stored: Tensors) -> dict[str, torch.Tensor]:
    """Return the factors of a file, scaled as training expects: rows of ``a`` of one length.

    The product ``b @ a`` stays the same.
    """
    factors = dict(stored)
    for name in {name.rpartition(".")[0] for name in stored}:
        a, b = stored[f"{name}.a"], stored[f"{name}.b"]
        # That of numbers drawn evenly from -1 to 1, over the root of their count.
        size = a.norm(dim=1).clamp_min(1e-12) * 3**0.5
        factors[f"{name}.a"], factors[f"{name}.b"] = a / size[:, None], b * size
    return factors
