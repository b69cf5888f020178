"""The predicted bytes of a session, as errors report them; ``memory/ledger.py`` predicts them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ledger:
    """Predicted bytes of a session with a full context, by purpose."""

    weights: int
    index: int
    kv_host: int
    kv_disk: int
    """Upper bound: pages stay on disk when they are read back."""
    workspace: int
    context: int
    """Tokens of the full context."""
    kv_saved: int = 0
    """K/V on disk when the session is saved, in the same file as ``kv_disk``. It need not fit: if
    it does not, saving fails and the session continues."""

    @property
    def total_host(self) -> int:
        """Bytes of host memory."""
        return self.weights + self.index + self.kv_host + self.workspace
