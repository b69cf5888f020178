"""Sampling of the next token from logits."""

import torch

from hga_engine.config import SamplingParams
from hga_engine.errors import NotANumberError

_TOP_CANDIDATES = 1024
"""Tokens searched for a nucleus before the whole vocabulary is sorted, which is seldom needed."""


class Sampler:
    """Draws the tokens of one answer. With a seed, the same logits give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        """Start an answer.

        Args:
            params: temperature, top-k, top-p and seed; without a seed each answer differs.
        """
        self._params = params
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    def sample(self, logits: torch.Tensor) -> int:
        """Draw a token id.

        Temperature 0 takes the largest logit, the lowest id among equals. Otherwise logits are
        divided by the temperature, and the token is drawn from the ``top_k`` most likely, or from
        the fewest of those that together reach ``top_p`` (Holtzman et al., arXiv 1904.09751).

        Args:
            logits: [vocab] floating point; -inf excludes a token.

        Returns:
            The token id.

        Raises:
            NotANumberError: a logit is not a number, or none is finite.
        """
        logits = logits.detach().float().cpu()
        # numpy's argmax takes the first of equals, or a NaN if there is one, and wakes no threads.
        likeliest = int(logits.numpy().argmax())
        largest = logits[likeliest]
        if not torch.isfinite(largest):
            raise NotANumberError
        if self._params.temperature == 0:
            return likeliest
        scaled = (logits.double() - largest.double()) / self._params.temperature
        ids, weights = self._candidates(scaled)
        bounds = weights.cumsum(0)
        drawn = torch.rand(1, generator=self._generator, dtype=torch.float64) * bounds[-1]
        index = int(torch.searchsorted(bounds, drawn, right=True))
        # Rounding can put the draw at the upper end; tokens without weight must not be drawn.
        last = int(torch.nonzero(weights)[-1])
        return int(ids[min(index, last)])

    def _candidates(self, scaled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the token ids that may be drawn and their weights, which need not sum to 1."""
        top_k, top_p = self._params.top_k, self._params.top_p
        vocab = scaled.shape[0]
        if top_k == 0 and top_p == 1:
            return torch.arange(vocab), scaled.exp()
        if top_k:
            values, ids = scaled.topk(min(top_k, vocab))
            weights = values.exp()
            return _nucleus(ids, weights, top_p * weights.sum())
        mass = top_p * scaled.exp().sum()
        values, ids = scaled.topk(min(_TOP_CANDIDATES, vocab))
        if values.exp().sum() < mass:
            values, ids = scaled.sort(descending=True)
        return _nucleus(ids, values.exp(), mass)


def _nucleus(
    ids: torch.Tensor, weights: torch.Tensor, mass: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the fewest leading tokens that together reach ``mass``."""
    count = int(torch.count_nonzero(weights.cumsum(0) < mass)) + 1
    return ids[:count], weights[:count]
