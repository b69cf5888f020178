"""Pack plain weights into block formats, to the nearest values."""

import torch

_LARGEST_SCALE = 63
"""Scales and minima of Q4_K have 6 bits."""


def pack(values: torch.Tensor, name: str) -> torch.Tensor:
    """Pack rows of weights.

    Args:
        values: [..., columns], whole blocks.
        name: "Q4_K" or "Q6_K".

    Returns:
        [..., bytes of a row] uint8.
    """
    blocks = values.float().unflatten(-1, (-1, 256))
    packed = {"Q4_K": _pack_q4_k, "Q6_K": _pack_q6_k}[name](blocks)
    return packed.flatten(-2)


def _half_bytes(values: torch.Tensor) -> torch.Tensor:
    return values.half().contiguous().view(torch.uint8)


def _pack_q4_k(blocks: torch.Tensor) -> torch.Tensor:
    parts = blocks.unflatten(-1, (8, 32))
    minima = (-parts.amin(-1)).clamp_min(0)
    scales = (parts.amax(-1) + minima) / 15
    both = torch.stack((scales, minima), -2)  # [..., 2, 8]
    unit = (both.amax(-1, keepdim=True) / _LARGEST_SCALE).half()
    factors = (both / unit.float().clamp_min(1e-12)).round().clamp(0, _LARGEST_SCALE)
    scales, minima = (factors * unit.float()).unbind(-2)
    steps = (parts + minima[..., None]) / scales[..., None].clamp_min(1e-12)
    numbers = steps.round().clamp(0, 15).to(torch.uint8).unflatten(-2, (4, 2))
    nibbles = numbers[..., 0, :] | numbers[..., 1, :] << 4
    scale, minimum = factors.to(torch.uint8).unbind(-2)
    header = torch.cat(
        (
            scale[..., :4] | scale[..., 4:] >> 4 << 6,
            minimum[..., :4] | minimum[..., 4:] >> 4 << 6,
            (scale[..., 4:] & 15) | (minimum[..., 4:] & 15) << 4,
        ),
        -1,
    )
    return torch.cat((_half_bytes(unit[..., 0]), header, nibbles.flatten(-2)), -1)


def _pack_q6_k(blocks: torch.Tensor) -> torch.Tensor:
    parts = blocks.unflatten(-1, (16, 16))
    scales = parts.abs().amax(-1) / 31
    unit = (scales.amax(-1, keepdim=True) / 127).half()
    factors = (scales / unit.float().clamp_min(1e-12)).round().clamp(0, 127)
    steps = parts / (factors * unit.float())[..., None].clamp_min(1e-12)
    numbers = (steps.round().clamp(-32, 31) + 32).to(torch.uint8).flatten(-2)
    halves = numbers.unflatten(-1, (2, 4, 32))
    low = (halves & 15).unflatten(-2, (2, 2)).flatten(-2)  # [..., 2 halves, 2 nibbles, 64]
    low = low[..., 0, :] | low[..., 1, :] << 4
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=blocks.device)[:, None]
    high = ((halves >> 4) << shifts).sum(-2, dtype=torch.uint8)
    signed = factors.to(torch.int8).view(torch.uint8)
    return torch.cat((low.flatten(-2), high.flatten(-2), signed, _half_bytes(unit)), -1)
