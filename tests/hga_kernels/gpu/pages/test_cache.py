"""The window, the page cache and attention over both, against their plain definitions."""

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hga_kernels import reference
from hga_kernels.reference.pages import MISSING, MOST_AGE, Window
from hga_kernels.reference.selection import STRATA
from tests.support.kernel_cases import (
    BF16_STEP,
    assert_near,
    draw_number,
    group_sizes,
    random,
    seeds,
)

pages = pytest.importorskip("hga_kernels.gpu.pages.cache")
resident = pytest.importorskip("hga_kernels.gpu.pages.attend")
pytestmark = pytest.mark.usefixtures("poisoned")


def small(group_size: int) -> Window:
    """A chunk of sinks, and two that are recent."""
    return Window(64 // group_size, 128 // group_size, group_size)


def on_host(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """In memory that the GPU reads, where there is one."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def number(value: int, device: torch.device, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor([value], dtype=dtype, device=device)


def load_token(host: torch.Tensor, held: torch.Tensor, position: int, window: Window) -> None:
    """The window of a token whose own K and V the host holds already."""
    now, group = number(position, held.device), position // window.group_size
    reference.load_window(host[None], held[None], now, window)
    own = host.unflatten(0, (len(held), -1))[:, group].to(held.device)
    held[:, window.sinks + group % window.recent] = own
    if group < window.sinks:
        held[:, group] = own


# One token's K and V


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from([16, 64, 128]), st.sampled_from([(3, 1), (2, 2), (8, 1)]), st.booleans(),
    st.integers(0, 400), group_sizes, seeds,
)  # fmt: skip
def test_write_token(
    device: torch.device, dim: int, counts: tuple[int, int], norm: bool, position: int, size: int,
    seed: int,
) -> None:  # fmt: skip
    query_heads, kv_heads = counts
    sizes, total = small(size), 416 // size
    heads = random(1, (query_heads + 2 * kv_heads) * dim, seed=seed).to(device)
    norms = random(2, dim, seed=seed + 1).to(device) if norm else (None, None)
    angles = torch.rand(401, dim // 2, generator=torch.Generator().manual_seed(seed)) * 6
    tables = angles.cos().to(device), angles.sin().to(device)
    results = []
    for module, where in ((pages, device), (reference.pages, device)):
        shape = kv_heads, sizes.slots + 2, 2, size, dim
        window = torch.full(shape, 7.0, dtype=torch.bfloat16, device=where)
        pages_of_host = torch.full((kv_heads * total, *shape[2:]), 7.0, dtype=torch.bfloat16)
        host = on_host(pages_of_host, device)
        queries = module.write_token(
            heads, *norms, 1e-6, *tables, number(position, device), window, host,
            query_heads, kv_heads, sizes,
        )  # fmt: skip
        if device.type == "cuda":
            torch.cuda.synchronize()
        results.append((queries.cpu(), window.cpu(), host))
    for found, expected in zip(*results, strict=True):
        # A product that is rounded the other way, then one more rounding.
        assert_near(found, expected.double(), 2.1 * BF16_STEP, 1e-2)
    group = position // size
    changed = (results[0][1] != 7).any(-1).any(-1).any(-1)
    slots = {sizes.sinks + group % sizes.recent, *([group] if group < sizes.sinks else [])}
    assert {slot for _, slot in changed.nonzero().tolist()} == slots
    assert int((results[0][2] != 7).any(-1).sum()) == 2 * kv_heads


# The page cache


@dataclass
class Cache:
    """The tensors of a page cache."""

    table: torch.Tensor
    owner: torch.Tensor
    stamps: torch.Tensor
    counts: torch.Tensor

    def arguments(self, step: int) -> tuple[torch.Tensor | int, ...]:
        """All but the groups; every group is a chunk, so that neighbours lie in other strata."""
        step_at = number(step, self.table.device)
        return self.table, self.owner, self.stamps, step_at, self.counts, 1

    def check(self) -> None:
        """Table and owner are each other's inverse: no group in two slots, no slot of two."""
        for head, (groups, slots) in enumerate(
            zip(self.table.tolist(), self.owner.tolist(), strict=True)
        ):
            forward = {group: slot for group, slot in enumerate(groups) if slot >= 0}
            back = {group: slot for slot, group in enumerate(slots) if group >= 0}
            assert forward == back, head


def empty_cache(heads: int, groups: int, slots: int, device: torch.device) -> Cache:
    def none(columns: int) -> torch.Tensor:
        return torch.full((heads, columns), -1, dtype=torch.int32, device=device)

    counts = torch.zeros(2, dtype=torch.int64, device=device)
    return Cache(none(groups), none(slots), none(slots), counts)


class Recent:
    """What a least recently used cache of one head holds, as a list from the oldest on."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.groups: list[int] = []

    def use(self, wanted: set[int]) -> int:
        """Take in the groups of a step; how many were there."""
        hits = len(wanted & set(self.groups))
        kept = [group for group in self.groups if group not in wanted]
        self.groups = kept[max(0, len(kept) + len(wanted) - self.slots) :] + sorted(wanted)
        return hits

    def forget(self, first: int) -> None:
        self.groups = [group for group in self.groups if group < first]


@st.composite
def uses(draw: st.DrawFn, most: int = 20) -> tuple[int, int, list[list[list[int]] | int]]:
    """Budget, slots, and what happens: selections [heads, budget], or groups dropped from one on.

    A selection of one group a step makes ages differ, so that least recently used means one slot.
    """
    budget = draw(st.integers(1, 4))
    # All of a choice may be of one stratum.
    slots = draw(st.integers(STRATA * budget, STRATA * budget + 6))
    row = st.lists(
        st.integers(0, 19) | st.integers(0, 4).map(lambda nth: 4 * nth),
        min_size=budget,
        max_size=budget,
        unique=True,
    ).flatmap(
        lambda groups: st.lists(st.booleans(), min_size=budget, max_size=budget).map(
            lambda there: [g if t else -1 for g, t in zip(groups, there, strict=True)]
        )
    )
    step = st.lists(row, min_size=2, max_size=2) | st.integers(0, 20)
    return budget, slots, draw(st.lists(step, min_size=1, max_size=most))


@settings(max_examples=20, deadline=None)
@given(uses())
def test_resolve_pages_as_defined(
    device: torch.device, case: tuple[int, int, list[list[list[int]] | int]]
) -> None:
    _, slots, steps = case
    found, expected = empty_cache(2, 20, slots, device), empty_cache(2, 20, slots, device)
    for number_of, event in enumerate(steps):
        # Every now and then the count of steps starts anew.
        step = number_of % 9
        if isinstance(event, int):
            for cache in (found, expected):
                reference.forget_pages(cache.table, cache.owner, cache.stamps, event)
        else:
            groups = torch.tensor(event, dtype=torch.int32, device=device)
            places = pages.resolve_pages(groups, *found.arguments(step))
            right = reference.resolve_pages(groups, *expected.arguments(step))
            assert places.tolist() == right.tolist()
        found.check()
        assert [x.tolist() for x in vars(found).values()] == [
            x.tolist() for x in vars(expected).values()
        ]


@pytest.mark.parametrize(("slots", "first", "end"), [(37, 4, 400), (160, 8, 100), (16, 8, 8)])
def test_likely_groups_are_those_of_the_smallest_numbers(
    device: torch.device, slots: int, first: int, end: int
) -> None:
    heads, per_chunk = 6, 4
    found, places = reference.likely_groups(heads, slots, first, end, per_chunk, device)
    for head, groups in enumerate(found.tolist()):
        held = dict(zip(places.tolist(), groups, strict=True))
        for stratum in range(STRATA):
            own = [group for group in range(first, end) if group // per_chunk % STRATA == stratum]
            of_stratum = range(stratum, slots, STRATA)
            likely = sorted(own, key=lambda group: draw_number(group, head))[: len(of_stratum)]
            kept = [held[slot] for slot in of_stratum if slot in held]
            numbers = [draw_number(group, head) for group in kept]
            assert sorted(numbers) == pytest.approx([draw_number(group, head) for group in likely])
            assert numbers == sorted(numbers, reverse=True)
            assert set(kept) <= set(own)
            assert len(set(kept)) == len(kept)


@settings(max_examples=20, deadline=None)
@given(uses())
def test_the_cache_is_one_of_least_recently_used_groups(
    device: torch.device, case: tuple[int, int, list[list[list[int]] | int]]
) -> None:
    """Hits as many as a plain list of groups by age gives, wherever one group a step is chosen."""
    _, slots, steps = case
    cache = empty_cache(1, 20, slots, device)
    strata = [Recent(len(range(stratum, slots, STRATA))) for stratum in range(STRATA)]
    hits = used = 0
    for step, event in enumerate(steps):
        if isinstance(event, int):
            reference.forget_pages(cache.table, cache.owner, cache.stamps, event)
            for model in strata:
                model.forget(event)
        else:
            chosen = [event[0][0]]
            groups = torch.tensor([chosen], dtype=torch.int32, device=device)
            pages.resolve_pages(groups, *cache.arguments(step))
            wanted = {group for group in chosen if group >= 0}
            for stratum, model in enumerate(strata):
                own = {group for group in wanted if group % STRATA == stratum}
                hits += model.use(own) if own else 0
            used += len(wanted)
        held = [group for group in cache.owner[0].tolist() if group >= 0]
        assert sorted(held) == sorted(group for model in strata for group in model.groups)
    assert cache.counts.tolist() == [hits, used - hits]


@pytest.mark.parametrize("module", [pages, reference])
def test_slots_of_any_great_age_are_alike(device: torch.device, module: ModuleType) -> None:
    """The first of them is reused, before any that is younger."""
    cache = empty_cache(1, 20, 4 * STRATA, device)
    ages = torch.tensor([4000 - MOST_AGE + 1, 4000 - MOST_AGE, 0, -1])
    cache.stamps[0] = ages.repeat_interleave(STRATA)
    taken = []
    for group in range(3):
        chosen = torch.tensor([[group * STRATA + 1]], dtype=torch.int32, device=device)
        places = module.resolve_pages(chosen, *cache.arguments(4000))
        taken.append(int(places) - MISSING)
    assert taken == [STRATA + 1, 2 * STRATA + 1, 3 * STRATA + 1]


@settings(max_examples=10, deadline=None)
@given(uses(most=7), st.integers(200, 300), group_sizes, seeds)
def test_attention_reads_what_the_host_holds(
    device: torch.device, case: tuple[int, int, list[list[list[int]] | int]], position: int,
    size: int, seed: int,
) -> None:  # fmt: skip
    """Whatever was chosen before, and whatever was changed behind what was dropped."""
    _, slots, steps = case
    dim, ratio, window = 16, 2, Window(sinks=0, recent=64 // size, group_size=size)
    total = 320 // size
    host = on_host(random(2 * total, 2, size, dim, seed=seed), device)
    held = torch.full((2, window.slots + slots, 2, size, dim), math.nan, device=device).bfloat16()
    now = number(position, device)
    load_token(host, held, position, window)
    cache = empty_cache(2, total, slots, device)
    for step, event in enumerate(steps):
        if isinstance(event, int):
            reference.forget_pages(cache.table, cache.owner, cache.stamps, event)
            first_recent = window.recent_groups(position).start
            host.view(2, total, -1)[:, event:first_recent].neg_()
            continue
        outside = range(window.recent_groups(position).start)
        chosen = [[g if g in outside else -1 for g in row] for row in event]
        groups = torch.tensor(chosen, dtype=torch.int32, device=device)
        places = pages.resolve_pages(groups, *cache.arguments(step))
        queries = random(2 * ratio, dim, seed=seed + step).to(device)
        out = resident.attend_resident(queries, groups, places, now, held, host, 0.3, None, window)
        for head in range(2):
            listed = [g for g in chosen[head] if g >= 0] + list(window.recent_groups(position))
            tokens = (torch.tensor(listed)[:, None] * size + torch.arange(size)).flatten()
            of_head = host.view(2, total, 2, size, dim)[head, listed].double()
            keys, values = of_head[:, 0].flatten(0, 1), of_head[:, 1].flatten(0, 1)
            mine = queries[head * ratio : (head + 1) * ratio].cpu().double()
            scores = (mine @ keys.T * 0.3).masked_fill(tokens > position, -math.inf)
            assert_near(
                out[head * ratio : (head + 1) * ratio].cpu(),
                scores.softmax(-1) @ values,
                2.1 * BF16_STEP,
                1,
            )


# Attention with sinks, recent groups and mass


@settings(max_examples=8, deadline=None)
@example(dim=16, kv_heads=1, ratio=3, position=319, budget=1, size=16, seed=0)
@example(dim=128, kv_heads=2, ratio=8, position=500, budget=9, size=2, seed=1)
@given(
    st.sampled_from([16, 64, 128]), st.integers(1, 2), st.sampled_from([1, 3, 8]),
    st.integers(0, 639), st.integers(1, 9), group_sizes, seeds,
)  # fmt: skip
def test_attend_resident(
    device: torch.device, dim: int, kv_heads: int, ratio: int, position: int, budget: int,
    size: int, seed: int,
) -> None:  # fmt: skip
    total, slots, window = 640 // size, 9 * STRATA, small(size)
    host = random(kv_heads * total, 2, size, dim, seed=seed)
    of_heads = host.view(kv_heads, total, 2, size, dim)
    of_heads[:, position // size, :, position % size + 1 :] = math.nan
    of_heads[:, position // size + 1 :] = math.nan
    host = on_host(host, device)
    held = torch.full((kv_heads, window.slots + slots, 2, size, dim), math.nan)
    held = held.bfloat16().to(device)
    load_token(host, held, position, window)
    generator = torch.Generator().manual_seed(seed)
    routed = range(window.sinks, window.recent_groups(position).start)
    groups = torch.full((kv_heads, budget), -1, dtype=torch.int32)
    for head in range(kv_heads):
        order = torch.randperm(len(routed), generator=generator)[:budget] + window.sinks
        groups[head, torch.randperm(budget, generator=generator)[: len(order)]] = order.int()
    groups = groups.to(device)
    cache = empty_cache(kv_heads, total, slots, device)
    reference.resolve_pages(groups[:, ::2].contiguous(), *cache.arguments(0))
    places = reference.resolve_pages(groups, *cache.arguments(1))
    # Those of the first call count as fetched.
    of_host = host.view(kv_heads, total, 2, size, dim)
    for head, place in itertools.product(range(kv_heads), range(budget)):
        if 0 <= int(places[head, place]) < MISSING:
            slot = window.slots + int(places[head, place])
            held[head, slot] = of_host[head, int(groups[head, place])].to(device)
    queries = random(kv_heads * ratio, dim, seed=seed + 1).to(device)
    mass = torch.zeros(total, device=device)
    expected_mass, before = mass.clone(), held.clone()
    arguments = groups, places, number(position, device)
    scale = 1 / math.sqrt(dim)
    importance = None
    if seed % 2:
        importance = 1 + 9 * torch.rand(kv_heads, budget, generator=generator).to(device)
    out = resident.attend_resident(queries, *arguments, held, host, scale, mass, window, importance)
    expected = reference.attend_resident(
        *(queries.double(), *arguments, before.double(), host.double(), scale, expected_mass),
        *(window, importance),
    )
    assert_near(out.cpu(), expected.cpu(), 2.1 * BF16_STEP, 1)
    assert_near(mass.cpu(), expected_mass.cpu().double(), 1e-3, 1e-1)
    if importance is None:
        assert float(mass.sum()) == pytest.approx(kv_heads * ratio, rel=1e-4)
    again = resident.attend_resident(
        queries, *arguments, held, host, scale, None, window, importance
    )
    assert torch.equal(again, out)
    missing = [p - MISSING for p in places.flatten().tolist() if p >= MISSING]
    for head, place in itertools.product(range(kv_heads), range(budget)):
        if (slot := int(places[head, place])) >= 0:
            in_cache = held[head, window.slots + slot % MISSING]
            assert torch.equal(in_cache.cpu(), of_host[head, int(groups[head, place])])
    touched = Counter((held.view(torch.int16) != before.view(torch.int16)).flatten(2).any(-1)
                      .nonzero()[:, 1].tolist())  # fmt: skip
    assert sum(touched.values()) == len(missing)


# Copies


@settings(max_examples=12, deadline=None)
@example(position=320, size=16, seed=0)
@given(st.integers(0, 600), group_sizes, seeds)
def test_load_window(device: torch.device, position: int, size: int, seed: int) -> None:
    layers, kv_heads, total, dim, window = 2, 2, 640 // size, 16, small(size)
    host = on_host(random(layers, kv_heads * total, 2, size, dim, seed=seed), device)
    shape = layers, kv_heads, window.slots + 3, 2, size, dim
    found, expected = (torch.zeros(shape, dtype=torch.bfloat16, device=device) for _ in range(2))
    next_token = number(position, device)
    assert pages.load_window(host, found, next_token, window)
    reference.load_window(host, expected, next_token, window)
    assert torch.equal(found, expected)
    groups = {g for g in range(window.sinks) if g * size < position}
    for slot in range(window.sinks):
        page = host.view(layers, kv_heads, total, -1)[:, :, slot]
        assert torch.equal(found[:, :, slot].flatten(2).cpu(), page) == (slot in groups)
    for group in window.recent_groups(max(position - 1, 0)) if position else ():
        in_ring = found[:, :, window.sinks + group % window.recent].flatten(2).cpu()
        assert torch.equal(in_ring, host.view(layers, kv_heads, total, -1)[:, :, group])


@pytest.mark.parametrize("size", [48, 576, 2049])
def test_gather_rows(device: torch.device, size: int) -> None:
    table = on_host(random(37, size, seed=size), device)
    ids = torch.tensor([0, 36, 5, 5, -1, 37, 2**40, 1], device=device)
    rows = pages.gather_rows(table, ids).cpu()
    assert torch.equal(rows[[0, 1, 2, 3, 7]], table[[0, 36, 5, 5, 1]])
    assert bool(rows[4:7].isnan().all())
    assert torch.equal(rows.nan_to_num(), reference.gather_rows(table, ids).cpu().nan_to_num())
    assert pages.gather_rows(table, ids[:0]).shape == (0, size)
