"""Frozen configuration of the engine, parsed once and passed down."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

RouterName = Literal["hga", "paper", "dense"]
DeviceName = Literal["auto", "cpu", "cuda"]
Architecture = Literal["llama", "qwen3", "qwen3_moe"]

PAGES = "pages.kv"
"""The file of a saved state that holds K/V."""

STRATA = 4
"""``hga_kernels.reference.selection.STRATA``, which takes torch to import."""


@dataclass(frozen=True)
class ModelConfig:
    """Geometry of a decoder, in the terms of Hugging Face's ``config.json``."""

    architecture: Architecture
    num_layers: int
    hidden_size: int
    num_query_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    rope_base: float
    rms_norm_eps: float
    tie_embeddings: bool
    num_experts: int = 0
    experts_per_token: int = 0
    expert_intermediate_size: int = 0
    normalize_expert_weights: bool = True
    dense_layers: frozenset[int] = frozenset()
    """Layers of a mixture-of-experts model that hold a plain MLP instead of experts."""

    @property
    def has_qk_norm(self) -> bool:
        """Whether queries and keys pass an RMSNorm per head before RoPE."""
        return self.architecture != "llama"

    @property
    def heads_per_kv(self) -> int:
        """Query heads that share one KV head."""
        return self.num_query_heads // self.num_kv_heads

    def has_experts(self, layer: int) -> bool:
        """Whether ``layer`` holds experts rather than a plain MLP."""
        return self.num_experts > 0 and layer not in self.dense_layers


@dataclass(frozen=True)
class RouterConfig:
    """What a query may read. Token counts are importance of ``chunk_size`` where noted.

    A chunk is the unit of the index, a group that of selection. Sinks and recent tokens are always
    attended; budgets count groups beyond them, per KV head.
    """

    kind: RouterName = "hga"
    chunk_size: int = 64
    group_size: int = 2
    """Tokens of a group, and of a page; on the CPU."""
    gpu_group_size: int = 16
    """The same on a GPU, where choosing among eight times as many takes longer than attending."""
    sink_tokens: int = 64
    """Always attended, from the start; a multiple of ``chunk_size``."""
    recent_tokens: int = 0
    """Always attended before the open chunk; a multiple of ``chunk_size``."""
    decode_budget: int = 656
    """Groups per query token and KV head (decode rule)."""
    prefill_group_size: int = 2
    """Tokens that are chosen together under the prefill rule, whole groups."""
    prefill_budget: int = 1093
    """Groups of ``prefill_group_size`` per block of queries and KV head (prefill rule)."""
    prefill_block: int = 16
    """Neighbouring queries that share a selection under the prefill rule; divides
    ``chunk_size``."""
    scoring_stride: int = 1
    """Under the prefill rule every n-th query of a block is scored."""
    gpu_prefill_group_size: int = 16
    """This and the next three: the same on a GPU, where scoring every query would take longer than
    all the rest. Queries that are not scored look for what comes next: hence larger groups."""
    gpu_prefill_budget: int = 136
    gpu_prefill_block: int = 64
    gpu_scoring_stride: int = 4
    paper_group_size: int = 16
    """Tokens of a group of the ``paper`` router, under both rules; whole groups."""
    paper_chunks: int = 20
    """Chunks that pass the chunk level of the ``paper`` router, under both rules."""
    trace_bin_tokens: int = 16
    """Tokens whose attention mass a trace tells together; a multiple of ``group_size``."""

    @property
    def budget_tokens(self) -> int:
        """Tokens that a query may read per KV head by the decode rule, beyond those always read."""
        return self.decode_budget * self.group_size

    def routed_groups(self, position: int) -> tuple[int, int]:
        """The groups, from and to, that a query at ``position`` reads only if they are selected."""
        per_chunk = self.chunk_size // self.group_size
        first = self.sink_tokens // self.chunk_size
        end = position // self.chunk_size - self.recent_tokens // self.chunk_size
        return first * per_chunk, max(first, end) * per_chunk

    def with_budget(self, tokens: int) -> "RouterConfig":
        """The same with so many tokens by the decode rule, and five thirds of that by the other.

        Raises:
            ValueError: that is less than a group from every stratum, in groups of the largest size.
        """
        least = STRATA * max(self.gpu_group_size, self.gpu_prefill_group_size)
        if tokens < least:
            raise ValueError(f"budget must be at least {least} tokens")
        shared = 5 * tokens // 3
        return replace(
            self,
            decode_budget=tokens // self.group_size,
            prefill_budget=shared // self.prefill_group_size,
            gpu_prefill_budget=shared // self.gpu_prefill_group_size,
        )

    def on(self, device_type: str) -> "RouterConfig":
        """The same as suits a device: "cpu" or "cuda"."""
        if device_type == "cpu":
            return self
        return replace(
            self,
            group_size=self.gpu_group_size,
            decode_budget=max(self.budget_tokens // self.gpu_group_size, 1),
            prefill_group_size=self.gpu_prefill_group_size,
            prefill_budget=self.gpu_prefill_budget,
            prefill_block=self.gpu_prefill_block,
            scoring_stride=self.gpu_scoring_stride,
        )

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
        if self.sink_tokens % self.chunk_size or self.recent_tokens % self.chunk_size:
            raise ValueError("sink_tokens and recent_tokens must be importance of chunk_size")
        if min(self.decode_budget, self.prefill_budget) < 1:
            raise ValueError("a budget must be at least one group")


@dataclass(frozen=True)
class CacheConfig:
    """Where K/V may live."""

    context: int = 65_536
    """Tokens a session can hold."""
    host_budget_bytes: int | None = None
    """K/V bytes kept in host memory; the rest lives on disk. None: all in host memory."""
    disk_dir: Path | None = None
    """Folder for the disk tier; None: the system's temporary folder."""
    saved_dir: Path | None = None
    """Folder of this session's saved state, which is then the disk tier's; None: none is kept."""
    device_limit_bytes: int | None = None
    """Memory of the GPU, as its driver counts it, that may be in use; None: all there is."""


@dataclass(frozen=True)
class EngineConfig:
    """Everything the engine is built from, besides the model itself."""

    router: RouterConfig = field(default_factory=RouterConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    slice_tokens: int | None = None
    """Tokens of one prefill step, a multiple of the chunk size; None: what suits the device."""

    def on(self, device_type: str) -> "EngineConfig":
        """The same with groups of the size that suits a device: "cpu" or "cuda"."""
        return replace(self, router=self.router.on(device_type))

    def slice_on(self, device_type: str) -> int:
        """Tokens of one prefill step on a device: "cpu" or "cuda"."""
        # On a GPU enough for the weights of every expert to be worth loading.
        return self.slice_tokens or (1024 if device_type == "cpu" else 4096)


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
