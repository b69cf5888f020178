"""Recordings of the screen."""

import sys

import pytest

from tools.assets.recording import LONGEST_WAIT_S, Recording, shortened


def test_reading_is_shortened_and_nothing_waits_for_long():
    events = [(0.5, "a"), (10.0, "b"), (20.0, "c"), (30.0, "d"), (30.2, "e"), (90.0, "f")]
    told = shortened(events, 10.0, 30.0, 1.0)
    assert [text for _, text in told] == list("abcdef")
    assert [at for at, _ in told] == pytest.approx(
        [0.5, 0.5 + LONGEST_WAIT_S, 2.0, 2.5, 2.7, 2.7 + LONGEST_WAIT_S]
    )


def test_a_short_reading_keeps_its_pace():
    assert shortened([(1.0, "a"), (1.5, "b")], 1.0, 1.5, 6.0) == [(1.0, "a"), (1.5, "b")]


def test_a_recording_holds_what_a_program_writes_to_its_terminal():
    program = "name = input('Who? '); print('\\033[1mHello', name)"
    recording = Recording([sys.executable, "-c", program])
    recording.wait("Who?")
    recording.type(["M", "o", "b", "y", "\r"])
    recording.wait("Hello Moby")
    assert "\033[1mHello" in "".join(text for _, text in recording.events)
    times = [at for at, _ in recording.events]
    assert times == sorted(times)


def test_a_program_that_ends_early_is_reported():
    recording = Recording([sys.executable, "-c", "print('nothing here')"])
    with pytest.raises(SystemExit, match="nothing here"):
        recording.wait("ready")
