"""A model's forward pass over a whole text, layer by layer, with attention of any kind."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from hga_engine.config import ModelConfig
from hga_engine.model.decoder import Decoder
from hga_engine.model.types import ModelWeights
from hga_kernels import Angles, Packed, RowParts, gather_rows
from hga_kernels.reference.model import linear, mlp, norm_linear, split_heads
from tools.measure.routers.samples import Sample

LOGIT_ROWS = 4096
_FLASH = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
_MASKED = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class Rows:
    """Queries, keys and values of one layer: the text first, then the branches."""

    layer: int
    queries: torch.Tensor  # [kv_heads, query heads of each, rows, head_dim], scaled
    keys: torch.Tensor  # [kv_heads, text, head_dim]
    values: torch.Tensor  # [kv_heads, text, head_dim]
    branch_keys: torch.Tensor  # [kv_heads, branch tokens, head_dim]
    branch_values: torch.Tensor  # [kv_heads, branch tokens, head_dim]


Attend = Callable[[Rows], torch.Tensor]
"""Returns [kv_heads, query heads of each, rows, head_dim]."""


@dataclass(frozen=True)
class Outcome:
    """Likelihoods by one way of attending."""

    nats: torch.Tensor  # [text rows - 1] float64
    choices: torch.Tensor  # [text rows - 1]
    branch_nats: list[torch.Tensor]  # of each branch, of the tokens that count
    branch_right: list[bool]  # whether greedy decoding gives those tokens


class Text:
    """A sample on the device: the text's tokens from ``start`` on, and the branches."""

    def __init__(self, sample: Sample, start: int, device: torch.device) -> None:
        self.sample = sample
        self.length, self.start = len(sample.tokens), start
        self.tokens = torch.tensor(sample.tokens, device=device)
        lengths = [len(branch.tokens) for branch in sample.branches]
        self.branch_tokens = torch.tensor(
            [token for branch in sample.branches for token in branch.tokens], dtype=torch.int64
        ).to(device)
        self.branch_of = torch.repeat_interleave(
            torch.arange(len(lengths)), torch.tensor(lengths, dtype=torch.int64)
        ).to(device)
        places = [torch.arange(length) for length in lengths]
        self.branch_places = torch.cat([torch.arange(0), *places]).to(device)
        self.lengths = lengths
        self.device = device

    @property
    def positions(self) -> torch.Tensor:
        """Positions of the text from ``start`` on, then of the branches; each follows the text."""
        text = torch.arange(self.start, self.length, device=self.device)
        return torch.cat((text, self.length + self.branch_places))


