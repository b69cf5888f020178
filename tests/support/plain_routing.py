"""One layer of routed attention over given queries, keys and values, and the rule read plainly."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st

from hga_engine.attention.index import RoutingIndex
from hga_engine.attention.routed import RoutedAttention, Rule
from hga_engine.attention.trace import AttentionTotals
from hga_engine.config import CacheConfig, ModelConfig, Routing
from hga_engine.kv_store.tiered import TieredKVStore
from hga_kernels.reference.index import decode_tokens, encode_tokens, hadamard
from tests.support.kernel_cases import draw_number, drawn_of_strata, odds_of

HEAD_DIM = 16
ROPE_BASE = 10_000.0
SMALL = Routing(
    chunk_size=8,
    group_size=4,
    prefill_group_size=8,
    prefill_block=8,
    paper_group_size=8,
    sink_tokens=8,
    decode_budget=14,
    prefill_budget=6,
    paper_chunks=3,
    scoring_stride=3,
    trace_bin_tokens=4,
)
"""So small that a hundred tokens are routed, and most of them are not read."""


RULES: tuple[Rule, ...] = ("decode", "prefill")
ratios = st.sampled_from([1, 3, 8])
routers = st.sampled_from(["hga", "paper"])
slices = st.lists(st.integers(1, 119), max_size=12)
rules = st.sampled_from(RULES)
seeds = st.integers(0, 999)
sizes = st.builds(
    lambda per_chunk, group, whole, one, sinks, budget, kept, stride, together: Routing(
        chunk_size=per_chunk * group,
        group_size=group,
        prefill_group_size=per_chunk * group if whole else group,
        paper_group_size=per_chunk * group if whole else group,
        prefill_block=group if one else per_chunk * group,
        sink_tokens=sinks * per_chunk * group,
        decode_budget=budget,
        prefill_budget=budget + 1,
        paper_chunks=kept,
        scoring_stride=stride,
        trace_bin_tokens=together * group,
    ),
    per_chunk=st.integers(1, 3),
    group=st.sampled_from([2, 4, 6]),
    whole=st.booleans(),
    one=st.booleans(),
    sinks=st.integers(0, 2),
    budget=st.integers(1, 40),
    kept=st.integers(1, 5),
    stride=st.integers(1, 5),
    together=st.integers(1, 4),
)
"""Routings of all small sizes: without sinks, one group a chunk."""


def limits(router: Routing, rule: Rule) -> tuple[int, int]:
    """Groups that are selected, and their size."""
    budget, size = router.decode_budget, router.group_size
    if rule == "prefill":
        budget, size = router.prefill_budget, router.prefill_group_size
    if router.kind == "paper":
        return max(budget * size // router.paper_group_size, 1), router.paper_group_size
    return budget, size


def geometry(kv_heads: int, ratio: int, head_dim: int = HEAD_DIM) -> ModelConfig:
    return ModelConfig(
        architecture="llama",
        num_layers=1,
        hidden_size=16,
        num_query_heads=kv_heads * ratio,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=16,
        vocab_size=32,
        max_positions=4096,
        rope_base=ROPE_BASE,
        rms_norm_eps=1e-5,
        tie_embeddings=True,
    )


@dataclass(frozen=True)
class Text:
    """Queries [tokens, query_heads, dim], keys and values [tokens, kv_heads, dim] of a layer."""

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor

    @staticmethod
    def random(
        tokens: int,
        kv_heads: int,
        ratio: int,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        head_dim: int = HEAD_DIM,
    ) -> "Text":
        generator = torch.Generator().manual_seed(seed)

        def draw(heads: int, size: float) -> torch.Tensor:
            shape = (tokens, heads, head_dim)
            return (torch.randn(shape, generator=generator, dtype=torch.float64) * size).to(dtype)

        return Text(draw(kv_heads * ratio, 2.0), draw(kv_heads, 1.0), draw(kv_heads, 1.0))

    @property
    def tokens(self) -> int:
        return self.queries.shape[0]

    @property
    def kv_heads(self) -> int:
        return self.keys.shape[1]

    @property
    def ratio(self) -> int:
        return self.queries.shape[1] // self.kv_heads

    def changed_from(self, position: int) -> "Text":
        """Other numbers from ``position`` on."""
        other = Text.random(
            self.tokens, self.kv_heads, self.ratio, -1, self.keys.dtype, self.keys.shape[2]
        )
        first = torch.arange(self.tokens)[:, None, None] < position
        return Text(
            torch.where(first, self.queries, other.queries),
            torch.where(first, self.keys, other.keys),
            torch.where(first, self.values, other.values),
        )


class Layer:
    """Store, index and attention of one layer, fed with slices of a text."""

    def __init__(
        self,
        text: Text,
        router: Routing = SMALL,
        host_budget_bytes: int | None = None,
    ) -> None:
        model = geometry(text.kv_heads, text.ratio, text.keys.shape[2])
        cache = CacheConfig(context=text.tokens + 8, host_budget_bytes=host_budget_bytes)
        self.text = text
        self.router = router
        self.store = TieredKVStore(model, router, cache, text.keys.dtype)
        cpu = torch.device("cpu")
        self.index = RoutingIndex(model, router, cache.context, text.keys.dtype, cpu)
        self.attention = RoutedAttention(model, router, self.store, self.index, cpu)

    def add(self, end: int) -> int:
        """Store and index the text up to ``end``; gives where that began."""
        start = self.store.length(0)
        self.store.append(0, self.text.keys[start:end], self.text.values[start:end])
        self.index.extend(0, self.store)
        return start

    def attend(
        self, end: int, rule: Rule, totals: AttentionTotals | None = None, with_mass: bool = False
    ) -> torch.Tensor:
        """Add the text up to ``end`` and attend from it."""
        start = self.add(end)
        queries = self.text.queries[start:end]
        return self.attention.attend(0, queries, start, rule, totals, with_mass)

    def run(
        self, rule: Rule, ends: Iterable[int] = (), totals: AttentionTotals | None = None
    ) -> torch.Tensor:
        """Attend from the whole text in slices that end at ``ends`` and at its end."""
        borders = sorted({end for end in ends if 0 < end < self.text.tokens} | {self.text.tokens})
        return torch.cat([self.attend(end, rule, totals) for end in borders])


def run(text: Text, rule: Rule, ends: Iterable[int] = (), router: Routing = SMALL) -> torch.Tensor:
    layer = Layer(text, router)
    out = layer.run(rule, ends)
    layer.store.close()
    return out


def with_router(name: str, router: Routing = SMALL) -> Routing:
    return replace(router, kind=name)


def dense(text: Text) -> torch.Tensor:
    """Torch's own causal attention."""
    out = torch.nn.functional.scaled_dot_product_attention(
        text.queries.transpose(0, 1)[None],
        text.keys.transpose(0, 1)[None],
        text.values.transpose(0, 1)[None],
        is_causal=True,
        enable_gqa=True,
    )
    return out[0].transpose(0, 1)


