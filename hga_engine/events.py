"""What the engine reports while it works, as typed objects."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class PrefillProgress:
    """Reading goes on: ``done`` of ``total`` steps; a step is one slice through one layer."""

    done: int
    total: int
    tokens: int
    """Tokens being read."""
    seconds: float
    """Since reading began."""

    @property
    def fraction(self) -> float:
        """Share of the work that is done, 0 to 1."""
        return self.done / self.total if self.total else 1.0


@dataclass(frozen=True)
class Trace:
    """What one generated token read."""

    position: int
    """Position of the query token in the session."""
    bin_mass: "torch.Tensor"
    """[bins] float32: attention mass per trace bin, mean over layers and query heads. A sampled
    group counts its own mass only, so the sum may be below 1. The window is zero; where there is
    nothing else, only the first bin is."""
    tokens_attended: float
    """Mean over layers and KV heads."""
    window_mass: "torch.Tensor | None" = None
    """[bins] float32: the same of sinks and recent tokens, where ``bin_mass`` leaves it out."""

    @property
    def all_mass(self) -> "torch.Tensor":
        """[bins] float32: of all tokens, whether they were chosen or are always read."""
        return self.bin_mass if self.window_mass is None else self.bin_mass + self.window_mass


@dataclass(frozen=True)
class TextDelta:
    """One generated token: the text it completes (may be empty) and what it read."""

    text: str
    token_id: int
    trace: Trace


@dataclass(frozen=True)
class Finished:
    """The answer is complete."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    prefill_s: float
    """Reading the question."""
    ttft_s: float
    """From the call to the first token."""
    decode_tokens_per_s: float
    sparsity: float
    """Mean share of the visible tokens that an answer token attended to."""


Event = PrefillProgress | TextDelta | Finished
