"""The interface of every K/V store, whatever its tiers."""

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class TierUsage:
    """Bytes of K/V per tier, and how many fetched pages were resident (hits) or not (misses)."""

    device_bytes: int
    host_bytes: int
    host_capacity_bytes: int
    disk_bytes: int
    disk_capacity_bytes: int
    page_hits: int
    page_misses: int
    page_bytes: int
    """Bytes of one page."""

    @property
    def hit_rate(self) -> float:
        """Share of the fetched pages that were resident; 1 if none was fetched."""
        fetched = self.page_hits + self.page_misses
        return self.page_hits / fetched if fetched else 1.0


class KVStore(Protocol):
    """Pages of K/V for every layer of one session.

    A page holds K and V of one group (``group_size`` tokens) of one KV head of one layer:
    ``[2, group_size, head_dim]``. The store decides which tier a page is in, and what is evicted
    and when. It is not thread-safe; the engine's thread owns it.

    ``append`` adds tokens to the end of a layer. ``fetch`` makes pages resident and returns their
    slots in ``pool``, where attention reads them. Between ``open_layer`` and ``close_layer`` every
    page of that layer stays resident whatever the budget, so that prefill moves no pages within a
    layer. At other times pages beyond the budget live on disk.
    """

    def open_layer(self, layer: int) -> None:
        """Make all pages of ``layer`` resident until ``close_layer``."""

    def close_layer(self, layer: int) -> None:
        """Move pages of ``layer`` beyond the budget back to their tier."""

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Add tokens at the end of ``layer``.

        Args:
            layer: layer number.
            keys: [tokens, kv_heads, head_dim], after RoPE.
            values: [tokens, kv_heads, head_dim].

        Raises:
            ContextFullError: the layer would hold more than the context.
            KVStoreError: a tier could not be written, for example because the disk is full.
        """

    def fetch(self, layer: int, groups: torch.Tensor, counted: bool = True) -> torch.Tensor:
        """Make pages resident and return their slots.

        Args:
            layer: layer number.
            groups: [..., kv_heads, n] int32 group numbers; -1 for none.
            counted: whether to count hits and misses.

        Returns:
            [..., kv_heads, n] int32 slots in ``pool(layer)``; without meaning where ``groups`` is
            -1. Slots and pool stay valid until the next call that may move pages, for any layer:
            ``append``, ``fetch``, ``open_layer``, ``close_layer`` or ``truncate``.
        """

    def pool(self, layer: int) -> torch.Tensor:
        """Return the resident pages of ``layer``, [slots, 2, group_size, head_dim]."""

    def keys(self, layer: int, start: int, end: int) -> torch.Tensor:
        """Return keys of a token range after RoPE, [kv_heads, end - start, head_dim]."""

    def length(self, layer: int) -> int:
        """Number of tokens that ``layer`` holds."""

    def truncate(self, tokens: int) -> None:
        """Drop everything from position ``tokens`` on in every layer."""

    def usage(self) -> TierUsage:
        """Return the current bytes per tier, and hits and misses so far."""

    def close(self) -> None:
        """Release memory and files. The store cannot be used afterwards."""
