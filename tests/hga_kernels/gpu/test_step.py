"""The end of a decode step, against its plain definition."""

import torch

from hga_kernels import reference
from hga_kernels.gpu.step import finish_step


def state(device: torch.device, drawn: int, step: int, groups: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    values = [
        torch.tensor([drawn]),
        torch.tensor([7]),
        torch.tensor([41], dtype=torch.int32),
        torch.tensor([step], dtype=torch.int32),
        torch.rand(groups, generator=generator),
        torch.full((3,), -5),
        torch.full((3, groups), torch.nan),
        torch.tensor([100 + step, 2**40]),
        torch.full((3, 2), -5),
    ]
    return [value.to(device) for value in values]


def test_results_go_to_the_ring_and_the_next_step_is_ready(device: torch.device) -> None:
    for drawn, step, groups in ((12, 0, 5000), (-1, 4, 1), (3, 8, 2048)):
        ours, plain = state(device, drawn, step, groups), state(device, drawn, step, groups)
        finish_step(*ours)
        reference.finish_step(*plain)
        for mine, theirs in zip(ours, plain, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