class Network:
    """A dense decoder in plain torch."""

    def __init__(
        self, weights: ModelWeights, longest: int, config: ModelConfig | None = None
    ) -> None:
        """Set up the layers for texts up to ``longest`` tokens.

        ``config`` is the geometry with the RoPE scaling to use; None for that of the weights.
        """
        self.config = config = config or weights.config
        self._weights = weights
        self.device = weights.device
        self._decoder = Decoder(weights, config)
        # Beside packed weights hidden states are wider than K/V.
        is_packed = isinstance(weights.layers[0].qkv, Packed | RowParts)
        self._kv_dtype = torch.bfloat16 if is_packed else weights.dtype
        self._cos, self._sin = self._decoder.angles(longest)
        self.scale = 1 / math.sqrt(config.head_dim)

    def run(
        self, text: Text, attend: Attend, prefix: list[tuple[torch.Tensor, torch.Tensor]] | None
    ) -> tuple[Outcome, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Compute the tokens from ``text.start`` on, and the branches.

        Args:
            text: with ``start`` 0 unless there is a prefix.
            attend: attention of one layer.
            prefix: keys and values of every layer up to ``start``.

        Returns:
            The outcome, and keys and values of the whole text in every layer.
        """
        config, weights = self.config, self._weights
        tokens = torch.cat((text.tokens[text.start :], text.branch_tokens))
        hidden = gather_rows(tokens, weights.embedding, dtype=weights.dtype)
        cos, sin = self._cos[text.positions], self._sin[text.positions]
        rows, kept = text.length - text.start, []
        for number, layer in enumerate(weights.layers):
            heads = norm_linear(hidden, layer.attention_norm, config.rms_norm_eps, layer.qkv)
            queries, keys, values = split_heads(
                heads,
                self._decoder.head_weights(number),
                Angles(cos, sin),
                config.num_query_heads,
                config.num_kv_heads,
            )
            keys, values = (one.transpose(0, 1).to(self._kv_dtype) for one in (keys, values))
            whole_keys, whole_values = keys[:, :rows], values[:, :rows]
            if prefix is not None:
                whole_keys = torch.cat((prefix[number][0], whole_keys), 1)
                whole_values = torch.cat((prefix[number][1], whole_values), 1)
            split = queries.unflatten(1, (config.num_kv_heads, -1)).permute(1, 2, 0, 3)
            attended = attend(
                Rows(
                    number,
                    (split.float() * self.scale).to(keys.dtype),
                    whole_keys.contiguous(),
                    whole_values.contiguous(),
                    keys[:, rows:],
                    values[:, rows:],
                )
            )
            kept.append((whole_keys, whole_values))
            joined = attended.permute(2, 0, 1, 3).flatten(1).to(hidden.dtype)
            hidden = linear(joined, layer.output, residual=hidden)
            hidden = torch.cat(
                [
                    mlp(part, layer.mlp_norm, config.rms_norm_eps, layer.gate_up, layer.down)
                    for part in hidden.split(4 * LOGIT_ROWS)
                ]
            )
        return self._outcome(text, hidden), kept

    def _outcome(self, text: Text, hidden: torch.Tensor) -> Outcome:
        rows = text.length - text.start
        targets = text.tokens[text.start + 1 :]
        nats, choices = self._scored(hidden[: rows - 1], targets)
        branch_nats, branch_right, first = [], [], rows
        for branch, length in zip(text.sample.branches, text.lengths, strict=True):
            part = hidden[first : first + length]
            wanted = text.branch_tokens[first - rows : first - rows + length]
            found, chosen = self._scored(
                part[branch.counted_from - 1 : -1], wanted[branch.counted_from :]
            )
            branch_nats.append(found)
            branch_right.append(bool((chosen == wanted[branch.counted_from :].cpu()).all()))
            first += length
        return Outcome(nats, choices, branch_nats, branch_right)

    def _scored(
        self, hidden: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        parts = []
        for rows, wanted in zip(hidden.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True):
            weights, eps = self._weights, self.config.rms_norm_eps
            logits = norm_linear(rows, weights.final_norm, eps, weights.lm_head).float()
            nats = logits.logsumexp(-1) - logits.gather(1, wanted[:, None])[:, 0]
            parts.append((nats.double().cpu(), logits.argmax(-1).cpu()))
        nats, choices = (torch.cat(column) for column in zip(*parts, strict=True))
        return nats, choices


def dense(text: Text) -> Attend:
    """Return dense attention over a text."""

    def attend(rows: Rows) -> torch.Tensor:
        assert text.start == 0
        kv_heads, group = rows.queries.shape[:2]
        parts = []
        for head in range(kv_heads):
            keys, values = (one[head].expand(1, group, -1, -1) for one in (rows.keys, rows.values))
            with sdpa_kernel(_FLASH):
                out = functional.scaled_dot_product_attention(
                    rows.queries[head, None, :, : text.length],
                    keys,
                    values,
                    is_causal=True,
                    scale=1.0,
                )
            parts.append(out[0])
        out = torch.stack(parts)
        if not text.lengths:
            return out
        bias = torch.zeros(
            kv_heads, len(text.branch_of), text.length, dtype=out.dtype, device=out.device
        )
        return torch.cat((out, attend_branches(text, rows, bias)), 2)

    return attend


def attend_branches(text: Text, rows: Rows, bias: torch.Tensor) -> torch.Tensor:
    """Attend from branches to the text, with ``bias`` [kv_heads, rows, text], and themselves."""
    order = torch.arange(len(text.branch_of), device=bias.device)
    same = text.branch_of[:, None] == text.branch_of
    own = bias.new_zeros(same.shape).masked_fill_(~same | (order > order[:, None]), -math.inf)
    whole = torch.cat((bias, own.expand(bias.shape[0], -1, -1)), 2)
    keys = torch.cat((rows.keys, rows.branch_keys), 1)
    values = torch.cat((rows.values, rows.branch_values), 1)
    return masked_attention(rows.queries[:, :, text.length - text.start :], keys, values, whole)


def masked_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Attend with scaled queries and a bias.

    Args:
        queries: [kv_heads, query heads of each, rows, head_dim].
        keys: [kv_heads, tokens, head_dim].
        values: likewise.
        bias: [kv_heads, rows, tokens], or [kv_heads, query heads of each, rows, tokens].
    """
    if bias.ndim == 3:
        bias = bias[:, None]
    group, surplus = queries.shape[1], -keys.shape[1] % 8
    if surplus:
        keys, values = (functional.pad(one, (0, 0, 0, surplus)) for one in (keys, values))
        bias = functional.pad(bias, (0, surplus), value=-math.inf)
    with sdpa_kernel(_MASKED if queries.is_cuda else _FLASH):
        return functional.scaled_dot_product_attention(
            queries.contiguous(),
            keys[:, None].expand(-1, group, -1, -1),
            values[:, None].expand(-1, group, -1, -1),
            bias.expand(-1, group, -1, -1),
            scale=1.0,
        )


def blocks_of(count: int, size: int) -> Iterator[slice]:
    """Return slices of ``size`` up to ``count``."""
    return (slice(first, min(first + size, count)) for first in range(0, count, size))
