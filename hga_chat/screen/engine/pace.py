"""Speed and sparsity of an answer while it streams."""

import time
from typing import TYPE_CHECKING

from hga_chat.display import displayable
from hga_chat.screen.engine.reports import Streamed

if TYPE_CHECKING:
    from hga_engine.events import TextDelta


def is_token(delta: "TextDelta") -> bool:
    """Whether a delta is a token, rather than the rest of a character after the last token."""
    return delta.token_id >= 0


class Pace:
    """Counts the tokens of one answer; its time begins with the question."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._first = 0.0
        self._tokens = 0
        self._shares = 0.0

    def report(self, delta: "TextDelta") -> Streamed:
        """Count a token; return its report."""
        now = time.perf_counter()
        self._first = self._first or now
        self._tokens += 1
        trace = delta.trace
        self._shares += min(trace.tokens_attended / (trace.position + 1), 1.0)
        elapsed = now - self._first
        return Streamed(
            text=delta.text,
            lengths=(len(displayable(delta.text)),) if is_token(delta) else (),
            tokens=self._tokens,
            tokens_per_s=(self._tokens - 1) / elapsed if elapsed > 0 else 0.0,
            ttft_s=self._first - self._began,
            sparsity=self._shares / self._tokens,
        )
