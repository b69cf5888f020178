"""Reports of the engine's thread to the screen; importing them does not import torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from hga_chat.conversation.answer import Answer
    from hga_chat.conversation.first_message import FirstMessage
    from hga_chat.conversation.verify import Verification
    from hga_chat.documents import DocumentTokens, Skipped
    from hga_chat.screen.changes import Offer
    from hga_engine.memory.figures import MemoryFigures


@dataclass(frozen=True)
class Loading:
    """The model is being loaded."""

    what: str
    fraction: float


@dataclass(frozen=True)
class Opened:
    """The model is loaded; the documents are prefilled next."""

    model_name: str
    context: int
    """Largest number of tokens of the session."""
    chunk_size: int
    trace_bin_tokens: int
    document_start: int
    """Position in the session of the documents' first token."""
    layout: "DocumentTokens | None"
    skipped: "tuple[Skipped, ...]"
    turns: "tuple[Answer, ...]"
    """Turns of a resumed session."""
    notes: tuple[str, ...]
    """Remarks for the user on how the session was opened."""
    given: "Mapping[str, Path]"
    """The paths that the user named, with where they are."""
    title: str
    """Title of the saved session; empty if it is not saved."""
    can_think: bool = False
    """Whether the model thinks before it answers if it is asked to."""
    thinks: bool = False
    """Whether it is asked to at first."""
    dropped: tuple[str, ...] = ()
    """Paths of the documents that are ticked off."""


@dataclass(frozen=True)
class Prefilling:
    """The documents are being prefilled."""

    fraction: float
    tokens: int
    seconds: float
    held: int = 0
    """Tokens that were prefilled in an earlier run."""

    @property
    def read(self) -> float:
        """Share of the session's text that is prefilled by now, 0 to 1."""
        return (self.held + self.fraction * self.tokens) / (self.held + self.tokens)


@dataclass(frozen=True)
class Ready:
    """The documents are prefilled; questions can be asked."""

    tokens: int
    """Tokens in the session."""
    prefilled_tokens: int
    """Tokens prefilled just now; the others were prefilled in an earlier run."""
    seconds: float


@dataclass(frozen=True)
class Introducing:
    """The model writes a first message."""


@dataclass(frozen=True)
class Introduced:
    """The first message is written, or there is none."""

    message: "FirstMessage | None"


@dataclass(frozen=True)
class PrefillingQuestion:
    """A question is being prefilled."""

    fraction: float


@dataclass(frozen=True)
class Thinking:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True)
class Streamed:
    """More of the answer: one token or several."""

    text: str
    lengths: tuple[int, ...]
    """Characters that each token adds to the answer as it is shown."""
    tokens: int
    """Tokens of the answer so far."""
    tokens_per_s: float
    ttft_s: float
    sparsity: float
    """Mean share of the visible tokens that the answer's tokens attended to."""


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
    """The answer is complete or cancelled."""

    answer: "Answer"
    tokens: int
    """Tokens in the session."""
    trace: TraceReport | None
    """None where there is nothing to trace: no documents or no tokens."""
    room_note: str | None = None
    """What to say where little room is left in the session."""


@dataclass(frozen=True)
class MemoryReport:
    """Memory use."""

    figures: "MemoryFigures"


@dataclass(frozen=True)
class Forgotten:
    """Turns were removed from the session."""

    tokens: int
    """Tokens left in the session."""


@dataclass(frozen=True)
class Restoring:
    """Turns that were removed are being prefilled again."""

    fraction: float


@dataclass(frozen=True)
class Restored:
    """Turns that were removed are back; the engine is ready."""

    tokens: int
    """Tokens in the session."""


@dataclass(frozen=True)
class Verified:
    """An answer was scored again without its sources."""

    number: int
    """Number of the turn among those in the session, from 0."""
    found: "Verification | str"
    """The result, or why there is none."""


@dataclass(frozen=True)
class Note:
    """A non-fatal remark for the user."""

    text: str


@dataclass(frozen=True)
class Ticked:
    """Documents were ticked on or off."""

    dropped: tuple[str, ...]
    """Paths of all that are ticked off now."""


@dataclass(frozen=True)
class Renamed:
    """The session has another title."""

    title: str


@dataclass(frozen=True)
class Offered:
    """What a change would cost."""

    offer: "Offer"


@dataclass(frozen=True)
class Failed:
    """An error; the text is for the user."""

    text: str
    fatal: bool
    """Whether no further question can be answered."""


Report = (
    Loading
    | Opened
    | Prefilling
    | Ready
    | Introducing
    | Introduced
    | PrefillingQuestion
    | Thinking
    | Streamed
    | TraceReport
    | Answered
    | Forgotten
    | Restoring
    | Restored
    | Verified
    | MemoryReport
    | Note
    | Ticked
    | Renamed
    | Offered
    | Failed
)
