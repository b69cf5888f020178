"""What the engine reports while it works, as typed objects."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class PrefillProgress:
    """``done`` of ``total`` steps of a prefill, all of which take about as long."""

    done: int
    total: int
    tokens: int
    """Tokens of the text."""
    seconds: float
    """Since the prefill began."""

    @property
    def fraction(self) -> float:
        """Share of the work that is done, 0 to 1."""
        return self.done / self.total if self.total else 1.0


@dataclass(frozen=True)
class Trace:
    """What one generated token attended to."""

    position: int
    """Position of the query token in the session."""
    bin_mass: "torch.Tensor"
    """[bins] float32: attention mass per trace bin, mean over layers and query heads. A sampled
    group counts its own mass only, so the sum may be below 1. The window is zero; in a session
    without routed groups, only the first bin is."""
    tokens_attended: float
    """Mean over layers and KV heads."""
    window_mass: "torch.Tensor | None" = None
    """[bins] float32: the mass that ``bin_mass`` leaves out, likewise; None: unknown."""

    @property
    def all_mass(self) -> "torch.Tensor":
        """[bins] float32: mass of all tokens, selected or in the window."""
        return self.bin_mass if self.window_mass is None else self.bin_mass + self.window_mass


@dataclass(frozen=True)
class TextDelta:
    """One generated token: the text it completes (may be empty) and its trace."""

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
    """Seconds to process the prompt."""
    ttft_s: float
    """From the call to the first token."""
    decode_tokens_per_s: float
    sparsity: float
    """Mean share of the visible tokens that an answer token attended to."""


Event = PrefillProgress | TextDelta | Finished
