"""What kernels are called with: tensors and numbers that belong together."""

from dataclasses import dataclass

import torch

CHUNK = 64
"""Tokens of a chunk. The plain definitions take any size; compiled kernels only this one."""


@dataclass(frozen=True, slots=True)
class ChunkIndex:
    """The routing index of the chunks of one layer.

    The index of a whole model has the same tensors, each with a leading dimension of layers.
    """

    summaries: torch.Tensor
    """[kv_heads, chunks, head_dim]: mixed-RoPE means of the keys of chunks."""
    codes: torch.Tensor
    """[kv_heads, chunks, ...] uint8: 2-bit token codes, packed as ``encode_tokens`` says."""
    scales: torch.Tensor
    """[kv_heads, chunks, chunk_size] bfloat16: one scale per token code."""


@dataclass(frozen=True, slots=True)
class ChunkRange:
    """The chunks that query blocks may choose groups from."""

    first: int
    """The first chunk, the same for all blocks."""
    ends: torch.Tensor
    """[blocks] int32: for each block, the chunk after its last one."""
    last: int | None = None
    """An upper bound of ``ends``; None: taken from the tensor, which waits for a GPU."""

    def bound(self) -> int:
        """Return ``last``, or the largest of ``ends``."""
        return int(self.ends.max()) if self.last is None else self.last


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a query block may choose per KV head."""

    groups: int
    """At most so many groups."""
    group_size: int
    """Tokens of a group."""
    odds: float = 1.0
    """The odds of a group are its share of the attention times ``expected``."""

    @property
    def expected(self) -> float:
        """Groups drawn on average where attention is spread over all, if there is room."""
        return self.groups * self.odds


@dataclass(frozen=True, slots=True)
class Window:
    """The window of a query: the sinks, and the chunk that the query is in.

    While tokens are decoded, the window has the first slots of the resident pages: the sinks, then
    a ring for the open chunk, where group g is in slot ``sinks + g % open``. While the open chunk
    is one of the sinks, its groups are in both, and are attended to once.
    """

    sinks: int = 4
    """Groups at the start of a session that every query attends to."""
    group_size: int = 16
    """Tokens of a group."""

    @property
    def open(self) -> int:
        """Groups of the open chunk."""
        return CHUNK // self.group_size

    @property
    def slots(self) -> int:
        """Slots of the window; those of the page cache follow."""
        return self.sinks + self.open

    def first_open(self, position: int) -> int:
        """The first group of the chunk that holds ``position``."""
        return position // CHUNK * self.open

    def slot(self, group: int) -> int:
        """The slot of a group of the open chunk."""
        return self.sinks + group % self.open


@dataclass(frozen=True, slots=True)
class PageTable:
    """The page cache of one layer: which page is in which cache slot."""

    table: torch.Tensor
    """[kv_heads, max_groups] int32: the cache slot of a group, -1 for none."""
    owner: torch.Tensor
    """[kv_heads, cache_slots] int32: the group in a slot, -1 for none."""
    stamps: torch.Tensor
    """[kv_heads, cache_slots] int32: the decode step that used a slot last, -1 for none."""
    step: torch.Tensor
    """[1] int32: number of the decode step, one more with every step."""
    counts: torch.Tensor
    """[2] int64: hits and misses so far."""


@dataclass(frozen=True, slots=True)
class LayerPages:
    """The pages of one layer while tokens are decoded.

    The host holds every page. The device holds those of the window and, in the slots after them,
    the page cache.
    """

    resident: torch.Tensor
    """[kv_heads, slots, 2, group_size, head_dim] on the device."""
    host: torch.Tensor
    """[kv_heads * max_groups, 2, group_size, head_dim], pinned where there is a GPU: the page of a
    KV head's group is at ``head * max_groups + group``."""
    window: Window
    """The slots that belong to the window."""


@dataclass(frozen=True, slots=True)
class TokenWindow:
    """The window of one token while tokens are decoded."""

    position: torch.Tensor
    """[1] int32: the token's position."""
    pages: LayerPages
    """Pages of the layer; they hold the token's own K and V."""


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """What a layer applies to the product of its QKV weight: a bias, norms per head, a shift."""

    q_norm: torch.Tensor | None
    """[head_dim] weight of an RMSNorm over each query head (Qwen3); None: no norm."""
    k_norm: torch.Tensor | None
    """[head_dim] weight of an RMSNorm over each key head; None: no norm."""
    eps: float
    """Of the norms: added to the mean square."""
    bias: torch.Tensor | None = None
    """[(query_heads + 2 * kv_heads) * head_dim] float32, added first (Qwen2); None: no bias."""
    key_shift: torch.Tensor | None = None
    """[kv_heads, head_dim] float32, subtracted from keys after RoPE. It takes the same amount off
    all scores of a query, so attention stays as it is, but smaller keys are rounded to bf16 with
    smaller errors (smoothing of K in SageAttention, arXiv 2410.02367). None: no shift."""


@dataclass(frozen=True, slots=True)
class Angles:
    """RoPE angles of consecutive positions."""

    cos: torch.Tensor
    """[positions, head_dim / 2], at least float32."""
    sin: torch.Tensor
    """[positions, head_dim / 2]."""


@dataclass(frozen=True, slots=True)
class DecodeState:
    """What a decode step starts from, on the device, where the step before has put it."""

    token: torch.Tensor
    """[1] int64: the token that goes through the model."""
    position: torch.Tensor
    """[1] int32: its position."""
    step: torch.Tensor
    """[1] int32: number of the step."""


@dataclass(frozen=True, slots=True)
class Reported:
    """Which groups' attention mass a trace reports: those outside the window of the query.

    Where the window is all there is, those from ``least`` on.
    """

    first: int
    """The first group behind the sinks."""
    chunk: int
    """Tokens of a chunk."""
    per_chunk: int
    """Groups of a chunk."""
    least: int


@dataclass(frozen=True, slots=True)
class StepResults:
    """A ring of results of decode steps, in pinned host memory: step n has row ``n % ring``."""

    tokens: torch.Tensor
    """[ring] int64: the token that was drawn, negative if none could be."""
    masses: torch.Tensor
    """[ring, groups] float32: attention mass of each group."""
    counts: torch.Tensor
    """[ring, 2] int64: hits and misses of the page cache so far."""
