"""The selection by Triton kernels, against its plain definition in float64.

The definition is given the queries as the kernels hold them, in 8 bits.
"""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from hga_kernels import Budget, ChunkIndex, ChunkRange, reference
from tests.support.kernel_cases import CHUNK, assert_drawn, random

triton = pytest.importorskip("triton")
selection = pytest.importorskip("hga_kernels.gpu.select.dispatch")
pytestmark = pytest.mark.usefixtures("poisoned")


@dataclass(frozen=True)
class Choice:
    """Arguments of ``select_groups`` by name; one end per block."""

    dim: int
    heads: int
    rows: int
    chunks: int
    first: int
    ends: tuple[int, ...]
    budget: int
    size: float = 2.0
    dtype: torch.dtype = torch.bfloat16
    layer: int = 0
    window: float | None = None
    """About the log-sum-exp of the window; None: it does not count."""
    group: int = 16
    odds: float = 1.0

    @property
    def per_chunk(self) -> int:
        return CHUNK // self.group

    def tensors(self, device: torch.device) -> tuple[torch.Tensor, ChunkIndex]:
        """Return queries, and an index that is NaN from the last end on."""
        shape = (self.heads, len(self.ends), self.rows, self.dim)
        queries = random(*shape, seed=1, size=self.size).to(device, self.dtype)
        centres = random(self.heads, self.chunks, self.dim, seed=2, size=0.5)
        keys = random(self.heads, self.chunks * CHUNK, self.dim, seed=3)
        codes, scales = reference.encode_tokens(keys, centres, "tokens")
        last = max(self.ends)
        if last >= 0:
            scales[:, last:], centres[:, last:] = math.nan, math.nan
        return queries, ChunkIndex(centres.to(device), codes.to(device), scales.to(device))

    @property
    def window_lse(self) -> torch.Tensor | None:
        if self.window is None:
            return None
        return random(self.heads, len(self.ends), self.rows, seed=5).float() * 2 + self.window

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.dim)


CHOICES = {
    "one token": Choice(128, 2, 8, 21, 2, (17,), 40),
    "one token, three heads": Choice(64, 3, 3, 9, 1, (9,), 30),
    "one token, of few dimensions": Choice(16, 1, 1, 5, 0, (4,), 3, dtype=torch.float32),
    "one token, fewer groups than the budget": Choice(32, 1, 16, 12, 2, (4,), 33),
    "blocks": Choice(128, 2, 20, 12, 2, (12, 7, 2, 3), 40),
    "blocks of many chunks": Choice(128, 2, 5, 70, 2, (66, 40), 70),
    "blocks of more rows than a unit": Choice(64, 1, 140, 9, 1, (9, 1), 20, size=1.0),
    "blocks over more than one span": Choice(32, 1, 17, 66, 0, (65,), 100),
    "a block of weights far apart": Choice(32, 1, 40, 9, 0, (9, 8), 30, size=20.0),
    "one token of weights far apart": Choice(64, 2, 8, 9, 0, (9,), 30, size=20.0),
    "one token, of the shares of all": Choice(64, 3, 3, 20, 2, (18,), 60, 1, layer=7, window=7),
    "blocks, of the shares of all": Choice(64, 2, 20, 42, 2, (40, 7), 60, 1, layer=1, window=6),
    "blocks of many chunks, of the shares of all": Choice(
        128, 2, 20, 70, 2, (66, 40), 40, 1, layer=47, window=8
    ),
    "blocks of much mass elsewhere": Choice(32, 1, 40, 9, 0, (9, 8), 30, window=20.0),
    "one token of much mass elsewhere": Choice(64, 2, 8, 9, 0, (9,), 30, window=20.0),
    "one token of more odds": Choice(64, 3, 3, 20, 2, (18,), 60, 1, layer=3, window=9, odds=1.25),
    "blocks of more odds": Choice(64, 2, 20, 42, 2, (40, 7), 60, 1, layer=2, window=8, odds=2.0),
    "float32 of few dimensions": Choice(16, 2, 2, 5, 1, (5, -1, 3), 3, dtype=torch.float32),
}
IN_OTHER_SIZES = (
    "one token, three heads",
    "one token, fewer groups than the budget",
    "one token, of the shares of all",
    "blocks of more rows than a unit",
    "blocks of many chunks",
    "blocks, of the shares of all",
    "float32 of few dimensions",
)
for _name in IN_OTHER_SIZES:
    for _group in (8, 4, 2):
        CHOICES[f"{_name}, groups of {_group}"] = replace(CHOICES[_name], group=_group)


