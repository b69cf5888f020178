"""The window, the page cache and attention over both, against their plain definitions."""

import itertools
import math
from types import ModuleType

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hga_kernels import Angles, HeadWeights, LayerPages, PageTable, Window, reference
from hga_kernels.reference.pages import MAX_AGE, MISSING
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


def open_groups(window: Window, position: int) -> range:
    """Groups of the open chunk that a query at ``position`` sees, without sinks."""
    first = max(window.sinks, window.first_open(position))
    return range(first, position // window.group_size + 1)


def small(group_size: int) -> Window:
    """Return a window of a chunk of sinks and the open chunk."""
    return Window(64 // group_size, group_size)


def on_host(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Pin a tensor where there is a GPU."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def number(value: int, device: torch.device, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor([value], dtype=dtype, device=device)


def load_token(host: torch.Tensor, held: torch.Tensor, position: int, window: Window) -> None:
    """Load the window of a token whose own K and V the host holds already."""
    now, group = number(position, held.device), position // window.group_size
    reference.load_window(host[None], held[None], now, window)
    own = host.unflatten(0, (len(held), -1))[:, group].to(held.device)
    held[:, window.slot(group)] = own
    if group < window.sinks:
        held[:, group] = own


# One token's K and V


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from([16, 64, 128]),
    st.sampled_from([(3, 1), (2, 2), (8, 1)]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 400),
    group_sizes,
    seeds,
)
def test_write_token_as_defined(
    device: torch.device,
    dim: int,
    counts: tuple[int, int],
    norm: bool,
    biased: bool,
    position: int,
    size: int,
    seed: int,
) -> None:
    query_heads, kv_heads = counts
    sizes, total = small(size), 416 // size
    heads = random(1, (query_heads + 2 * kv_heads) * dim, seed=seed).to(device)
    q_norm, k_norm = random(2, dim, seed=seed + 1).to(device) if norm else (None, None)
    bias = shift = None
    if biased:
        bias = random((query_heads + 2 * kv_heads) * dim, seed=seed + 2).float().to(device)
        shift = random(kv_heads, dim, seed=seed + 3).float().to(device)
    radians = torch.rand(401, dim // 2, generator=torch.Generator().manual_seed(seed)) * 6
    angles = Angles(radians.cos().to(device), radians.sin().to(device))
    results = []
    for module in (pages, reference):
        shape = kv_heads, sizes.slots + 2, 2, size, dim
        held = torch.full(shape, 7.0, dtype=torch.bfloat16, device=device)
        pages_of_host = torch.full((kv_heads * total, *shape[2:]), 7.0, dtype=torch.bfloat16)
        host = on_host(pages_of_host, device)
        queries = module.write_token(
            heads,
            HeadWeights(q_norm, k_norm, 1e-6, bias, shift),
            angles,
            number(position, device),
            LayerPages(held, host, sizes),
        )
        if device.type == "cuda":
            torch.cuda.synchronize()
        results.append((queries.cpu(), held.cpu(), host))
    for found, expected in zip(*results, strict=True):
        # One product may be rounded the other way, and then be rounded once more.
        assert_near(found, expected.double(), 2.1 * BF16_STEP, 1e-2)
    group = position // size
    changed = (results[0][1] != 7).any(-1).any(-1).any(-1)
    slots = {sizes.slot(group), *([group] if group < sizes.sinks else [])}
    assert {slot for _, slot in changed.nonzero().tolist()} == slots
    assert int((results[0][2] != 7).any(-1).sum()) == 2 * kv_heads


# The page cache


PER_CHUNK = 1
"""Every group is a chunk, so that neighbouring groups are in different strata."""


def assert_consistent(cache: PageTable) -> None:
    """Assert that table and owner are inverse: no group is in two slots."""
    for head, (groups, slots) in enumerate(
        zip(cache.table.tolist(), cache.owner.tolist(), strict=True)
    ):
        forward = {group: slot for group, slot in enumerate(groups) if slot >= 0}
        back = {group: slot for slot, group in enumerate(slots) if group >= 0}
        assert forward == back, head


def assert_equal(found: PageTable, expected: PageTable) -> None:
    for name in ("table", "owner", "stamps", "counts"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name


def empty_cache(heads: int, groups: int, slots: int, device: torch.device) -> PageTable:
    def none(columns: int) -> torch.Tensor:
        return torch.full((heads, columns), -1, dtype=torch.int32, device=device)

    counts = torch.zeros(2, dtype=torch.int64, device=device)
    return PageTable(none(groups), none(slots), none(slots), number(0, device), counts)


class PlainLRU:
    """The groups in an LRU cache of one head, least recently used first."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.groups: list[int] = []

    def use(self, wanted: set[int]) -> int:
        """Use the groups of a step and return how many were cached."""
        hits = len(wanted & set(self.groups))
        others = [group for group in self.groups if group not in wanted]
        evicted = max(0, len(others) + len(wanted) - self.slots)
        self.groups = others[evicted:] + sorted(wanted)
        return hits

    def forget(self, first: int) -> None:
        self.groups = [group for group in self.groups if group < first]


@st.composite
def uses(draw: st.DrawFn, most: int = 20) -> tuple[int, int, list[list[list[int]] | int]]:
    """Draw a budget, slots and events: selections [heads, budget], or the first group to drop."""
    budget = draw(st.integers(1, 4))
    # All groups of a selection may be in one stratum.
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
        # The count of steps starts anew every now and then.
        for cache in (found, expected):
            cache.step.fill_(number_of % 9)
        if isinstance(event, int):
            for cache in (found, expected):
                reference.forget_pages(cache.table, cache.owner, cache.stamps, event)
        else:
            groups = torch.tensor(event, dtype=torch.int32, device=device)
            ours = pages.resolve_pages(groups, found, PER_CHUNK)
            plain = reference.resolve_pages(groups, expected, PER_CHUNK)
            assert ours.tolist() == plain.tolist()
        assert_consistent(found)
        assert_equal(found, expected)


@pytest.mark.parametrize(("slots", "first", "end"), [(37, 4, 400), (160, 8, 100), (16, 8, 8)])
def test_prefetch_candidates_have_the_smallest_draw_numbers(
    device: torch.device, slots: int, first: int, end: int
) -> None:
    heads, per_chunk = 6, 4
    found, of_slots = reference.prefetch_candidates(heads, slots, first, end, per_chunk, device)
    for head, groups in enumerate(found.tolist()):
        held = dict(zip(of_slots.tolist(), groups, strict=True))
        for stratum in range(STRATA):
            own = [group for group in range(first, end) if group // per_chunk % STRATA == stratum]
            of_stratum = range(stratum, slots, STRATA)
            expected = sorted(own, key=lambda group: draw_number(group, head))[: len(of_stratum)]
            cached = [held[slot] for slot in of_stratum if slot in held]
            numbers = [draw_number(group, head) for group in cached]
            assert sorted(numbers) == pytest.approx(
                [draw_number(group, head) for group in expected]
            )
            assert numbers == sorted(numbers, reverse=True)
            assert set(cached) <= set(own)
            assert len(set(cached)) == len(cached)


@settings(max_examples=20, deadline=None)
@given(uses())
def test_the_cache_evicts_the_least_recently_used_group(
    device: torch.device, case: tuple[int, int, list[list[list[int]] | int]]
) -> None:
    """As a plain list of groups by age does; one group per step, so that no two ages are equal."""
    _, slots, steps = case
    cache = empty_cache(1, 20, slots, device)
    strata = [PlainLRU(len(range(stratum, slots, STRATA))) for stratum in range(STRATA)]
    hits = used = 0
    for step, event in enumerate(steps):
        if isinstance(event, int):
            reference.forget_pages(cache.table, cache.owner, cache.stamps, event)
            for model in strata:
                model.forget(event)
        else:
            chosen = [event[0][0]]
            groups = torch.tensor([chosen], dtype=torch.int32, device=device)
            cache.step.fill_(step)
            pages.resolve_pages(groups, cache, PER_CHUNK)
            wanted = {group for group in chosen if group >= 0}
            for stratum, model in enumerate(strata):
                own = {group for group in wanted if group % STRATA == stratum}
                hits += model.use(own) if own else 0
            used += len(wanted)
        held = [group for group in cache.owner[0].tolist() if group >= 0]
        assert sorted(held) == sorted(group for model in strata for group in model.groups)
    assert cache.counts.tolist() == [hits, used - hits]


@pytest.mark.parametrize("module", [pages, reference])
def test_slots_of_any_great_age_are_equally_old(device: torch.device, module: ModuleType) -> None:
    """The lowest of them is reused, before any younger one."""
    cache = empty_cache(1, 3 * STRATA, 4 * STRATA, device)
    ages = torch.tensor([4000 - MAX_AGE + 1, 4000 - MAX_AGE, 0, -1])
    cache.stamps[0] = ages.repeat_interleave(STRATA)
    cache.step.fill_(4000)
    taken = []
    for group in range(3):
        chosen = torch.tensor([[group * STRATA + 1]], dtype=torch.int32, device=device)
        taken.append(int(module.resolve_pages(chosen, cache, PER_CHUNK)) - MISSING)
    assert taken == [STRATA + 1, 2 * STRATA + 1, 3 * STRATA + 1]


@settings(max_examples=10, deadline=None)
@given(uses(most=7), st.integers(200, 300), group_sizes, seeds)
def test_attention_reads_what_the_host_holds(
    device: torch.device,
    case: tuple[int, int, list[list[list[int]] | int]],
    position: int,
    size: int,
    seed: int,
) -> None:
    """Whatever was chosen before, and whatever changed in groups that were dropped."""
    _, slots, steps = case
    dim, ratio, window = 16, 2, Window(sinks=0, group_size=size)
    total = 320 // size
    host = on_host(random(2 * total, 2, size, dim, seed=seed), device)
    held = torch.full((2, window.slots + slots, 2, size, dim), math.nan, device=device).bfloat16()
    now = number(position, device)
    load_token(host, held, position, window)
    cache = empty_cache(2, total, slots, device)
    for step, event in enumerate(steps):
        if isinstance(event, int):
            reference.forget_pages(cache.table, cache.owner, cache.stamps, event)
            host.view(2, total, -1)[:, event : window.first_open(position)].neg_()
            continue
        outside = range(window.first_open(position))
        chosen = [[g if g in outside else -1 for g in row] for row in event]
        groups = torch.tensor(chosen, dtype=torch.int32, device=device)
        cache.step.fill_(step)
        found = pages.resolve_pages(groups, cache, PER_CHUNK)
        queries = random(2 * ratio, dim, seed=seed + step).to(device)
        layer = LayerPages(held, host, window)
        out = resident.attend_resident(queries, now, layer, groups, found, 0.3)
        for head in range(2):
            listed = [g for g in chosen[head] if g >= 0] + list(open_groups(window, position))
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


# Attention with a window and mass


@settings(max_examples=8, deadline=None)
@example(dim=16, kv_heads=1, ratio=3, position=319, budget=1, size=16, seed=0)
@example(dim=128, kv_heads=2, ratio=8, position=500, budget=9, size=2, seed=1)
# Most programs find no page in their part of the list.
@example(dim=64, kv_heads=2, ratio=8, position=63, budget=70, size=4, seed=1)
@given(
    st.sampled_from([16, 64, 128]),
    st.integers(1, 2),
    st.sampled_from([1, 3, 8]),
    st.integers(0, 639),
    st.integers(1, 9),
    group_sizes,
    seeds,
)
def test_attend_resident_as_defined(
    device: torch.device,
    dim: int,
    kv_heads: int,
    ratio: int,
    position: int,
    budget: int,
    size: int,
    seed: int,
) -> None:
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
    routed = range(window.sinks, window.first_open(position))
    groups = torch.full((kv_heads, budget), -1, dtype=torch.int32)
    for head in range(kv_heads):
        order = torch.randperm(len(routed), generator=generator)[:budget] + window.sinks
        groups[head, torch.randperm(budget, generator=generator)[: len(order)]] = order.int()
    groups = groups.to(device)
    cache = empty_cache(kv_heads, total, slots, device)
    reference.resolve_pages(groups[:, ::2].contiguous(), cache, PER_CHUNK)
    cache.step.fill_(1)
    found = reference.resolve_pages(groups, cache, PER_CHUNK)
    # The pages of the first call count as fetched.
    of_host = host.view(kv_heads, total, 2, size, dim)
    for head, nth in itertools.product(range(kv_heads), range(budget)):
        if 0 <= int(found[head, nth]) < MISSING:
            slot = window.slots + int(found[head, nth])
            held[head, slot] = of_host[head, int(groups[head, nth])].to(device)
    queries = random(kv_heads * ratio, dim, seed=seed + 1).to(device)
    mass = torch.zeros(total, device=device)
    expected_mass, before = mass.clone(), held.clone()
    layer, now, scale = LayerPages(held, host, window), number(position, device), dim**-0.5
    importance = None
    if seed % 2:
        importance = 1 + 9 * torch.rand(kv_heads, budget, generator=generator).to(device)
    out = resident.attend_resident(queries, now, layer, groups, found, scale, mass, importance)
    wide = LayerPages(before.double(), host.double(), window)
    expected = reference.attend_resident(
        queries.double(), now, wide, groups, found, scale, expected_mass, importance
    )
    assert_near(out.cpu(), expected.cpu(), 2.1 * BF16_STEP, 1)
    assert_near(mass.cpu(), expected_mass.cpu().double(), 1e-3, 1e-1)
    if importance is None:
        assert float(mass.sum()) == pytest.approx(kv_heads * ratio, rel=1e-4)
    again = resident.attend_resident(queries, now, layer, groups, found, scale, None, importance)
    assert torch.equal(again, out)
    missing = [p - MISSING for p in found.flatten().tolist() if p >= MISSING]
    for head, nth in itertools.product(range(kv_heads), range(budget)):
        if (slot := int(found[head, nth])) >= 0:
            in_cache = held[head, window.slots + slot % MISSING]
            assert torch.equal(in_cache.cpu(), of_host[head, int(groups[head, nth])])
    touched = (held.view(torch.int16) != before.view(torch.int16)).flatten(2).any(-1)
    assert int(touched.sum()) == len(missing)


# Copies


@settings(max_examples=12, deadline=None)
@example(position=320, size=16, seed=0)
@given(st.integers(0, 600), group_sizes, seeds)
def test_load_window_as_defined(device: torch.device, position: int, size: int, seed: int) -> None:
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
    for group in open_groups(window, max(position - 1, 0)) if position else ():
        in_ring = found[:, :, window.slot(group)].flatten(2).cpu()
        assert torch.equal(in_ring, host.view(layers, kv_heads, total, -1)[:, :, group])
