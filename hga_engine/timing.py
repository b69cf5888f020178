"""How long the parts of an answer take."""

import time

from hga_engine.events import Finished, FinishReason


class AnswerClock:
    """Runs from the call to the end of an answer."""

    def __init__(self) -> None:
        """Start."""
        self._began = time.perf_counter()
        self._prefilled: float | None = None
        self._first_token: float | None = None

    @property
    def seconds(self) -> float:
        """Since the call."""
        return time.perf_counter() - self._began

    def prompt_read(self) -> None:
        """The prompt has been read."""
        self._prefilled = time.perf_counter()

    def token_sampled(self) -> None:
        """A token has been sampled; the first one counts."""
        self._first_token = self._first_token or time.perf_counter()

    def finished(
        self, reason: FinishReason, prompt_tokens: int, generated: int, sparsity: float
    ) -> Finished:
        """The answer's last event: ``generated`` tokens after a prompt of ``prompt_tokens``."""
        now = time.perf_counter()
        first = self._first_token
        steps = generated - 1
        return Finished(
            reason=reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=generated,
            prefill_s=(self._prefilled or now) - self._began,
            ttft_s=(first or now) - self._began,
            decode_tokens_per_s=steps / (now - first) if first and steps > 0 else 0.0,
            sparsity=sparsity,
        )