# The rule, read plainly


def plain_summary(keys: torch.Tensor, start: int, rope_base: float = ROPE_BASE) -> torch.Tensor:
    """The paper's summary of keys [tokens, dim] whose first is at position ``start``.

    Pairs that turn slowly: the mean of the raw keys, rotated to the middle position. Fast pairs,
    (tokens - 1) * theta > 0.5 rad: the mean of the rotated keys.
    """
    tokens, dim = keys.shape
    theta = rope_base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    rotated = torch.complex(*keys.chunk(2, -1))
    positions = torch.arange(start, start + tokens, dtype=torch.float64)
    raw = rotated * torch.exp(-1j * positions[:, None] * theta)
    to_middle = torch.exp(1j * (start + (tokens - 1) / 2) * theta)
    is_fast = (tokens - 1) * theta > 0.5
    mean = torch.where(is_fast, rotated.mean(0), raw.mean(0) * to_middle)
    return torch.cat((mean.real, mean.imag))


def top_k(mass: dict[int, float], count: int) -> set[int]:
    return set(sorted(mass, key=lambda number: -mass[number])[:count])


def plain_selection(
    text: Text,
    head: int,
    rows: Sequence[int],
    position: int,
    router: Routing,
    budget: int,
    group_size: int,
) -> dict[int, float]:
    """Groups that the block of ``position`` selects when the queries at ``rows`` are scored.

    Each with how many groups it stands for.
    """
    size, per_chunk = router.chunk_size, router.chunk_size // group_size
    first = router.sink_tokens // size
    end = position // size
    candidates = range(first, end)
    if not candidates:
        return {}
    ratio, dim = text.ratio, text.keys.shape[2]
    queries = text.queries[list(rows), head * ratio : (head + 1) * ratio].flatten(0, 1)
    queries = queries / math.sqrt(dim)
    keys = {c: text.keys[c * size : (c + 1) * size, head] for c in candidates}
    summaries = {c: plain_summary(keys[c], c * size) for c in candidates}

    def mass(scores: dict[int, torch.Tensor]) -> dict[int, float]:
        """Softmax over all numbers and places, added over queries; scores [queries, places]."""
        weights = torch.cat(list(scores.values()), 1).softmax(-1).sum(0)
        parts = weights.split([s.shape[1] for s in scores.values()])
        return {number: float(part.sum()) for number, part in zip(scores, parts, strict=True)}

    is_paper = router.kind == "paper"
    kept = set(candidates)
    if is_paper:
        of_chunks = mass({c: queries @ summaries[c][:, None] for c in candidates})
        kept = top_k(of_chunks, router.paper_chunks)
    scores = {}
    for chunk in sorted(kept):
        estimated = estimated_keys(keys[chunk], summaries[chunk])
        for group in range(per_chunk):
            part = slice(group * group_size, (group + 1) * group_size)
            number = chunk * per_chunk + group
            if is_paper:
                start = number * group_size
                scores[number] = queries @ plain_summary(keys[chunk][part], start)[:, None]
            else:
                first_half, second_half = (queries @ estimated[part].T).chunk(2, -1)
                scores[number] = torch.maximum(first_half, second_half)
    if is_paper:
        return dict.fromkeys(top_k(mass(scores), budget), 1.0)
    window = window_groups(rows[-1], router)
    scores[-1] = attended_scores(text, head, rows, window, router.group_size)
    of_groups = mass(scores)
    del of_groups[-1]
    # The layer is the first.
    shares = {group: of / len(queries) for group, of in of_groups.items()}
    if 2 * len(shares) <= budget:
        return dict.fromkeys(shares, 1.0)
    drawn = {}
    for stratum, room in drawn_of_strata(shares, budget, per_chunk):
        odds = odds_of({group: shares[group] for group in stratum}, room, budget, head)
        drawn |= {
            group: max(1 / of, 1.0) for group, of in odds.items() if of >= draw_number(group, head)
        }
    return drawn


