"""Frozen configuration: what a person chooses, and what the engine computes with.

``EngineConfig`` is the choice. ``resolve`` turns it into a ``SessionConfig`` for one device, once,
where a session is opened; everything below takes that alone.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hga_engine.architectures import ARCHITECTURES, Architecture

RouterName = Literal["hga", "paper", "dense"]
DeviceName = Literal["auto", "cpu", "cuda"]

PAGES = "pages.kv"
"""The file of a saved state that holds K/V."""

LEAST_BUDGET = 64
"""Tokens of the smallest budget: a group of 4 from each of the 16 strata."""


@dataclass(frozen=True)
class RopeScaling:
    """How RoPE's frequencies are lowered for more positions than those of the first training."""

    kind: Literal["linear", "yarn", "llama3"]
    factor: float
    """What the lowest frequencies are divided by."""
    original_positions: int
    """Positions of the first training; 0 where a file lists ``divisors`` instead."""
    attention_factor: float = 1.0
    """What cosines and sines are multiplied by."""
    beta_fast: float = 32.0
    """YaRN: frequencies with more turns over the original positions stay."""
    beta_slow: float = 1.0
    """YaRN: frequencies with fewer turns are divided by the factor."""
    low_frequency_factor: float = 1.0
    """Llama 3: frequencies with fewer turns are divided by the factor."""
    high_frequency_factor: float = 4.0
    """Llama 3: frequencies with more turns stay."""
    divisors: tuple[float, ...] = ()
    """What each frequency is divided by, in place of all of the above."""

    def __str__(self) -> str:
        return f"{_KINDS[self.kind]} x{self.factor:.4g}"


_KINDS = {"linear": "linear", "yarn": "YaRN", "llama3": "Llama 3's"}


def yarn_attention_factor(factor: float) -> float:
    """Return YaRN's factor of cosines and sines (arXiv 2309.00071, section 3.4)."""
    return 0.1 * math.log(max(factor, 1.0)) + 1


@dataclass(frozen=True)
class ModelConfig:
    """Geometry of a decoder, in the terms of Hugging Face's ``config.json``."""

    architecture: str
    """A name in ``ARCHITECTURES``."""
    num_layers: int
    hidden_size: int
    num_query_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    """The native context: tokens of a session for which RoPE is as the model's files say."""
    rope_base: float
    rms_norm_eps: float
    tie_embeddings: bool
    num_experts: int = 0
    experts_per_token: int = 0
    expert_intermediate_size: int = 0
    normalize_expert_weights: bool = True
    dense_layers: frozenset[int] = frozenset()
    """Layers of a mixture-of-experts model that hold a plain MLP instead of experts."""
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None
    """Tokens that attention reaches back, if not all. No session is longer."""

    @property
    def traits(self) -> Architecture:
        """What the architecture differs in."""
        return ARCHITECTURES[self.architecture]

    @property
    def heads_per_kv(self) -> int:
        """Query heads that share one KV head."""
        return self.num_query_heads // self.num_kv_heads

    def has_experts(self, layer: int) -> bool:
        """Whether ``layer`` holds experts rather than a plain MLP."""
        return self.num_experts > 0 and layer not in self.dense_layers


@dataclass(frozen=True)
class Routing:
    """What a query may attend to, in the numbers that one kind of device computes with.

    A chunk is the unit of the index, a group that of selection. The window, which is the sinks and
    the open chunk, is always attended; budgets count groups beyond it, per KV head.

    Raises:
        ValueError: sizes do not divide each other, or a budget is empty.
    """

    kind: RouterName = "hga"
    chunk_size: int = 64
    """Compiled kernels know only 64. Tests take less, so that short texts have many chunks; the
    reference kernels compute them."""
    group_size: int = 2
    """Tokens of a group, and of a page."""
    sink_tokens: int = 64
    """Always attended, from the start; a multiple of ``chunk_size``."""
    decode_budget: int = 2048
    """Groups per query token and KV head at most (decode rule)."""
    decode_odds: float = 1.0
    """Odds of a group, as a multiple of its share of the attention times ``decode_budget``."""
    prefill_group_size: int = 2
    """Tokens that are chosen together under the prefill rule, whole groups."""
    prefill_budget: int = 3584
    """Groups of ``prefill_group_size`` per query block and KV head at most (prefill rule)."""
    prefill_odds: float = 1.0
    """Likewise, with ``prefill_budget``."""
    prefill_block: int = 16
    """Queries of a query block, which share a selection under the prefill rule; divides
    ``chunk_size``."""
    scoring_stride: int = 1
    """Under the prefill rule every n-th query of a block is scored."""
    paper_group_size: int = 16
    """Tokens of a group of the ``paper`` router, under both rules; whole groups."""
    paper_chunks: int = 20
    """Chunks that pass the chunk level of the ``paper`` router, under both rules."""
    trace_bin_tokens: int = 16
    """Tokens that a trace counts together; a multiple of ``group_size``."""

    @property
    def budget_tokens(self) -> int:
        """Most tokens beyond the window that a query attends to per KV head by the decode rule."""
        return self.decode_budget * self.group_size

    @property
    def groups_per_chunk(self) -> int:
        """Groups of a chunk."""
        return self.chunk_size // self.group_size

    @property
    def sink_chunks(self) -> int:
        """Chunks of the sinks."""
        return self.sink_tokens // self.chunk_size

    @property
    def window_tokens(self) -> int:
        """Tokens of sinks and a full open chunk."""
        return self.sink_tokens + self.chunk_size

    def routed_groups(self, position: int) -> tuple[int, int]:
        """Return the groups [first, end) that a query at ``position`` attends to only if selected.

        All other groups up to the query are in its window.
        """
        first, end = self.sink_chunks, position // self.chunk_size
        return first * self.groups_per_chunk, max(first, end) * self.groups_per_chunk

    def __post_init__(self) -> None:
        if self.chunk_size % self.prefill_group_size or self.prefill_group_size % self.group_size:
            raise ValueError(
                "chunk_size must be a multiple of prefill_group_size, that of group_size"
            )
        if self.chunk_size % self.paper_group_size or self.paper_group_size % self.group_size:
            raise ValueError(
                "chunk_size must be a multiple of paper_group_size, that of group_size"
            )
        if self.chunk_size % self.prefill_block:
            raise ValueError("chunk_size must be a multiple of prefill_block")
        if self.trace_bin_tokens % self.group_size:
            raise ValueError("trace_bin_tokens must be a multiple of group_size")
        if self.group_size % 2:
            raise ValueError("group_size must be even")
        if self.sink_tokens % self.chunk_size:
            raise ValueError("sink_tokens must be a multiple of chunk_size")
        if min(self.decode_budget, self.prefill_budget) < 1:
            raise ValueError("a budget must be at least one group")