def select(choice: Choice, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    ends = torch.tensor(choice.ends, dtype=torch.int32, device=device)
    queries, index = choice.tensors(device)
    window_lse = None
    if choice.window_lse is not None:  # not contiguous
        window_lse = choice.window_lse.to(device).mT.contiguous().mT
    chunks = ChunkRange(choice.first, ends, max(choice.ends))
    budget = Budget(choice.budget, choice.group, choice.odds)
    found = selection.select_groups(
        queries, index, chunks, budget, choice.scale, window_lse, choice.layer
    )
    assert found is not None
    return found[0].cpu(), found[1].cpu()


def plain_shares(choice: Choice) -> torch.Tensor:
    """Return the shares [kv_heads, blocks, groups] of candidates; negative elsewhere."""
    queries, index = choice.tensors(torch.device("cpu"))
    rows = queries.double() * choice.scale
    centre_scores = rows @ index.summaries[:, None].double().mT
    allowed = ChunkRange(choice.first, torch.tensor(choice.ends), choice.chunks)
    chunks = reference.candidate_chunks(choice.heads, allowed)
    rotated = rows @ reference.hadamard(choice.dim, torch.float64)
    step = rotated.abs().amax(-1, keepdim=True) / 127
    rotated = (rotated / step).round() * step
    per_chunk = choice.per_chunk
    shares = reference.score_groups(
        rotated,
        centre_scores,
        index.codes,
        index.scales,
        chunks,
        choice.group,
        choice.window_lse,
    )
    whole = torch.full((*shares.shape[:2], choice.chunks * per_chunk), -1.0, dtype=torch.float64)
    for head, block, place in torch.cartesian_prod(*map(torch.arange, chunks.shape)).tolist():
        chunk = int(chunks[head, block, place])
        if chunk >= 0:
            own = shares[head, block, place * per_chunk : (place + 1) * per_chunk]
            whole[head, block, chunk * per_chunk : (chunk + 1) * per_chunk] = own
    return whole


@pytest.mark.parametrize("name", CHOICES)
def test_groups_are_drawn_by_their_share(device: torch.device, name: str) -> None:
    choice = CHOICES[name]
    groups, importance = select(choice, device)
    plain = plain_shares(choice)
    shape = (len(choice.ends), choice.heads, choice.budget)
    assert groups.shape == importance.shape == shape
    assert groups.dtype == torch.int32
    for block in range(shape[0]):
        for head in range(shape[1]):
            shares = {g: m for g, m in enumerate(plain[head, block].tolist()) if m >= 0}
            assert (importance[block, head][groups[block, head] < 0] == 1).all()
            pairs = zip(groups[block, head].tolist(), importance[block, head].tolist(), strict=True)
            chosen = [(group, weight) for group, weight in pairs if group >= 0]
            found = dict(chosen)
            assert len(found) == len(chosen)
            number = choice.layer * choice.heads + head
            # Sums are in bf16, and what is far below the largest is less exact.
            least = 3e-4 * max(shares.values(), default=0.0)
            size = CHUNK // choice.group
            assert_drawn(found, shares, number, choice.budget, size, 0.04, least, choice.odds)


def test_the_choice_ends_at_the_ends_of_blocks_whatever_the_upper_bound(
    device: torch.device,
) -> None:
    """So a graph can be captured for the whole context, or the bound be computed."""
    for name in ("one token", "float32 of few dimensions"):
        choice = CHOICES[name]
        ends = torch.tensor(choice.ends, dtype=torch.int32, device=device)
        queries, index = choice.tensors(device)
        budget = Budget(choice.budget, choice.group)
        found = [
            selection.select_groups(
                queries, index, ChunkRange(choice.first, ends, last), budget, choice.scale
            )
            for last in (max(choice.ends), choice.chunks, None)
        ]
        for other in found[1:]:
            assert torch.equal(found[0][0], other[0])
            torch.testing.assert_close(found[0][1], other[1], rtol=1e-5, atol=1e-7)


def test_the_choice_does_not_depend_on_the_parts(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = select(CHOICES["blocks of many chunks"], device)
    monkeypatch.setattr(selection, "SELECTION_BYTES", 1)
    parts = select(CHOICES["blocks of many chunks"], device)
    assert torch.equal(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])


def test_nothing_to_choose_from_gives_nothing(device: torch.device) -> None:
    for ends in ((2,), (2, 0, -4)):
        groups, importance = select(Choice(16, 2, 1, 3, 2, ends, 5), device)
        assert groups.shape == (len(ends), 2, 5)
        assert (groups == -1).all()
        assert (importance == 1).all()


def test_what_the_kernels_do_not_take_is_left_to_the_definition(device: torch.device) -> None:
    queries, index = Choice(32, 1, 1, 2, 0, (2,), 1).tensors(device)
    chunks = ChunkRange(0, torch.tensor([2], dtype=torch.int32, device=device))
    codes, scales = index.codes, index.scales
    for other in (
        ChunkIndex(index.summaries.float(), codes, scales),
        ChunkIndex(index.summaries, codes.view(1, 2, 4, 2, 16, 4), scales),
        ChunkIndex(index.summaries, codes.view(1, 4, 32, 8), scales.view(1, 4, 32)),
    ):
        assert selection.select_groups(queries, other, chunks, Budget(1, 16)) is None
    assert selection.select_groups(queries.double(), index, chunks, Budget(2, 16)) is None
    assert selection.select_groups(queries, index, chunks, Budget(2, 32)) is None
