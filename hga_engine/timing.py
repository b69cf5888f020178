"""Timing: how long a prefill will take, and how long the parts of an answer took."""

import time

from hga_engine.config import ModelConfig
from hga_engine.events import Finished, FinishReason

_SCORE_COST = 0.25
"""Time to score one channel of a position, in that of one weight. Measured on two cores of an AMD
EPYC (Zen 4): 0.23 with SmolLM2-135M at 32,768 tokens."""


def prefill_work(model: ModelConfig, tokens: int) -> int:
    """Return the work of prefilling the first ``tokens`` tokens of a session.

    The selection scores all earlier tokens, so a token takes longer the later it stands.

    Returns:
        The work in that of tokens that have nothing to score.
    """
    scored = _SCORE_COST * model.num_query_heads * model.head_dim / layer_weights(model)
    return round(tokens + scored * tokens**2 / 2)


def layer_weights(model: ModelConfig) -> int:
    """Return how many weights of a layer a token is multiplied with."""
    if model.num_experts:
        width = model.experts_per_token * model.expert_intermediate_size
    else:
        width = model.intermediate_size
    heads = model.num_query_heads + model.num_kv_heads
    return model.hidden_size * (2 * heads * model.head_dim + 3 * width)


class AnswerClock:
    """Measures an answer, from the call to its end."""

    def __init__(self) -> None:
        """Start the clock."""
        self._started = time.perf_counter()
        self._prefilled: float | None = None
        self._first_token: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the call."""
        return time.perf_counter() - self._started

    def prompt_prefilled(self) -> None:
        """Record that the prompt has been prefilled."""
        self._prefilled = time.perf_counter()

    def token_sampled(self) -> None:
        """Record that a token has been sampled. Only the first one is timed."""
        self._first_token = self._first_token or time.perf_counter()

    def finished(
        self, reason: FinishReason, prompt_tokens: int, generated: int, sparsity: float
    ) -> Finished:
        """Make the answer's last event: ``generated`` tokens after ``prompt_tokens``."""
        now = time.perf_counter()
        first = self._first_token
        steps = generated - 1
        return Finished(
            reason=reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=generated,
            prefill_s=(self._prefilled or now) - self._started,
            ttft_s=(first or now) - self._started,
            decode_tokens_per_s=steps / (now - first) if first and steps > 0 else 0.0,
            sparsity=sparsity,
        )
