"""The engine's interface, as conversations and the screen use it."""

import threading
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from hga_engine.config import ModelConfig, SamplingParams, SessionConfig
from hga_engine.events import Event, PrefillProgress

if TYPE_CHECKING:
    import torch

    from hga_engine.attention.routed import Rule
    from hga_engine.attention.trace import AttentionTotals
    from hga_engine.memory.figures import MemoryFigures


class ChatTokenizer(Protocol):
    """The tokenizer of an engine's model. Its methods do not change the session."""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text; control tokens in it are plain text."""

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the token ids of a text and the range of characters of each."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text; thread-safe."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without control tokens."""

    def opening(self, system: str | None) -> list[int]:
        """Return the tokens before the first user message's content."""

    @property
    def can_think(self) -> bool:
        """Whether the model thinks before it answers if it is asked to, and only then."""

    def to_answer(self, *, thinking: bool = False) -> list[int]:
        """Return the tokens that close the user message and open the assistant's."""

    def opens_thought(self, *, thinking: bool = False) -> bool:
        """Return whether ``to_answer`` ends with the tag that opens a thought."""

    def to_next_question(self) -> list[int]:
        """Return the tokens that close the assistant's message and open the next user message."""


class EngineProtocol(Protocol):
    """One model and one session of tokens.

    Threads: one thread owns the engine and makes all calls. Other threads may only set a ``cancel``
    event.

    ``prefill``, ``answer`` and ``logits`` append to the session while their iterator advances. No
    other call may change or save the session until the iterator is exhausted or closed. The
    properties, ``memory``, ``layer_mass`` and ``page_hit_rate`` change nothing and are safe between
    its steps.
    """

    config: SessionConfig
    model_config: ModelConfig
    model_name: str
    fingerprint: str
    """Sha256 over the model's files."""

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The model's tokenizer."""

    @property
    def token_ids(self) -> list[int]:
        """All tokens of the session, in order."""

    @property
    def num_tokens(self) -> int:
        """Tokens in the session."""

    def check(self) -> None:
        """Wait until a resumed session is loaded and checked; the session does not change.

        ``prefill``, ``answer``, ``logits`` and ``save`` do so themselves.

        Raises:
            SavedStateError: a saved file is damaged; the session cannot be used.
        """

    def prefill(
        self, token_ids: Sequence[int], cancel: threading.Event | None = None
    ) -> Generator[PrefillProgress, None, None]:
        """Append known text. If cancelled or closed before the end, the session is as before.

        Raises:
            ContextFullError: the text does not fit; the session is as before.
            SavedStateError: the resumed state is damaged.
        """

    def answer(
        self,
        prompt_ids: Sequence[int],
        sampling: SamplingParams,
        cancel: threading.Event | None = None,
    ) -> Iterator[Event]:
        """Append a prompt and generate: PrefillProgress, a TextDelta per token, one Finished.

        Generated tokens stay in the session, without the end token. If ``cancel`` is set during the
        prompt, the session is as before; later, it keeps the prompt and what was generated.

        Raises:
            ContextFullError: prompt and one more token do not fit; the session is as before.
            SavedStateError: the resumed state is damaged.
        """

    def logits(
        self,
        token_ids: Sequence[int],
        rule: "Rule" = "decode",
        totals: "AttentionTotals | None" = None,
        hidden_groups: Sequence[int] = (),
    ) -> "Iterator[torch.Tensor]":
        """Append known text and yield the logits of each slice, [tokens of the slice, vocab].

        ``totals`` counts what was attended to. The tokens do not attend to ``hidden_groups``. If
        closed before the end, the session keeps the slices that were yielded.

        Raises:
            ContextFullError: the text does not fit; the session is as before.
            SavedStateError: the resumed state is damaged.
        """

    def leave_out(self, groups: Sequence[int]) -> None:
        """Let ``answer`` and ``logits`` attend to none of these groups until the next call."""

    def set_budget(self, tokens: int) -> None:
        """Let answers attend to another number of tokens per KV head from now on.

        Raises:
            ValueError: they are fewer than ``LEAST_BUDGET``.
            FixedBudgetError: the session is on a GPU.
        """

    def truncate(self, tokens: int) -> None:
        """Drop everything from position ``tokens`` on; nothing if the session is shorter."""

    def save(self) -> None:
        """Write the session to ``config.cache.saved_dir``, if set; the session does not change.

        Raises:
            SavedStateError: the resumed state is damaged.
            KVStoreError: the state cannot be written; the previous save is intact.
        """

    def memory(self) -> "MemoryFigures":
        """Return the bytes in use now."""

    def layer_mass(self) -> "torch.Tensor":
        """Return [layers, bins]: attention mass of the answer so far, or of the last one."""

    def page_hit_rate(self) -> float:
        """Return the share of page requests that hit the cache, 0 to 1."""

    def close(self) -> None:
        """Release memory and files. Saved state stays; no other call may follow."""