def attended_scores(
    text: Text, head: int, rows: Sequence[int], groups: set[int], size: int
) -> torch.Tensor:
    """[rows * ratio, tokens]: scores of the tokens of ``groups``, -inf after the query."""
    tokens = torch.tensor([t for t in range(text.tokens) if t // size in groups])
    queries = text.queries[list(rows), head * text.ratio : (head + 1) * text.ratio]
    scores = queries @ text.keys[tokens, head].T / math.sqrt(text.keys.shape[2])
    later = tokens > torch.tensor(rows)[:, None]
    return scores.masked_fill(later[:, None], -math.inf).flatten(0, 1)


def estimated_keys(keys: torch.Tensor, summary: torch.Tensor) -> torch.Tensor:
    """What the token index holds of a chunk's keys [tokens, dim]."""
    coded = encode_tokens(keys[None], summary[None, None])
    turn = hadamard(keys.shape[1], keys.dtype)
    return decode_tokens(*coded)[0, 0].to(keys.dtype) @ turn + summary


def window_groups(position: int, router: Routing) -> set[int]:
    """Groups of sinks and the open chunk that a query at ``position`` may see."""
    size = router.group_size
    window = position // router.chunk_size * router.chunk_size
    return {
        group
        for group in range(position // size + 1)
        if group * size < router.sink_tokens or group * size >= window
    }


def attend_to(
    text: Text, head: int, position: int, groups: dict[int, float], size: int
) -> torch.Tensor:
    """[ratio, dim]: exact attention of one position over the visible tokens of ``groups``.

    Each counts as often as the groups say.
    """
    tokens = [t for t in range(position + 1) if t // size in groups]
    times = torch.tensor([groups[t // size] for t in tokens], dtype=torch.float64)
    queries = text.queries[position, head * text.ratio : (head + 1) * text.ratio]
    scores = queries @ text.keys[tokens, head].T / math.sqrt(text.keys.shape[2])
    return (scores + times.log()).softmax(-1) @ text.values[tokens, head]


def plain_routed(text: Text, rule: Rule, router: Routing = SMALL) -> torch.Tensor:
    """The whole of routed attention, a query and a head at a time."""
    out = torch.empty_like(text.queries)
    size, stride = router.prefill_block, router.scoring_stride
    for position in range(text.tokens):
        if rule == "decode":
            rows = [position]
        else:
            start = position // size * size
            block = range(start, min(start + size, text.tokens))
            rows = [t for t in block if (t - start) % stride == stride - 1] or [block[-1]]
        for head in range(text.kv_heads):
            chosen = plain_selection(text, head, rows, position, router, *limits(router, rule))
            pages = limits(router, rule)[1] // router.group_size
            groups = {
                group * pages + page: times
                for group, times in chosen.items()
                for page in range(pages)
            }
            groups |= dict.fromkeys(window_groups(position, router), 1.0)
            part = slice(head * text.ratio, (head + 1) * text.ratio)
            out[position, part] = attend_to(text, head, position, groups, router.group_size)
    return out
