"""The list of saved sessions: search, rename, fork, delete."""

from datetime import UTC, datetime

import pytest
from textual.widgets import Input, Static

from hga_chat.conversation.answer import saved_turn
from hga_chat.screen.picker import TITLE, SessionPicker
from hga_chat.sessions.store import SessionStore
from hga_engine.config import SamplingParams
from tests.support.scripted import ScriptedAnswer
from tests.support.scripted_conversation import ScriptedConversation, keep


@pytest.fixture
def store(tmp_path):
    """A store with two sessions about the same documents; only one was asked."""
    store = SessionStore(1 << 30, tmp_path / "sessions", tmp_path / "kv")
    for question in ("", "How is it?"):
        conversation = keep(ScriptedConversation([ScriptedAnswer("Calm.")]).make(print), store)
        list(conversation.prefill())
        if question:
            list(conversation.ask(question, SamplingParams()))
        conversation.saved.save(
            lambda: None, conversation._documents(), [*map(saved_turn, conversation.turns)]
        )
        conversation.close()
    return store


def shown(app):
    return [app._list.get_option_at_index(n).prompt.plain for n in range(app._list.option_count)]


async def test_documents_and_words_of_turns_are_found(store):
    app = SessionPicker(store)
    async with app.run_test(size=(80, 24)) as pilot:
        counts = {"": 2, "book.pdf": 2, "calm": 1, "how": 1, "rough": 0}
        for search, count in counts.items():
            app.query_one(Input).value = search
            await pilot.pause()
            assert len(shown(app)) == count


async def test_times_are_local(store, monkeypatch):
    app = SessionPicker(store)
    async with app.run_test():
        utc = datetime.fromisoformat(app._entries[0].updated)
        assert utc.tzinfo == UTC
        assert utc.astimezone().strftime("%Y-%m-%d %H:%M") in shown(app)[0]


async def test_rename_fork_and_delete(store):
    app = SessionPicker(store)
    async with app.run_test(size=(80, 24)) as pilot:
        first = app._chosen.id
        await pilot.press("f2", "ctrl+u", *"tide", "enter")
        assert store.info(first).title == "tide"
        assert any(line.startswith("tide ") for line in shown(app))
        await pilot.press("f2", *"x", "escape")
        assert store.info(first).title == "tide"
        await pilot.press("f4")
        assert len(store.ids()) == 3
        doomed = app._chosen.id
        await pilot.press("f8", "escape")
        assert len(store.ids()) == 3
        await pilot.press("f8", "down")
        assert str(app.query_one("#sessions-title", Static).render()) == TITLE
        await pilot.press("f8", "up", "f8")
        assert len(store.ids()) == 3
        await pilot.press("f8")
        assert len(store.ids()) == 2
        assert doomed not in store.ids()
        app.query_one(Input).value = "tide"
        await pilot.pause()
        await pilot.press("enter")
    assert app.return_value in store.ids()
