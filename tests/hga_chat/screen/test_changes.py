"""Changes of the session on the screen: what they cost is said, and asked where it is much."""

import pytest

from hga_chat.screen.changes import Change, Offer
from hga_chat.screen.widgets.confirm import Confirm
from hga_engine.errors import ModelFileError

COST = "All 929 tokens are read again, about 2 min 05 s. Go on?"


@pytest.fixture
def changing(scripted, opened, until):
    """Types a command; what it costs is ``offer`` of the change."""

    def start(offer, size=(80, 24)):
        def consider(conversation, change):
            assert conversation.is_prefilled
            return offer(change)

        return opened(scripted().make, size, consider=consider)

    return start


async def run(pilot, until, text):
    await until(pilot, lambda: pilot.app.flow.is_free)
    pilot.app.prompt.text = text
    pilot.app.prompt.action_send()
    await pilot.pause()


def shown(app):
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in lines)


async def test_what_is_free_is_done_at_once(changing, until):
    async with changing(lambda change: Offer("", change)) as (app, pilot):
        await run(pilot, until, "/context 131072")
        await until(pilot, lambda: app.change is not None)
        assert app.change == Change("context", "131072")
        assert app._exit


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 10)])
@pytest.mark.parametrize(("key", "agreed"), [("y", True), ("n", False), ("escape", False)])
async def test_what_costs_much_is_asked(changing, until, size, key, agreed):
    async with changing(lambda change: Offer(COST, change, is_asked=True), size) as (app, pilot):
        await run(pilot, until, "/model other")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "Go on?" in shown(app)
        assert "y Yes" in shown(app)
        await pilot.press(key)
        await until(pilot, lambda: not isinstance(app.screen, Confirm) or app._exit)
        assert app.change == (Change("model", "other") if agreed else None)
        if not agreed:
            assert app.flow.is_free
            assert app.focused is app.prompt


async def test_what_cannot_be_is_said(changing, until):
    def refuse(change):
        if change.what == "model":
            raise ModelFileError("The file is damaged.")
        return Offer("The session holds 929 tokens.", None)

    async with changing(refuse) as (app, pilot):
        for command, text in (
            ("/context 5", "holds 929 tokens"),
            ("/model broken", "The file is damaged."),
        ):
            await run(pilot, until, command)
            await until(pilot, lambda text=text: text in shown(app))
        assert app.change is None


async def test_a_value_and_a_free_engine_are_needed(changing, until, scripted, opened):
    async with changing(lambda change: Offer("", change)) as (app, pilot):
        await until(pilot, lambda: app.flow.is_free)
        app.action_context("")
        await until(pilot, lambda: "Add the number" in shown(app))
    async with opened(scripted().make) as (app, pilot):
        await run(pilot, until, "/context 9")
        await until(pilot, lambda: "cannot be changed here" in shown(app))
    held = scripted(hold_prefill_after=1)
    async with opened(held.make) as (app, pilot):
        await until(pilot, lambda: app.flow.state.startswith("reading"))
        app.action_context("9")
        await until(pilot, lambda: "Wait until the engine is ready" in shown(app))
        held.engine.release.set()


async def test_the_budget_changes_at_once(scripted, opened, until):
    script = scripted()
    async with opened(script.make) as (app, pilot):
        await run(pilot, until, "/budget 10")
        routing = "at most 92 tokens, 10% of this session"
        await until(
            pilot,
            lambda: routing in app.transcript.notices[-1] if app.transcript.notices else False,
        )
        assert script.engine.config.routing.budget_tokens == 92
        await run(pilot, until, "/budget")
        app.action_budget("")
        await until(pilot, lambda: len(app.transcript.notices) == 2)
        for wrong in ("0", "-3", "101", "much", "nan"):
            app.action_budget(wrong)
            await until(pilot, lambda: "Add a percentage" in shown(app))
        assert script.engine.config.routing.budget_tokens == 92
