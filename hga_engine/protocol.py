"""What a conversation needs of an engine."""

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from hga_engine.config import SamplingParams, SessionConfig
from hga_engine.events import Event, PrefillProgress

if TYPE_CHECKING:
    import torch

    from hga_engine.memory.figures import MemoryFigures


class EngineProtocol(Protocol):
    """One model and one session of tokens.

    Who calls: one thread, which owns the engine. Only a ``cancel`` event may be set by others.
    ``prefill`` and ``answer`` work while their iterator is advanced; no other call may change the
    session until it is exhausted or closed. ``token_ids``, ``num_tokens``, ``memory`` and
    ``layer_mass`` change nothing and are safe between its steps.

    What changes the session: ``prefill`` and ``answer`` append, ``truncate`` cuts; nothing else.
    """

    config: SessionConfig
    model_name: str
    fingerprint: str
    """Of the model's files."""

    @property
    def token_ids(self) -> list[int]:
        """All tokens of the session, in order."""

    @property
    def num_tokens(self) -> int:
        """Tokens in the session."""

    def prefill(
        self, token_ids: Sequence[int], cancel: threading.Event | None = None
    ) -> Iterator[PrefillProgress]:
        """Append known text. If cancelled or closed before the end, the session is as before.

        Raises:
            ContextFullError: the text does not fit; the session is as before.
            SavedStateError: what was resumed is damaged.
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
            SavedStateError: what was resumed is damaged.
        """

    def truncate(self, tokens: int) -> None:
        """Drop everything from position ``tokens`` on; nothing if the session is shorter."""

    def save(self) -> None:
        """Write the session to ``config.cache.saved_dir``; the session itself does not change.

        Raises:
            SavedStateError: what was resumed is damaged.
            KVStoreError: it cannot be written; what was saved before is whole.
        """

    def memory(self) -> "MemoryFigures":
        """Return the bytes in use now."""

    def layer_mass(self) -> "torch.Tensor":
        """Return [layers, bins]: attention mass of the answer so far, or of the last one."""

    def close(self) -> None:
        """Give memory and files back. What was saved stays; no other call may follow."""
