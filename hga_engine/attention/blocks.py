"""Blocks of queries, and what they attend to whatever is selected."""

from dataclasses import dataclass

import torch

from hga_engine.config import Routing


@dataclass(frozen=True)
class QueryBlocks:
    """Blocks of neighbouring queries, each with a selection of its own, and their windows."""

    start: int
    """Position of the first query."""
    positions: torch.Tensor  # [blocks, rows] int32
    window: torch.Tensor
    """[blocks, kv_heads, n] int32 groups, -1 for none: those of the sinks, then of the open chunk;
    for ``dense`` everything visible."""
    sinks: int
    """How many of them are the sinks'."""
    end_chunks: torch.Tensor  # [blocks] int32: the chunk after the last selectable one
    last_chunk: int
    """The largest of them."""
    offset: int
    """Rows between the start of a block of the prefill rule and the first query."""
    attended_by_query: torch.Tensor  # [blocks, rows] int64 tokens of the window, on the host
    attended: int
    """Tokens of the window, summed over queries and KV heads."""
    visible: int
    """All tokens up to each query, summed likewise."""


def query_blocks(
    routing: Routing, kv_heads: int, start: int, count: int, rows: int, device: torch.device
) -> QueryBlocks:
    """Return ``count`` queries from position ``start`` on as blocks of ``rows`` queries each.

    Args:
        routing: of the session.
        kv_heads: of the model.
        start: position of the first query.
        count: queries, whole blocks; no block crosses a chunk border.
        rows: queries of a block.
        device: where attention is computed.
    """
    positions = torch.arange(start, start + count, dtype=torch.int32).view(-1, rows)
    blocks, size, per_chunk = positions.shape[0], routing.group_size, routing.groups_per_chunk
    last = positions[:, -1:] // size  # [blocks, 1]
    chunks = positions[:, 0] // routing.chunk_size
    if routing.kind == "dense":
        sinks = torch.empty(blocks, 0, dtype=torch.int32)
        open_chunk = torch.arange(int(last.max()) + 1, dtype=torch.int32).expand(blocks, -1)
    else:
        sinks = torch.arange(routing.sink_chunks * per_chunk, dtype=torch.int32)
        open_chunk = chunks[:, None] * per_chunk + torch.arange(per_chunk, dtype=torch.int32)
        open_chunk = open_chunk.masked_fill(open_chunk < len(sinks), -1)
        sinks = sinks.expand(blocks, -1)
    window = torch.cat((sinks, open_chunk), 1)
    window = window.masked_fill(window > last, -1)
    seen = (positions[:, :, None] - window[:, None] * size + 1).clamp(0, size)
    attended = seen.masked_fill(window[:, None] < 0, 0).sum(2)
    # Made on the host, where its size is known without waiting for the device.
    window = window[:, None].expand(-1, kv_heads, -1).contiguous().to(device)
    return QueryBlocks(
        start=start,
        positions=positions.to(device),
        window=window,
        sinks=sinks.shape[1],
        end_chunks=chunks.to(device),
        last_chunk=int(chunks.max()),
        offset=start % routing.prefill_block,
        attended_by_query=attended,
        attended=int(attended.sum()) * kv_heads,
        visible=(int(positions.sum()) + positions.numel()) * kv_heads,
    )
