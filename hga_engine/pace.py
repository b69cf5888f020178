"""How far the host may run ahead of the device."""

from collections import deque

import torch

from hga_engine.memory.probes import is_gpu

_MAX_QUEUED = 16
"""About 60 ms of steps: longer than a pause of Python's garbage collector."""


class Pace:
    """Limits the steps queued on a GPU, so that it never idles and progress reports stay true.

    On a CPU a step is done when its call returns, so nothing is queued.
    """

    def __init__(self, device: torch.device) -> None:
        """Start with an empty queue.

        Args:
            device: the device that runs the steps.
        """
        self._is_gpu = is_gpu(device)
        self._queued: deque[torch.cuda.Event] = deque()

    def step(self) -> None:
        """Record that a step has been queued; wait for the oldest if too many are."""
        if not self._is_gpu:
            return
        event = torch.cuda.Event()
        event.record()
        self._queued.append(event)
        if len(self._queued) > _MAX_QUEUED:
            self._queued.popleft().synchronize()

    def finish(self) -> None:
        """Wait for all queued steps."""
        if self._queued:
            self._queued.pop().synchronize()
            self._queued.clear()
