"""What every K/V store does, whatever its tiers."""

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class TierUsage:
    """Bytes of K/V per tier, and how often a fetched page was at hand (hit) or was not (miss)."""

    device_bytes: int
    host_bytes: int
    host_capacity_bytes: int
    disk_bytes: int
    disk_capacity_bytes: int
    page_hits: int
    page_misses: int
    page_bytes: int
    """Of one page."""

    @property
    def hit_rate(self) -> float:
        """Share of the pages fetched so far that were at hand."""
        fetched = self.page_hits + self.page_misses
        return self.page_hits / fetched if fetched else 1.0


class KVStore(Protocol):
    """Pages of K/V for every layer of one session.

    A page holds K and V of one group (``group_size`` tokens) of one KV head of one layer:
    ``[2, group_size, head_dim]``. The store owns all placement: which tier a page is in, what is
    evicted and when. Not safe to share between threads; the engine's thread owns it.

    The life of a layer's pages: ``append`` adds tokens at the layer's end; ``fetch`` brings pages
    to where attention reads them and returns their slots in ``pool``. Between ``open_layer`` and
    ``close_layer`` every page of that layer stays resident whatever the budget, so that prefill
    can go through the layer without moving pages; outside, pages beyond the budget live on disk.
    """

    def open_layer(self, layer: int) -> None:
        """Make and keep all pages of ``layer`` resident until ``close_layer``."""

    def close_layer(self, layer: int) -> None:
        """Let pages of ``layer`` beyond the budget go back to their tier."""

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Add tokens at the end of ``layer``.

        Args:
            layer: layer number.
            keys: [tokens, kv_heads, head_dim], after RoPE.
            values: [tokens, kv_heads, head_dim].

        Raises:
            ContextFullError: the layer would hold more than the context.
            KVStoreError: a tier could not be written (disk full, for one).
        """

    def fetch(self, layer: int, groups: torch.Tensor, counted: bool = True) -> torch.Tensor:
        """Make pages resident and say where they are.

        Args:
            layer: layer number.
            groups: [..., kv_heads, n] int32 group numbers; -1 marks an empty place.
            counted: whether these are hits and misses.

        Returns:
            [..., kv_heads, n] int32 slots in ``pool(layer)``, -1 where ``groups`` is -1. They and
            the pool stay valid until the next call that may move pages, of any layer: ``append``,
            ``fetch``, ``open_layer``, ``close_layer`` or ``truncate``.
        """

    def pool(self, layer: int) -> torch.Tensor:
        """[slots, 2, group_size, head_dim]: the pages of ``layer`` that are resident."""

    def keys(self, layer: int, start: int, end: int) -> torch.Tensor:
        """[kv_heads, end - start, head_dim]: keys of a token range, after RoPE."""

    def length(self, layer: int) -> int:
        """Tokens that ``layer`` holds."""

    def truncate(self, tokens: int) -> None:
        """Drop everything from position ``tokens`` on, in every layer."""

    def usage(self) -> TierUsage:
        """Bytes per tier now."""

    def close(self) -> None:
        """Give memory and files back. The store cannot be used afterwards."""
