"""What is in a GPU's memory, seen from the host without waiting for what the GPU is doing."""

import torch


class Mirror:
    """A tensor of the GPU as it was a moment ago.

    A copy is queued behind the work that is under way, and taken once it has arrived; only where
    nothing is under way is it waited for.
    """

    def __init__(self, source: torch.Tensor) -> None:
        self._source = source
        self._arriving = torch.zeros_like(source, device="cpu", pin_memory=True)
        self._seen = torch.zeros_like(source, device="cpu")
        self._arrived = torch.cuda.Event()
        self._is_arriving = False

    def latest(self) -> torch.Tensor:
        """The newest copy that is there, like the source; not to be changed."""
        stream = torch.cuda.current_stream(self._source.device)
        is_idle = stream.query()
        if self._is_arriving and self._arrived.query():
            self._take()
        if not self._is_arriving:
            self._arriving.copy_(self._source, non_blocking=True)
            self._arrived.record(stream)
            self._is_arriving = True
            if is_idle:
                self._arrived.synchronize()
                self._take()
        return self._seen

    def _take(self) -> None:
        self._seen = self._arriving.clone()
        self._is_arriving = False
