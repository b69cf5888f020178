"""A screen over a scripted engine, and waiting for what it shows."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from hga_chat.screen.app import ChatApp
from hga_engine.config import SamplingParams
from tests.support.scripted import ScriptedAnswer
from tests.support.scripted_conversation import ScriptedConversation

PATIENCE_S = 10.0


@pytest.fixture(autouse=True)
def frequent_ticks(monkeypatch):
    """Take reports more often than a person needs, so that tests wait less."""
    monkeypatch.setattr("hga_chat.screen.app.TICK_S", 0.01)


@pytest.fixture
def scripted():
    return ScriptedConversation


@pytest.fixture
def answer():
    return ScriptedAnswer


@pytest.fixture
def until():
    async def wait(pilot, predicate):
        end = time.monotonic() + PATIENCE_S
        while not predicate():
            assert time.monotonic() < end, f"never came true; state: {pilot.app.flow.state}"
            await asyncio.sleep(0.01)
        await pilot.pause()

    return wait


@pytest.fixture
def opened():
    """An app under test; when it is left, its engine thread must have ended."""

    @asynccontextmanager
    async def open_app(make, size=(120, 40), sampling=None, consider=None):
        app = ChatApp(make, sampling or SamplingParams(), consider=consider)
        async with app.run_test(size=size, notifications=True) as pilot:
            yield app, pilot
        assert await asyncio.to_thread(app.engine.join, PATIENCE_S)

    return open_app
