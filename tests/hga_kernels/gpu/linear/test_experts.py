"""Gated MLPs and mixtures of them against their definitions in float64."""

import math

import pytest
import torch

from hga_kernels import reference
from tests.support.linear_cases import EPS, block_scaled, error, moved, random, weights, wide

pytestmark = pytest.mark.usefixtures("poisoned", "few_programs")

KINDS = ["bf16", "fp8"]


def part(kind: str, *shape: int, seed: int) -> object:
    """Weights as small as those of models."""
    if kind == "bf16":
        return random(*shape, seed=seed) * shape[-1] ** -0.5
    return block_scaled(*shape, seed=seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "hidden", "width"), [(1, 96, 64), (4, 160, 64), (7, 96, 64), (66, 128, 192)]
)
def test_mlp(kind: str, rows: int, hidden: int, width: int, device: torch.device) -> None:
    from hga_kernels.gpu.linear.experts import mlp

    inputs, norm = random(rows, hidden), random(hidden, seed=1)
    gate_up = part(kind, 2 * width, hidden, seed=2)
    down = part(kind, hidden, width, seed=3)
    out = mlp(inputs.to(device), norm.to(device), EPS, moved(gate_up, device), moved(down, device))
    expected = reference.mlp(inputs.double(), norm.double(), EPS, wide(gate_up), wide(down))
    assert error(out, expected) < 0.01


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        (1, ("Q4_K", "Q6_K")),
        (3, ("Q5_0", "Q8_0")),
        (2, ("Q4_K+Q6_K", "Q4_K")),
        (7, ("Q4_K", "Q4_K")),
    ],
)
def test_mlp_with_packed_weights(rows: int, kinds: tuple[str, str], device: torch.device) -> None:
    from hga_kernels.gpu.linear.experts import mlp

    inputs, norm = random(rows, 256).float() * 20, random(256, seed=1).float()
    gate_up, down = weights(kinds[0], 512, 256, seed=2), weights(kinds[1], 256, 256, seed=3)
    out = mlp(inputs.to(device), norm.to(device), EPS, moved(gate_up, device), moved(down, device))
    assert out is not None
    assert out.dtype == torch.float32
    expected = reference.mlp(inputs.double(), norm.double(), EPS, wide(gate_up), wide(down))
    # The residual would hide what is wrong with the product.
    assert error(out - inputs.to(device), expected - inputs.double()) < 0.01


@pytest.mark.parametrize(
    ("rows", "kinds"), [(1, ("Q4_K", "Q4_K")), (2, ("Q4_K", "Q6_K")), (7, ("Q6_K", "Q5_K"))]
)
def test_experts_with_packed_weights(
    rows: int, kinds: tuple[str, str], device: torch.device
) -> None:
    from hga_kernels.gpu.linear.experts import experts as run

    inputs, norm = random(rows, 256).float() * 20, random(256, seed=1).float()
    gate = far_apart(3, 256).float()
    gate_up, down = weights(kinds[0], 3, 512, 256, seed=3), weights(kinds[1], 3, 256, 256, seed=4)
    out = run(
        *(tensor.to(device) for tensor in (inputs, norm)),
        EPS,
        gate.to(device),
        moved(gate_up, device),
        moved(down, device),
        2,
        True,
    )
    assert out is not None
    assert out.dtype == torch.float32
    wide_weights = gate.double(), wide(gate_up), wide(down)
    expected = reference.experts(inputs.double(), norm.double(), EPS, *wide_weights, 2, True)
    assert error(out - inputs.to(device), expected - inputs.double()) < 0.015


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "hidden", "width", "experts", "chosen"),
    [(1, 96, 64, 8, 3), (3, 160, 64, 5, 2), (6, 96, 64, 8, 3), (40, 128, 64, 5, 2)],
)
def test_experts(
    rows: int,
    hidden: int,
    width: int,
    experts: int,
    chosen: int,
    kind: str,
    normalize: bool,
    device: torch.device,
) -> None:
    from hga_kernels.gpu.linear.experts import experts as run

    inputs, norm, gate = random(rows, hidden), random(hidden, seed=1), far_apart(experts, hidden)
    gate_up = part(kind, experts, 2 * width, hidden, seed=3)
    down = part(kind, experts, hidden, width, seed=4)
    out = run(
        inputs.to(device),
        norm.to(device),
        EPS,
        gate.to(device),
        moved(gate_up, device),
        moved(down, device),
        chosen,
        normalize,
    )
    expected = reference.experts(
        inputs.double(),
        norm.double(),
        EPS,
        gate.double(),
        wide(gate_up),
        wide(down),
        chosen,
        normalize,
    )
    assert error(out, expected) < 0.015


