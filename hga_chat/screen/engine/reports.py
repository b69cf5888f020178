"""What the engine's thread tells the screen, as plain objects; nothing here needs torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from hga_chat.conversation.answer import Answer
    from hga_chat.conversation.verify import Verification
    from hga_chat.documents import DocumentTokens, Skipped
    from hga_engine.memory.figures import MemoryFigures


@dataclass(frozen=True)
class Loading:
    """The model is being loaded."""

    what: str
    fraction: float


@dataclass(frozen=True)
class Opened:
    """The model is loaded; the documents are about to be read."""

    model_name: str
    context: int
    """Tokens the session can hold."""
    chunk_size: int
    trace_bin_tokens: int
    document_start: int
    """Position in the session of the documents' first token."""
    layout: "DocumentTokens | None"
    skipped: "tuple[Skipped, ...]"
    turns: "tuple[Answer, ...]"
    """Earlier turns, where the conversation is an old one."""
    notes: tuple[str, ...]
    """What the user should know about how it was opened."""


@dataclass(frozen=True)
class Prefilling:
    """The documents are being read."""

    fraction: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Ready:
    """The documents have been read; questions are welcome."""

    tokens: int
    """Tokens in the session."""
    prefilled_tokens: int
    """Of them read just now; the others had been read before."""
    seconds: float


@dataclass(frozen=True)
class PrefillingQuestion:
    """A question is being read."""

    fraction: float


@dataclass(frozen=True)
class Streamed:
    """More of the answer: one token or several."""

    text: str
    lengths: tuple[int, ...]
    """Characters of each token as it is shown."""
    tokens: int
    """Tokens of the answer so far."""
    tokens_per_s: float
    ttft_s: float
    sparsity: float
    """Mean share of the visible tokens that were attended to so far."""


@dataclass(frozen=True)
class TraceReport:
    """What the answer so far attended to, per trace bin of the session."""

    standing_out: "torch.Tensor"
    """[bins] float64: mass that stands out on the documents, summed over the answer."""
    newest: "torch.Tensor"
    """[bins] float64: the part of the tokens since the report before."""
    token_bins: "torch.Tensor"
    """[tokens, top bins] int32: the bins in which each token's mass stands out most."""
    token_mass: "torch.Tensor"
    """[tokens, top bins] float32: that mass."""
    routed: "torch.Tensor"
    """[bins] float32: all mass of routed groups, summed over the answer."""
    window: bytes
    """[bins] 1 for each bin of the last token's window; may be shorter."""
    layers: "torch.Tensor"
    """[layers, bins] attention mass, summed over the answer."""


@dataclass(frozen=True)
class Answered:
    """The answer is complete, or cancelled."""

    answer: "Answer"
    tokens: int
    """Tokens in the session."""
    trace: TraceReport | None
    """None where there is nothing to trace: no documents or no tokens."""


@dataclass(frozen=True)
class MemoryReport:
    """Where the memory is."""

    figures: "MemoryFigures"


@dataclass(frozen=True)
class Forgotten:
    """Turns were taken out of the session."""

    tokens: int
    """Tokens left in the session."""


@dataclass(frozen=True)
class Verified:
    """An answer was scored again without its sources."""

    number: int
    """Of the turn among those that stand in the session, from 0."""
    found: "Verification | str"
    """Or why it could not be done."""


@dataclass(frozen=True)
class Note:
    """Something that the user should know and that stands in the way of nothing."""

    text: str


@dataclass(frozen=True)
class Failed:
    """Something went wrong; the text is for the user."""

    text: str
    fatal: bool
    """No question can be answered any more."""


Report = (
    Loading
    | Opened
    | Prefilling
    | Ready
    | PrefillingQuestion
    | Streamed
    | TraceReport
    | Answered
    | Forgotten
    | Verified
    | MemoryReport
    | Note
    | Failed
)
