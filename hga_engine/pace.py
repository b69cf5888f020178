"""Keeping the host a little ahead of the device."""

from collections import deque

import torch

from hga_engine.memory.probes import is_gpu

_AHEAD = 16
"""About 60 ms of totals: more than Python's garbage collection takes now and then."""


class Pace:
    """Lets a few steps be queued on a GPU: it never idles, and progress is true all the same.

    On a CPU, which has done a step when its call returns, there is nothing to wait for.
    """

    def __init__(self, device: torch.device) -> None:
        """Begin.

        Args:
            device: where the steps are queued.
        """
        self._is_gpu = is_gpu(device)
        self._queued: deque[torch.cuda.Event] = deque()

    def step(self) -> None:
        """A step has been queued: wait for one some steps back."""
        if not self._is_gpu:
            return
        event = torch.cuda.Event()
        event.record()
        self._queued.append(event)
        if len(self._queued) > _AHEAD:
            self._queued.popleft().synchronize()

    def finish(self) -> None:
        """Wait for all of them."""
        if self._queued:
            self._queued.pop().synchronize()
            self._queued.clear()