def far_apart(experts: int, hidden: int) -> torch.Tensor:
    """A gate whose logits differ by so much that rounding chooses no other experts."""
    return random(experts, hidden, seed=2) * 0.3


def test_columns_done_in_parts(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    from hga_kernels.gpu.linear import experts

    arguments = (
        random(9, 320).to(device),
        random(320, seed=1).to(device),
        EPS,
        *(far_apart(4, 320).to(device), moved(block_scaled(4, 128, 320), device)),
        *(moved(block_scaled(4, 320, 64, seed=1), device), 2, True),
    )
    whole = experts.experts(*arguments)
    monkeypatch.setattr(experts, "_PART_BYTES", 1)
    in_parts = experts.experts(*arguments)
    monkeypatch.setattr(experts, "SLICE_ROWS", 5)
    in_slices = experts.experts(*arguments)
    assert whole is not None
    assert in_parts is not None
    assert in_slices is not None
    assert torch.equal(whole, in_parts)
    assert error(in_slices, whole.cpu()) < 0.005


@pytest.mark.parametrize("rows", [2, 5])
def test_equal_logits_choose_the_first_experts(rows: int, device: torch.device) -> None:
    from hga_kernels.gpu.linear.experts import experts as run

    hidden = random(rows, 64)
    # Only the first two experts do anything.
    gate_up, down = random(4, 128, 64, seed=1), random(4, 64, 64, seed=2)
    down[2:] = 0
    ones = torch.ones(64, dtype=torch.bfloat16)
    gate = torch.zeros(4, 64, dtype=torch.bfloat16)
    out = run(
        *(t.to(device) for t in (hidden, ones)),
        EPS,
        gate.to(device),
        gate_up.to(device),
        down.to(device),
        2,
        True,
    )
    expected = reference.experts(
        hidden.double(),
        ones.double(),
        EPS,
        gate[:2].double(),
        gate_up[:2].double(),
        down[:2].double(),
        2,
        True,
    )
    assert error(out, expected) < 0.01


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("rows", [2, 5])
def test_a_row_that_is_no_number_harms_no_other(rows: int, device: torch.device) -> None:
    from hga_kernels.gpu.linear.experts import experts as run

    hidden = random(rows, 64)
    hidden[1] = math.nan
    arguments = (
        random(64, seed=1),
        EPS,
        far_apart(4, 64),
        random(4, 128, 64, seed=1) * 0.1,
        random(4, 64, 64, seed=2) * 0.1,
        2,
        True,
    )
    on_device = [a.to(device) if isinstance(a, torch.Tensor) else a for a in arguments]
    out = run(hidden.to(device), *on_device)
    others = [row for row in range(rows) if row != 1]
    wide_arguments = [a.double() if isinstance(a, torch.Tensor) else a for a in arguments]
    expected = reference.experts(hidden[others].double(), *wide_arguments)
    assert out is not None
    assert out[1].isnan().all()
    assert error(out[others], expected) < 0.01


def test_what_kernels_do_not_take(device: torch.device) -> None:
    from hga_kernels.gpu.linear.experts import mlp

    hidden, norm = random(2, 32).to(device), random(32).to(device)
    # 48 gates: gates and ups of a tile would not each have one row of scales.
    gate_up, down = moved(weights("fp8", 96, 32), device), moved(weights("fp8", 32, 48), device)
    assert mlp(hidden, norm, EPS, gate_up, down) is None
