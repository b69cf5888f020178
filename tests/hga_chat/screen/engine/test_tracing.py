import time

import pytest
import torch

from hga_chat.screen.engine import tracing
from hga_chat.screen.engine.tracing import TOP_BINS, TraceRecorder
from hga_chat.sources import standing_out_in
from hga_engine.events import Trace

BINS = range(1, 300)
LAYERS = torch.zeros(2, 300)


def recorded(masses, windows=None, bins=BINS):
    recorder = TraceRecorder(bins)
    for number, mass in enumerate(masses):
        recorder.add(Trace(number, mass, 1.0, windows and windows[number]))
    return recorder


@pytest.fixture
def masses():
    """Mass of nine tokens in a session that grows."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(300 + number // 3, generator=generator) for number in range(9)]


def test_the_report_is_what_stands_out_by_the_rule_of_sources(masses):
    windows = [torch.rand(len(mass)) * (torch.arange(len(mass)) < 4) for mass in masses]
    recorder = recorded(masses, windows)
    found = recorder.report(LAYERS)
    together = [mass + window for mass, window in zip(masses, windows, strict=True)]
    expected, _ = standing_out_in(BINS, together)
    torch.testing.assert_close(found.standing_out[1:], expected.sum(0))
    assert found.standing_out[0] == 0  # before the documents
    assert len(found.standing_out) == BINS.stop
    for token in (0, 8):
        heaviest = expected[token].topk(TOP_BINS)
        assert set(found.token_bins[token].tolist()) == set((heaviest.indices + 1).tolist())
        torch.testing.assert_close(found.token_mass[token], heaviest.values.float())
    torch.testing.assert_close(found.routed[:300], torch.stack([m[:300] for m in masses]).sum(0))
    assert list(found.window[:6]) == [1, 1, 1, 1, 0, 0]
    assert found.layers is LAYERS


def test_newest_is_the_part_since_the_report_before(masses):
    recorder = recorded(masses[:4])
    first = recorder.report(LAYERS)
    torch.testing.assert_close(first.newest, first.standing_out)
    for mass in masses[4:]:
        recorder.add(Trace(9, mass, 1.0))
    second = recorder.report(LAYERS)
    expected, _ = standing_out_in(BINS, masses)
    torch.testing.assert_close(second.newest[1:], expected[4:].sum(0))


def test_reports_take_a_small_share_of_the_time(masses, monkeypatch):
    now = [100.0]

    def slow(bins, per_token):
        now[0] += 2.0
        return standing_out_in(bins, per_token)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(tracing, "standing_out_in", slow)
    recorder = recorded(masses[:4])
    assert recorder.is_due
    recorder.report(LAYERS)
    recorder.add(Trace(9, masses[4], 1.0))
    now[0] += 2.0 / tracing.SHARE_OF_TIME - 0.01
    assert not recorder.is_due
    now[0] += 0.02
    assert recorder.is_due


def test_no_report_is_due_without_a_new_token(masses, monkeypatch):
    monkeypatch.setattr(tracing, "INTERVAL_S", -1.0)
    monkeypatch.setattr(tracing, "SHARE_OF_TIME", 1e9)
    assert not recorded([]).is_due
    recorder = recorded(masses)
    recorder.report(LAYERS)
    assert not recorder.is_due


def test_short_documents_have_fewer_bins_than_a_report_has_room_for(masses):
    found = recorded(masses, bins=range(1, 4)).report(LAYERS)
    assert found.token_bins.shape == (9, 3)
    assert len(found.standing_out) == 4
    empty = recorded(masses, bins=range(1, 1)).report(LAYERS)
    assert empty.token_bins.shape == (9, 0)
    assert not empty.standing_out.any()
