"""The end of a decode step, against its plain definition."""

import pytest
import torch

from hga_kernels import DecodeState, Reported, StepResults, reference
from hga_kernels.gpu.step import count_layers, finish_step

Arguments = tuple[torch.Tensor, DecodeState, torch.Tensor, torch.Tensor, StepResults]


def arguments_of(device: torch.device, drawn: int, step: int, groups: int) -> Arguments:
    def number(value: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.tensor([value], dtype=dtype, device=device)

    mass = torch.rand(groups, generator=torch.Generator().manual_seed(step)).to(device)
    return (
        number(drawn),
        DecodeState(number(7), number(41, torch.int32), number(step, torch.int32)),
        mass,
        torch.tensor([100 + step, 2**40], device=device),
        StepResults(
            torch.full((3,), -5, device=device),
            torch.full((3, groups), torch.nan, device=device),
            torch.full((3, 2), -5, device=device),
        ),
    )


def tensors(arguments: Arguments) -> list[torch.Tensor]:
    drawn, state, mass, counts, results = arguments
    after = [state.token, state.position, state.step]
    return [drawn, *after, mass, counts, results.tokens, results.masses, results.counts]


def test_results_go_to_the_ring_and_the_next_step_is_ready(device: torch.device) -> None:
    for drawn, step, groups in ((12, 0, 5000), (-1, 4, 1), (3, 8, 2048)):
        ours, plain = (arguments_of(device, drawn, step, groups) for _ in range(2))
        finish_step(*ours)
        reference.finish_step(*plain)
        for mine, theirs in zip(tensors(ours), tensors(plain), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("position", [0, 63, 64, 127, 128, 700, 5000])
def test_layers_are_added_up_and_counted(position: int, device: torch.device) -> None:
    layers, groups = 3, 91
    generator = torch.Generator().manual_seed(position)
    # Rows begin at whole 16 bytes.
    rows = torch.rand(layers, 92, generator=generator)
    before = torch.rand(layers, groups, generator=generator)
    at = torch.tensor([position], dtype=torch.int32)
    reported = Reported(first=4, chunk=64, per_chunk=4, least=1)
    step, of_answer = (tensor.to(device, copy=True) for tensor in (rows, before))
    mass = torch.full((groups,), torch.nan, device=device)
    count_layers(step[:, :groups], mass, of_answer, at.to(device), reported)
    plain = rows.clone(), torch.empty(groups), before.clone()
    reference.count_layers(plain[0][:, :groups], *plain[1:], at, reported)
    for own, wanted in zip((step, mass, of_answer), plain, strict=True):
        torch.testing.assert_close(own.cpu(), wanted, rtol=1e-6, atol=0)
    assert (step[:, :groups] == 0).all()
    # What lies behind the groups stays.
    assert torch.equal(step[:, groups:].cpu(), rows[:, groups:])
