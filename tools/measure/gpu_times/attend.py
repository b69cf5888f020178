"""Attention over pages, the page cache, and copies from host memory.

Decoding is timed over several layers at once, so that their pages do not fit the GPU's caches.
Pages are of ``group`` tokens, and the number of tokens read does not depend on that.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from hga_kernels import (
    Angles,
    Budget,
    ChunkRange,
    HeadWeights,
    LayerPages,
    PageTable,
    Window,
    reference,
)
from hga_kernels.gpu import attention
from hga_kernels.gpu.build import launches_for
from hga_kernels.gpu.linear import rows
from hga_kernels.gpu.pages import attend as resident
from hga_kernels.gpu.pages import cache as pages
from hga_kernels.gpu.select import choose_pages as choice
from hga_kernels.gpu.select import dispatch as selection
from tools.measure.gpu_times import Case, with_launch
from tools.measure.gpu_times.select import entries, layer_of

LAYERS, KV_HEADS, HEADS, DIM, TOKENS = 48, 4, 32, 128, 65_536
TOKEN = 2 * DIM * 2
"""Bytes of K and V."""
BUDGET, PREFILL, DECODE = 4096, 4224, 4224
"""Tokens that are chosen in a decode step; tokens that a block reads, in prefill and in decode."""
SLOTS = 8192
"""Tokens that the page cache of a KV head holds."""
TIMED_LAYERS = 16
SCALE = 1 / math.sqrt(DIM)
POSITION = 60_001


def window_of(group: int) -> Window:
    """Return a window of a chunk of sinks and the open chunk."""
    return Window(64 // group, group)


def cases(device: torch.device, group: int) -> Iterator[Case]:
    """Return all cases of this part."""
    yield _prefill(device, 4096, 64, PREFILL, "attend_pages, slice of 4,096", group)
    yield _prefill(device, 64, 1, DECODE, "attend_pages, 64 appended tokens", group)
    shape = LAYERS, KV_HEADS * TOKENS // group, 2, group, DIM
    host = torch.empty(shape, dtype=torch.bfloat16, pin_memory=True)
    for layer in host:
        layer.copy_(torch.randn(layer.shape, dtype=torch.bfloat16, device=device))
    budget = BUDGET // group
    yield _Decode(device, host, 0, "all hits").case()
    for missing in (160 // group, budget):
        yield _Decode(device, host, missing, f"{missing} of {budget} missing").case()
    yield from _Decode(device, host, 0, "all hits").parts()
    yield from (_choice(device, fused, group) for fused in (False, True))
    sizes = window_of(group)
    shape = LAYERS, KV_HEADS, sizes.slots, 2, group, DIM
    window = torch.empty(shape, dtype=torch.bfloat16, device=device)
    position = torch.tensor([POSITION], dtype=torch.int32, device=device)
    size = window.numel() * 2
    yield Case("load_window (PCIe)", lambda: pages.load_window(host, window, position, sizes), size)
    table = host.view(-1, 2048)[:151_936]
    for count in (1, 65_536):
        ids = torch.randint(0, len(table), (count,), device=device)
        yield Case(f"gather_rows, {count:,} (PCIe)", _gather(table, ids), count * 4096)


def candidates(device: torch.device, group: int) -> Iterator[Case]:
    """Return a case per launch to choose from."""
    slices = _prefill(device, 4096, 64, PREFILL, "attend_pages/128", group)
    append = _prefill(device, 64, 1, DECODE, "attend_pages/16", group)
    for launch in attention.CANDIDATES["attend_pages/128"]:
        yield with_launch(slices, attention.ATTEND[128], launch)
    for launch in attention.CANDIDATES["attend_pages/16"]:
        yield with_launch(append, attention.ATTEND[16], launch)
    shape = TIMED_LAYERS, KV_HEADS * TOKENS // group, 2, group, DIM
    host = torch.randn(shape, device=device).bfloat16()
    decode = _Decode(device, host, 0, "all hits")
    [resolve, attend] = decode.parts()
    for launch in resident.CANDIDATES["attend_resident"]:
        yield with_launch(attend, resident.ATTEND, launch)
    attend = replace(attend, name="combine")
    for launch in resident.CANDIDATES["combine"]:
        yield with_launch(attend, resident.COMBINE, launch)
    for launch in pages.CANDIDATES["resolve_pages"]:
        yield with_launch(resolve, launches_for(pages.RESOLVE, decode.owner.shape[2]), launch)


def _gather(table: torch.Tensor, ids: torch.Tensor) -> Callable[[], object]:
    return lambda: rows.gather_rows(ids, table)


def _choice(device: torch.device, fused: bool, group: int) -> Case:
    """Make a case of selection at 64K and page look-up, all hits; together if ``fused``."""
    index = entries(TIMED_LAYERS, device)
    queries = torch.randn(KV_HEADS, 1, HEADS // KV_HEADS, DIM, device=device).bfloat16()
    integer = {"dtype": torch.int32, "device": device}
    chunks, budget = TOKENS // 64, Budget(BUDGET // group, group)
    allowed = ChunkRange(2, torch.tensor([chunks - 8], **integer), chunks)
    table = torch.full((TIMED_LAYERS, KV_HEADS, TOKENS // group), -1, **integer)
    owner = torch.full((TIMED_LAYERS, KV_HEADS, SLOTS // group), -1, **integer)
    stamps, step = owner.clone(), torch.zeros(1, **integer)
    counts = torch.zeros(2, dtype=torch.int64, device=device)

    def run() -> None:
        for layer in range(TIMED_LAYERS):
            cache = PageTable(table[layer], owner[layer], stamps[layer], step, counts)
            own = layer_of(index, layer)
            if fused:
                choice.choose_pages(queries, own, allowed, budget, SCALE, cache)
            else:
                found = selection.select_groups(queries, own, allowed, budget, SCALE)
                assert found is not None
                pages.resolve_pages(found[0][0], cache, 64 // group)

    launches = "choose_pages" if fused else "select_groups, resolve_pages"
    return Case(f"{launches}, {TIMED_LAYERS} layers at 64K", run)


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def _prefill(
    device: torch.device, tokens: int, rows: int, read: int, name: str, group: int
) -> Case:
    """Make a case of queries from 56K on: sinks, chosen pages in any order, the open chunk."""
    total, sizes = TOKENS // group, window_of(group)
    pool = torch.randn(KV_HEADS * total, 2, group, DIM, device=device).bfloat16()
    blocks, start = tokens // rows, 57_344
    queries = torch.randn(blocks, rows, HEADS, DIM, device=device).bfloat16()
    positions = torch.arange(start, start + tokens, dtype=torch.int32, device=device)
    positions = positions.view(blocks, rows)
    chunk = positions[:, 0] // 64
    within = torch.arange(sizes.open, dtype=torch.int32, device=device)
    opened = chunk[:, None] * sizes.open + within
    opened = opened.masked_fill(opened * group > positions[:, -1:], -1)[:, None]
    noise = torch.rand(blocks, KV_HEADS, (start - 1024) // group, device=device)
    count = read // group - sizes.slots
    chosen = noise.topk(count, sorted=False).indices.int() + sizes.sinks
    sinks = torch.arange(sizes.sinks, dtype=torch.int32, device=device)
    sinks = sinks.expand(blocks, KV_HEADS, -1)
    groups = torch.cat((sinks, chosen, opened.expand(-1, KV_HEADS, -1)), 2)
    heads = torch.arange(KV_HEADS, dtype=torch.int32, device=device)[:, None] * total
    slots = groups.clamp_min(0) + heads
    arguments = queries, positions, groups, slots, pool, SCALE

    def check() -> float:
        found, _ = attention.attend_pages(*arguments)
        few = [x[:4].double() if x.is_floating_point() else x[:4] for x in arguments[:4]]
        expected, _ = reference.attend_pages(*few, pool.double(), SCALE)
        return _error(found[:4], expected)

    seen = int((groups >= 0).sum()) * group
    flops = seen * rows * (HEADS // KV_HEADS) * DIM * 4
    # Pages that blocks share are read once.
    size = min(seen, KV_HEADS * TOKENS) * TOKEN + 2 * queries.numel() * 2
    return Case(name, lambda: attention.attend_pages(*arguments), size, flops, check)


class _Decode:
    """Layers with a full page cache; ``missing`` of the chosen pages are new each time."""

    def __init__(self, device: torch.device, host: torch.Tensor, missing: int, name: str) -> None:
        self.name, self.missing = name, missing
        self.host = host[:TIMED_LAYERS]
        group, dim = host.shape[3:]
        self.window = window_of(group)
        self.budget, total = BUDGET // group, TOKENS // group
        slots = self.budget + 2 * missing
        integer = {"dtype": torch.int32, "device": device}
        self.position = torch.tensor([POSITION], **integer)
        self.step = torch.zeros(1, **integer)
        self.counts = torch.zeros(2, dtype=torch.int64, device=device)
        self.table = torch.full((TIMED_LAYERS, KV_HEADS, total), -1, **integer)
        self.owner = torch.full((TIMED_LAYERS, KV_HEADS, slots), -1, **integer)
        self.stamps = self.owner.clone()
        shape = TIMED_LAYERS, KV_HEADS, self.window.slots + slots, 2, group, dim
        self.resident = torch.zeros(shape, dtype=torch.bfloat16, device=device)
        pages.load_window(self.host, self.resident, self.position + 1, self.window)
        self.heads = torch.randn(1, (HEADS + 2 * KV_HEADS) * DIM, device=device).bfloat16()
        norm = torch.ones(DIM, dtype=torch.bfloat16, device=device)
        self.head_weights = HeadWeights(norm, norm, 1e-6)
        radians = torch.rand(TOKENS, DIM // 2, device=device) * 6
        self.angles = Angles(radians.cos(), radians.sin())
        self.mass = torch.zeros(total, device=device)
        # Four selections in turn: by the fourth, the cache has dropped the first one's new pages.
        # Each takes as many groups from every stratum.
        per_chunk, strata = 64 // group, reference.STRATA
        noise = torch.rand(TIMED_LAYERS, KV_HEADS, strata, 56 * per_chunk, device=device)
        nth = noise.argsort(-1).int().transpose(-1, -2)
        stratum = torch.arange(strata, **integer)
        chunk = (nth // per_chunk + 1) * strata + stratum
        order = (chunk * per_chunk + nth % per_chunk).flatten(-2)
        always = order[..., : self.budget - missing]
        news = order[..., self.budget : self.budget + 4 * missing]
        news = news.unflatten(-1, (4, missing)).unbind(-2)
        self.groups = [torch.cat((always, new), -1) for new in news]
        self.numbers = itertools.cycle(range(4))
        for _ in range(4):
            self.run()

    def layer(self, layer: int) -> LayerPages:
        """Return the pages of a layer."""
        return LayerPages(self.resident[layer], self.host[layer], self.window)

    def run(self) -> None:
        """Run one step of all layers."""
        groups = self.groups[next(self.numbers)]
        self.step += 1
        for layer in range(TIMED_LAYERS):
            queries = pages.write_token(
                self.heads, self.head_weights, self.angles, self.position, self.layer(layer)
            )
            assert queries is not None
            slots = self.resolve(layer, groups[layer])
            self.attend(layer, queries, groups[layer], slots)

    def resolve(self, layer: int, groups: torch.Tensor) -> torch.Tensor:
        """Look up the pages of a layer's groups."""
        cache = PageTable(
            self.table[layer], self.owner[layer], self.stamps[layer], self.step, self.counts
        )
        return pages.resolve_pages(groups, cache, 64 // self.window.group_size)

    def attend(
        self, layer: int, queries: torch.Tensor, groups: torch.Tensor, slots: torch.Tensor
    ) -> torch.Tensor:
        """Attend in a layer."""
        own = self.layer(layer)
        out = resident.attend_resident(queries, self.position, own, groups, slots, SCALE, self.mass)
        assert out is not None
        return out

    def check(self) -> float:
        """Return the error of the last layer, which reads the host where pages are missing."""
        groups = self.groups[next(self.numbers)][-1]
        self.step += 1
        slots = self.resolve(TIMED_LAYERS - 1, groups)
        queries = self.heads.view(-1, DIM)[:HEADS].contiguous()
        wide = LayerPages(self.resident[-1].float(), self.host[-1], self.window)
        plain = reference.attend_resident(
            queries.float(), self.position, wide, groups, slots, SCALE
        )
        error = _error(self.attend(TIMED_LAYERS - 1, queries, groups, slots), plain)
        for _ in range(3):
            next(self.numbers)
        return error

    def case(self) -> Case:
        """Return the case of a whole step: write, resolve and attend."""
        size = TIMED_LAYERS * KV_HEADS * (128 + BUDGET) * TOKEN
        return Case(f"decode, {TIMED_LAYERS} layers, {self.name}", self.run, size, 0, self.check)

    def parts(self) -> Iterator[Case]:
        """Return cases of resolving and of attending alone, with all pages cached."""
        groups = self.groups[0]
        slots = [self.resolve(layer, groups[layer]) for layer in range(TIMED_LAYERS)]
        queries = self.heads.view(-1, DIM)[:HEADS].contiguous()

        def resolve() -> None:
            for layer in range(TIMED_LAYERS):
                self.resolve(layer, groups[layer])

        def attend() -> None:
            for layer in range(TIMED_LAYERS):
                self.attend(layer, queries, groups[layer], slots[layer])

        size = TIMED_LAYERS * KV_HEADS * (128 + BUDGET) * TOKEN
        yield Case(f"resolve_pages, {TIMED_LAYERS} layers, {self.name}", resolve)
        yield Case(f"attend_resident, {TIMED_LAYERS} layers, {self.name}", attend, size)
