"""The queue of reports from the engine's thread to the screen."""

import threading
from dataclasses import replace

from hga_chat.screen.engine.reports import (
    Answered,
    Failed,
    Loading,
    MemoryReport,
    Prefilling,
    PrefillingQuestion,
    Report,
    Streamed,
    TraceReport,
)


class Outbox:
    """Reports that the screen has not taken yet; consecutive ones of a kind are merged."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: list[Report] = []
        self._latest: dict[type[Report], Report] = {}

    def put(self, report: Report) -> None:
        """Add ``report``, or merge it with the one before it if both are of the same kind."""
        with self._lock:
            merged = _merge(self._reports[-1], report) if self._reports else None
            if isinstance(report, Answered | Failed):
                # A waiting trace would arrive after the answer, when the next may have begun.
                self._latest.pop(TraceReport, None)
            if isinstance(report, MemoryReport | TraceReport):
                # Separate, so that it does not keep tokens from being merged.
                self._latest[type(report)] = report
            elif merged is None:
                self._reports.append(report)
            else:
                self._reports[-1] = merged

    def take(self) -> list[Report]:
        """Return all reports since the last call, in order; figures, only the latest, come last."""
        with self._lock:
            reports = [*self._reports, *self._latest.values()]
            self._reports, self._latest = [], {}
            return reports


def _merge(last: Report, new: Report) -> Report | None:
    if isinstance(last, Streamed) and isinstance(new, Streamed):
        return replace(
            new,
            text=last.text + new.text,
            lengths=last.lengths + new.lengths,
        )
    if type(last) is type(new) and isinstance(new, Loading | Prefilling | PrefillingQuestion):
        return new
    return None