@dataclass(frozen=True)
class CacheConfig:
    """Where K/V may live."""

    context: int = 65_536
    """Tokens a session can hold."""
    host_budget_bytes: int | None = None
    """K/V bytes that host memory holds; the rest lives on disk. None: all in host memory."""
    saved_dir: Path | None = None
    """Folder of this session's saved state, whose file of pages is then the disk tier. None:
    nothing is saved, and the disk tier is an unnamed file in the system's temporary folder."""
    device_limit_bytes: int | None = None
    """GPU memory that may be in use, as the driver counts it; None: all there is."""


@dataclass(frozen=True)
class EngineConfig:
    """What a person chooses. The engine computes with what ``resolve`` makes of it.

    Raises:
        ValueError: the budget is below ``LEAST_BUDGET``.
    """

    router: RouterName = "hga"
    budget_tokens: int = 4096
    """Most tokens beyond the window that a query attends to per KV head by the decode rule. Real
    text fills about a third."""
    cache: CacheConfig = field(default_factory=CacheConfig)

    def __post_init__(self) -> None:
        if self.budget_tokens < LEAST_BUDGET:
            raise ValueError(f"budget must be at least {LEAST_BUDGET} tokens")


@dataclass(frozen=True)
class SessionConfig:
    """What the engine is built from, besides the model itself."""

    routing: Routing = field(default_factory=Routing)
    cache: CacheConfig = field(default_factory=CacheConfig)
    slice_tokens: int = 1024
    """Tokens of one prefill step, a multiple of the chunk size."""
    part_tokens: int | None = None
    """Tokens of a long text that are best prefilled at a time, a multiple of ``slice_tokens``: each
    part that is done can be saved. None: the whole text."""


def resolve(config: EngineConfig, device_type: str) -> SessionConfig:
    """Return the settings that a device computes with.

    The prefill rule has the decode rule's budget in tokens on a GPU, 7/4 of it on a CPU.

    Args:
        config: what a person chose.
        device_type: "cpu" or "cuda".
    """
    tokens = config.budget_tokens
    if device_type == "cpu":
        routing = Routing(config.router, decode_budget=tokens // 2, prefill_budget=7 * tokens // 8)
        # As fast as the whole text at once, except that pages on disk are fetched for each part.
        slices = 2 if config.cache.host_budget_bytes is None else 16
        part = slices * SessionConfig.slice_tokens
        return SessionConfig(routing, config.cache, part_tokens=part)
    # Scoring every query would take longer than all the rest. Queries that are not scored look for
    # what comes next: hence larger groups in prefill.
    routing = Routing(
        kind=config.router,
        group_size=4,
        decode_budget=tokens // 4,
        decode_odds=1.25,
        prefill_group_size=16,
        # At least one from each stratum.
        prefill_budget=max(tokens // 16, LEAST_BUDGET // 4),
        # Few queries are scored, and errors of prefill stay: real text has room for more draws.
        prefill_odds=2.0,
        prefill_block=64,
        scoring_stride=4,
    )
    # A slice has enough tokens for the weights of every expert to be worth loading.
    return SessionConfig(routing, config.cache, slice_tokens=4096)


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is drawn. Temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    seed: int | None = None
    max_new_tokens: int = 512
    ignore_end: bool = False
    """Go on past the end token, to measure speed."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError("temperature must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError("top_p must be above 0 and at most 1")
        if self.top_k < 0:
            raise ValueError("top_k must be 0 (no limit) or more")
        if self.max_new_tokens < 1:
            raise ValueError("max_new_tokens must be at least 1")
