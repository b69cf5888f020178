"""Timing of an answer: prefill, first token, decode."""

import time

from hga_engine.events import Finished, FinishReason


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
